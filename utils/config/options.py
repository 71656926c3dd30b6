"""The options of a head: what the layers say of VIDEO.HEAD.OPTIONS, as the head's own dataclass."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from utils.config.fields import Key, keys_of
from utils.config.loader import Resolved
from utils.config.reading import OPTIONS, Entry, typed, typed_text
from utils.errors import ConfigError
from utils.registry import nearest

PROTOCOLS = "configs/pool/protocol/"  # a protocol sets options of all heads
POOL_FILES = "configs/pool/"  # layers that speak to every head: what a head has no option for is no news


def option_keys(kind: type) -> dict[str, Key]:
    """Return the keys of an Options class by dotted name, as utils/config/effects.py takes them."""
    return keys_of(kind, f"{OPTIONS}.")


def head_options(kind: type, values: Mapping[str, Any]) -> Any:
    """Make an Options of values by name; names that it does not have are left out.

    Raises ConfigError with every value that is wrong.
    """
    entries = {name: Entry(value, "", f"{OPTIONS}.{name}") for name, value in values.items()}
    options, problems, _ = _read(kind, entries)
    if problems:
        raise ConfigError([problem.removeprefix(": ") for problem in problems])
    return options


def with_options(resolved: Resolved, kind: type) -> tuple[Resolved, list[str]]:
    """Return the configuration with the head's options complete and typed, and a line for each that is wrong."""
    options, problems, unread = _read(kind, resolved.options)
    if resolved.config.TRAIN.ENABLE:
        problems += _blamed(getattr(options, "problems_of_training", list)(), resolved.options)
    head = resolved.config.VIDEO.HEAD
    notes = [f"{entry.layer}: {entry.spelled}: has no effect: the head {head.NAME} has no such option"
             for entry in unread if not entry.layer.startswith(POOL_FILES)]
    off: dict[str, str] = getattr(options, "without_effect", dict)()
    notes += [f"{resolved.options[name].layer}: {resolved.options[name].spelled}: has no effect: {why}"
              for name, why in off.items() if name in resolved.options]
    values = {name: getattr(options, name) for name in keys_of(kind)}
    config = dataclasses.replace(resolved.config, VIDEO=dataclasses.replace(
        resolved.config.VIDEO, HEAD=dataclasses.replace(head, OPTIONS=values)))
    sources = {**resolved.sources, **{f"{OPTIONS}.{name}": kind.__name__ for name in values
                                      if name not in resolved.options}}
    return dataclasses.replace(resolved, config=config, sources=sources, notes=(*resolved.notes, *notes)), problems


def _read(kind: type, entries: Mapping[str, Entry]) -> tuple[Any, list[str], list[Entry]]:
    """(the Options, what is wrong, published names that this head has no option for)"""
    keys, values, problems, unread = keys_of(kind), {}, [], []
    for name, entry in entries.items():
        if name not in keys:
            if entry.spelled.startswith(OPTIONS) and entry.layer and not entry.layer.startswith(PROTOCOLS):
                advice = nearest(name, keys) or f"it has {', '.join(keys) or 'none'}"
                problems.append(f"{entry.layer}: {entry.spelled}: unknown option of this head; {advice}")
            else:
                unread.append(entry)
            continue
        key = keys[name]
        value = typed_text(entry.text, entry.value) if entry.text and key.is_text else entry.value
        if value is None and not key.optional and not entry.text:
            continue  # an empty line of a YAML file sets nothing
        value, problem = typed(value, key)
        if problem:
            problems.append(f"{entry.layer}: {entry.spelled}: {problem}")
        else:
            values[name] = value
    options = kind(**values)
    problems += _blamed(getattr(options, "problems", list)(), entries)
    return options, problems, unread


def _blamed(texts: list[str], entries: Mapping[str, Entry]) -> list[str]:
    """Return what an Options says of itself ("NAME: ...") with the layer that set the option."""
    layers = {name: entry.layer or OPTIONS for name, entry in entries.items()}
    return [f"{layers.get(text.partition(':')[0], OPTIONS)}: {OPTIONS}.{text}" for text in texts]
