"""Answer what each key affects, for all that compare two runs: resume, the identity of a test, tables, sweeps."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from utils.config.fields import NUMBERS, Effect, Key, keys_of
from utils.config.inert import inert_keys
from utils.config.reading import aliases
from utils.config.schema import Config

_NONE: Mapping[str, Key] = MappingProxyType({})


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one table of dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value})
    return found


def _key(dotted: str, more: Mapping[str, Key]) -> Key | None:
    return keys_of(Config).get(dotted) or more.get(dotted)


def effect_of(dotted: str, more: Mapping[str, Key] = _NONE) -> Effect:
    """Return what a key affects; NUMBERS, the careful answer, for a key that nobody declares (any more, or yet).

    `more` are keys beside the schema's by dotted name, such as `keys_of(Options, "VIDEO.HEAD.OPTIONS.")` of a head.
    """
    found = _key(dotted, more)
    return found.affects if found else NUMBERS


def may_change(dotted: str, more: Mapping[str, Key] = _NONE) -> bool:
    """Return whether a run may go on with another value of a key although numbers depend on it (see fields.key)."""
    found = _key(dotted, more)
    return found is not None and found.may_change


def settings(values: Mapping[str, Any], *without: Effect, more: Mapping[str, Key] = _NONE) -> dict[str, Any]:
    """Return a configuration as one table of dotted keys, ready to be compared with that of another run.

    Keys without any effect are left out; keys and values of several spellings have the one that a Config has: so the
    run.json or checkpoint of an earlier version compares well. Keys with an effect in `without` are left out, too.
    `values` are nested sections as `show.to_dict` gives them, or a table of dotted keys; `more` is as for `effect_of`.
    """
    named = {aliases().get(dotted, dotted): value for dotted, value in flat(values).items()}
    kept = {dotted: value for dotted, value in named.items()
            if dotted not in inert_keys() and effect_of(dotted, more) not in without}
    return {dotted: found.one_spelling(value) if (found := _key(dotted, more)) else value
            for dotted, value in kept.items()}
