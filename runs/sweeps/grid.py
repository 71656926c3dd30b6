"""Turns --grid KEY=V1,V2 into combinations, each with settings that load, a directory of its own and a command."""

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from runs.session.preflight import check_names
from utils.config import Config, resolve_config
from utils.config.effects import settings
from utils.config.fields import PLACE, SPEED, keys_of
from utils.config.layers import REPOSITORY
from utils.config.reading import aliases
from utils.config.show import to_dict
from utils.errors import ConfigError

RUN = REPOSITORY / "runs" / "run.py"
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_LONGEST = 150  # characters of a directory name; file systems end at 255 bytes
_UNFIT = re.compile(r"[^A-Za-z0-9._+=,@-]+")


@dataclass(frozen=True, slots=True)
class Combination:
    """Says what one run of a sweep is.

    Args:
        name: what varies, fit for a file name; no other combination has it.
        directory: its OUTPUT_DIR.
        project: the project file.
        overrides: KEY VALUE pairs, OUTPUT_DIR not among them.
        config_sha256: hash of the settings that its numbers depend on.
    """

    name: str
    directory: Path
    project: Path
    overrides: tuple[str, ...]
    config_sha256: str

    def command(self, *, absolute: bool = False) -> list[str]:
        """Return the command line of this run; `absolute`: with paths that hold in any working directory."""
        project = self.project.resolve() if absolute else self.project
        directory = self.directory.resolve() if absolute else self.directory
        return [sys.executable, str(RUN), "--cfg", str(project), *self.overrides, "OUTPUT_DIR",
                _argument("OUTPUT_DIR", str(directory))]


def split_values(text: str) -> list[str]:
    """Split a text at the commas that stand outside brackets and quotes, and strip the blanks around the values.

    A quote opens at the start of a value or of an item, as in YAML: the apostrophe of "it's" is a letter.

    Raises:
        ValueError: says which bracket or quote is not closed.
    """
    values, stack, quote, start, index = [], [], "", 0, 0
    while index < len(text):
        letter = text[index]
        if quote:
            if quote == '"' and letter == "\\" or letter == quote == "'" == text[index + 1:index + 2]:
                index += 1  # an escaped letter
            elif letter == quote:
                quote = ""
        elif letter in "'\"" and text[start:index].rstrip()[-1:] in ("", *_CLOSING, ",", ":"):
            quote = letter
        elif letter in _CLOSING:
            stack.append(_CLOSING[letter])
        elif stack and letter == stack[-1]:
            stack.pop()
        elif letter == "," and not stack:
            values.append(text[start:index].strip())
            start = index + 1
        index += 1
    if quote or stack:
        raise ValueError(f"no closing {quote or stack[-1]}")
    return [*values, text[start:].strip()]


def _values(key: str, text: str) -> tuple[list[str], list[str]]:
    """Return (values, problems) of one --grid."""
    try:
        values = split_values(text)
    except ValueError as error:
        return [], [f"--grid {key}: {error} in {text!r}"]
    problems = [f"--grid {key}: value {number} is empty; write '' for an empty text"
                for number, value in enumerate(values, start=1) if not value]
    twice = [value for value, count in Counter(values).items() if count > 1 and value]
    return values, problems + [f"--grid {key}: value {value} given twice" for value in twice]


def parse_grid(items: Sequence[str], pairs: Sequence[str]) -> dict[str, list[str]]:
    """Return the values by key of all --grid.

    Args:
        items: the --grid arguments. pairs: the KEY VALUE pairs beside them.

    Raises:
        ConfigError: lists every --grid that cannot be meant.
    """
    grid: dict[str, list[str]] = {}
    problems = []
    names = aliases()
    fixed = {names.get(key, key) for key in pairs[::2]}
    for item in items:
        spelled, equals, text = item.partition("=")
        key = names.get(spelled.strip(), spelled.strip())
        if not equals or not key:
            problems.append(f"--grid {item}: expected KEY=VALUE,VALUE,...")
        elif key == "OUTPUT_DIR":
            problems.append("--grid OUTPUT_DIR: each combination gets its own directory; --out says where they lie")
        elif key in grid:
            problems.append(f"--grid {key}: given twice; put all its values into one")
        else:
            grid[key], wrong = _values(key, text)
            problems += wrong
        if key in fixed:
            problems.append(f"--grid {key}: also given as KEY VALUE pair; leave one out")
    if "OUTPUT_DIR" in fixed:
        problems.append("OUTPUT_DIR: each combination gets its own directory; --out says where they lie")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return grid


