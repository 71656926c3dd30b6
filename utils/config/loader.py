"""Turn a project file and KEY VALUE pairs into a frozen Config, or into one ConfigError with all that is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.config import class_names
from utils.config.checks import Finding, impossible, remarks
from utils.config.fields import hints, is_section, keys_of
from utils.config.inert import ignored_names
from utils.config.layers import POOL, Layer, foreign_base, layer_files, parse_yaml, read_layer
from utils.config.reading import OPTIONS, Entry, Reading, typed
from utils.config.schema import Config
from utils.errors import ConfigError

COMMAND_LINE = "command line"
NO_TEST = "false has no effect beside TRAIN.ENABLE true: a training ends with one test of its best checkpoint"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Hold a configuration and how it came to be."""

    config: Config
    sources: dict[str, str]  # dotted key to the layer its value came from (a file, or "command line")
    ignored: tuple[str, ...]  # keys and sections found that belong to the public project's other tasks
    notes: tuple[str, ...]  # what a user should know: keys without effect, class names taken from the pool
    path: Path  # the project file
    options: Mapping[str, Entry]  # the head's options as written; utils/config/options.py gives them their types


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of a project file; `overrides` alternates dotted keys and values, as on a command line.

    Raises ConfigError with every problem found.
    """
    return resolve_config(path, overrides).config


def resolve_config(path: str | Path, overrides: Sequence[str] = ()) -> Resolved:
    """Return what load_config does, with the layer of each key, the ignored keys and the notes."""
    path = Path(path)
    return _resolve(*layer_files(path), path, foreign_base(path), overrides)


def resolve_values(values: Mapping[str, Any], name: str, overrides: Sequence[str] = ()) -> Resolved:
    """Return the configuration of settings that are no file, such as those a checkpoint holds, nested by section.

    Args:
        name: what they are called in messages.

    Raises ConfigError with every problem found.
    """
    return _resolve([read_layer(POOL / "base.yaml")], [Layer(name, dict(values))], Path(name), None, overrides)


def _resolve(bases: list[Layer], project: list[Layer], path: Path, foreign: Path | None, overrides: Sequence[str]
             ) -> Resolved:
    """Put layers on top of each other and check what comes out (see resolve_config)."""
    reading = Reading(ignored_names(), foreign.resolve().parent if foreign else None)
    defaults = _defaults(bases[0], reading)
    pairs = _pairs(overrides, reading.problems)
    every = [*bases, *project, *pairs]
    for layer in [*_of_head(every), *bases[1:], *_protocol(every), *project, *pairs]:
        reading.add(layer)
    values, bad = _values(reading, defaults)
    options = {key.removeprefix(f"{OPTIONS}."): entry for key, entry in reading.entries.items()
               if key.startswith(f"{OPTIONS}.")}
    values[OPTIONS] = {name: entry.value for name, entry in options.items()}
    sources = {key: entry.layer for key, entry in reading.entries.items()}
    notes: list[str] = []
    try:
        filled, notes = class_names.fill(values, path)
        sources.update(filled)
    except ConfigError as error:
        reading.problems.extend(_blame(error.problems, sources))
        bad |= {*class_names.TARGETS.values(), "DATA.CLASSES"}
    config = _build(Config, values)
    blamed = {key: project[-1].name if layer == bases[0].name else layer for key, layer in sources.items()}
    reading.problems.extend(_worded(impossible(config), bad, blamed))
    said = sources["TEST.ENABLE"]
    if config.TRAIN.ENABLE and not config.TEST.ENABLE:
        if said == COMMAND_LINE:
            reading.problems.append(f"{said}: TEST.ENABLE: {NO_TEST}")
        elif not foreign and "configs/pool/" not in said:  # published base files say so beside every training
            notes.append(f"{said}: TEST.ENABLE: {NO_TEST}")
    if reading.problems:
        raise ConfigError(list(dict.fromkeys(reading.problems)))
    notes += [layer.remark for layer in [*bases, *project] if layer.remark]
    notes += [*reading.without_effect(), *_worded(remarks(config, sources), bad, sources)]
    return Resolved(config, sources, tuple(reading.ignored), tuple(notes), path, options)


def _defaults(base: Layer, reading: Reading) -> dict[str, Any]:
    """Return every key's default. Raises one clear problem when base.yaml is not this project's."""
    reading.add(base)
    missing = [key for key in keys_of(Config) if key not in reading.entries]
    if missing:
        raise ConfigError([
            f"{base.name}: sets no default for {len(missing)} keys ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}): it must be this project's own file, which sets every key; "
            "restore it with: git checkout configs/pool/base.yaml"])
    values, _ = _values(reading, {})
    if reading.problems:
        raise ConfigError(reading.problems)
    return values


def _pairs(overrides: Sequence[str], problems: list[str]) -> list[Layer]:
    """Return KEY VALUE pairs as layers of one key each; problems are appended."""
    items = [str(item) for item in overrides]
    if len(items) % 2:
        equals = [item for item in items if "=" in item]
        advice = f"; write {equals[0].replace('=', ' ', 1)}, without '='" if equals else ""
        found = f"{len(items)} items, so the last" if len(items) > 1 else "1 item, so it"
        problems.append(f"{COMMAND_LINE}: {items[-1]}: expected KEY VALUE pairs, found {found} has no value{advice}")
        return []
    return [_pair(key, text, problems) for key, text in zip(items[::2], items[1::2], strict=True)]


def _pair(key: str, text: str, problems: list[str]) -> Layer:
    known = keys_of(Config)
    value: Any = text
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        if key not in known or not known[key].is_text:
            problems.append(f"{COMMAND_LINE}: {key}: not valid YAML: {' '.join(str(error).split())}")
            return Layer(COMMAND_LINE, {}, key=key, text=text)
    for name in reversed(key.split(".")):
        value = {name: value}
    return Layer(COMMAND_LINE, value, key=key, text=text)


def _of_head(layers: list[Layer]) -> list[Layer]:
    """The layer with the options of the last head named; none where the pool has no file of its name."""
    names = [head["NAME"] for layer in layers if isinstance(video := layer.values.get("VIDEO"), dict)
             and isinstance(head := video.get("HEAD"), dict) and isinstance(head.get("NAME"), str)]
    return [read_layer(path) for path in (POOL / "model").glob("*.yaml") if path.stem in names[-1:]]


def _protocol(layers: list[Layer]) -> list[Layer]:
    """Return the layer of the last PROTOCOL named; none when that is no protocol (the key's own check says so)."""
    names = [name for layer in layers if (name := layer.values.get("PROTOCOL")) is not None]
    known = keys_of(Config)["PROTOCOL"].choices
    return [read_layer(POOL / "protocol" / f"{names[-1]}.yaml")] if names and names[-1] in known else []


def _values(reading: Reading, defaults: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return typed values, and the keys whose value is wrong (their default stands in, so that other checks go on)."""
    values, bad = {}, set()
    for dotted, key in keys_of(Config).items():
        entry = reading.entries[dotted]
        values[dotted], problem = typed(entry.value, key)
        if problem:
            reading.problems.append(f"{entry.layer}: {entry.spelled}: {problem}")
            values[dotted] = defaults.get(dotted)
            bad.add(dotted)
    return values, bad


def _build(section: type, values: dict[str, Any], prefix: str = "") -> Any:
    return section(**{
        name: _build(hint, values, f"{prefix}{name}.") if is_section(hint) else values[prefix + name]
        for name, hint in hints(section).items()
    })


def _blame(problems: list[str], sources: dict[str, str]) -> list[str]:
    """Put the layer before problems of DATA.CLASSES; problems of a class file name that file already."""
    return [f"{sources['DATA.CLASSES']}: {text}" if text.startswith("DATA.CLASSES") else text for text in problems]


def _worded(findings: Iterable[Finding], bad: set[str], sources: dict[str, str]) -> list[str]:
    """Return findings as lines, without those about a key that is already reported as wrong."""
    return [f"{sources[finding.keys[0]]}: {finding.keys[0]}: {finding.text}"
            for finding in findings if bad.isdisjoint(finding.keys)]