def _argument(key: str, value: str) -> str:
    """Write a value as run.py's command line takes it: one that starts with a dash would be taken for an option."""
    if not value.startswith("-"):
        return value
    known = keys_of(Config)
    quoted = value.replace("'", "''")
    return f"'{quoted}'" if key in known and known[key].is_text else f" {value}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def fit_names(names: Sequence[str]) -> list[str]:
    """Turn names into names of directories, no two of which are the same.

    Letters other than plain ones become _, and long names end early. Such a name, and one that differs from another in
    case only, gets a hash of what it stands for.
    """
    fit = []
    for name in names:
        plain = _UNFIT.sub("_", name).lstrip(".-")[:_LONGEST]
        fit.append(plain if plain == name else f"{plain}~{_short_hash(name)}")
    count = Counter(name.casefold() for name in fit)
    return [short if count[short.casefold()] == 1 else f"{short}~{_short_hash(name)}"
            for short, name in zip(fit, names, strict=True)]


def default_directory(projects: Sequence[Path]) -> Path:
    """Return output/sweep_<project>, relative to the working directory as OUTPUT_DIR is."""
    more = f"_and_{len(projects) - 1}_more" if len(projects) > 1 else ""
    return Path("output") / f"sweep_{projects[0].stem}{more}"


def _stems(projects: Sequence[Path]) -> list[str]:
    """Return what stands for each project in a name; with a hash of its path where another has the same stem."""
    count = Counter(project.stem for project in projects)
    return [project.stem if count[project.stem] == 1 else f"{project.stem}-{_short_hash(str(project.resolve()))}"
            for project in projects]


def _choices(projects: Sequence[Path], grid: dict[str, list[str]]) -> Iterator[tuple[str, Path, list[str]]]:
    """Yield (what varies, project, KEY VALUE pairs) of each combination."""
    for project, stem in zip(projects, _stems(projects), strict=True):
        for values in product(*grid.values()):
            parts = [f"{key}={value}" for key, value in zip(grid, values, strict=True)]
            name = ",".join([stem, *parts] if len(projects) > 1 or not parts else parts)
            yield name, project, [word for key, value in zip(grid, values, strict=True)
                                  for word in (key, _argument(key, value))]


def config_hash(config: Config) -> str:
    """Return the SHA-256 of the settings that numbers depend on: a sweep may be moved, or go on with more workers."""
    return hashlib.sha256(json.dumps(settings(to_dict(config), SPEED, PLACE), sort_keys=True).encode()).hexdigest()


def _summed_up(problems: dict[str, list[str]], total: int) -> list[str]:
    """Return each problem once, with the combinations that have it."""
    lines = []
    for text, names in problems.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        where = "every combination" if len(names) == total > 1 else f"{names[0]}{others}"
        lines.append(f"{where}: {text}")
    return lines


def plan(projects: Sequence[Path], items: Sequence[str], pairs: Sequence[str], out: Path | None) -> list[Combination]:
    """Return every combination once, all settings checked.

    Args:
        projects: project files.
        items: --grid arguments.
        pairs: KEY VALUE pairs of every combination.
        out: directory of the sweep; None: default_directory.

    Raises:
        ConfigError: every problem of every combination.
    """
    grid = parse_grid(items, pairs)
    choices = list(_choices(projects, grid))
    names = fit_names([name for name, _, _ in choices])
    found: dict[str, Combination] = {}
    problems: dict[str, list[str]] = {}
    for name, (_, project, words) in zip(names, choices, strict=True):
        overrides = (*words, *pairs)
        try:
            resolved = check_names(resolve_config(project, overrides))
        except ConfigError as error:
            for text in error.problems:
                problems.setdefault(text, []).append(name)
            continue
        combination = Combination(name, (out or default_directory(projects)) / name, project, overrides,
                                  config_hash(resolved.config))
        every_setting = json.dumps({**to_dict(resolved.config), "OUTPUT_DIR": ""}, sort_keys=True)
        same = found.setdefault(every_setting, combination)
        if same is not combination:
            problems.setdefault(f"the same settings as {same.name}", []).append(name)
        elif names.count(name) > 1:  # only where a project is called as another one with its hash
            problems.setdefault("two combinations would share this directory; rename a project file", []).append(name)
    if problems:
        raise ConfigError(_summed_up(problems, len(choices)))
    return list(found.values())
