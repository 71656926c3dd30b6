"""Declare the keys of the schema, and turn a YAML or command-line value into its key's type."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol, Union


class Effect(Enum):
    """Say what changes with a key's value. A key is declared with one of these words: the first that is true of it.

    Resume, the identity of a test, tables and sweeps ask for it (utils/config/effects.py); none of them keeps a list.
    TRAINING is apart from NUMBERS because a finished checkpoint holds all of its effect: no test of it depends on such
    a key any more.
    """

    NUMBERS = "the weights, and what finished weights make of a clip"
    TRAINING = "the weights that training ends with, or which of them are selected; not what they make of a clip"
    SCORING = "only how finished weights are scored: what a validation or a test measures"
    SPEED = "how fast it goes and what memory it takes; the numbers are the same but for rounding"
    PLACE = "where things lie, what they are called, what is logged and kept, and whether a run goes on"


NUMBERS, TRAINING, SCORING, SPEED, PLACE = Effect


class Names(Protocol):
    """A table whose names are the values of a key: utils.registry.Registry."""

    def __contains__(self, name: object) -> bool: ...

    def unknown(self, name: str) -> str:
        """Say that a name is not in the table."""


def key(doc: str, *, affects: Effect, default: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """Declare one configuration key: the value of a field of a section's dataclass.

    Args:
        doc: one line: meaning and unit.
        affects: what changes with the key's value.
        default: the value where nobody sets one. Keys of the schema have theirs in configs/pool/base.yaml instead.
        limits: what else a `Key` says, by name.
    """
    return dataclasses.field(default=default, metadata={"doc": doc, "affects": affects, **limits})


def free_section(doc: str) -> Any:
    """Declare a field that holds keys which the schema does not know: a dict by name."""
    return dataclasses.field(metadata={"doc": doc, "free": True})


def section(doc: str) -> Any:
    """Declare a field that holds a section: a dataclass of keys."""
    return dataclasses.field(metadata={"doc": doc})


def is_section(hint: Any) -> bool:
    """Return whether a field's type is a nested section rather than a value."""
    return dataclasses.is_dataclass(hint)


@functools.cache
def hints(section: type) -> dict[str, Any]:
    """Return the type of each field of a section by name."""
    return typing.get_type_hints(section)


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key: what `key` declared, and the type."""

    hint: Any
    doc: str
    affects: Effect
    # Whether a run may go on with another value although numbers depend on it: it decides only about what is still to
    # come (more iterations, other ranks), and what was done stays as it was.
    may_change: bool = False
    choices: tuple[str, ...] = ()  # the values allowed, when they are few
    minimum: float | None = None  # the smallest number allowed
    maximum: float | None = None
    above: float | None = None  # numbers must be larger than it
    items: int | None = None  # how many numbers a list has
    registry: Names | None = None  # the table that has a text's allowed values
    aliases: Mapping[str | None, str] = dataclasses.field(default_factory=dict)  # other spellings of a value

    @property
    def is_text(self) -> bool:
        """Return whether text as typed is a value of this key."""
        return self.hint is str or str in typing.get_args(self.hint)

    @property
    def optional(self) -> bool:
        """Return whether null is a value of this key."""
        return type(None) in typing.get_args(self.hint)

    def one_spelling(self, value: Any) -> Any:
        """Return the spelling of a value that stands in a Config, where it has several."""
        return self.aliases.get(value, value) if self.aliases and isinstance(value, str | None) else value


@functools.cache
def keys_of(section: type, prefix: str = "") -> dict[str, Key]:
    """Return every key below a section by dotted name, in schema order; the dict is shared: do not change it.

    Raises TypeError naming a field that does not say what it affects.
    """
    found: dict[str, Key] = {}
    for field in dataclasses.fields(section):
        hint = hints(section)[field.name]
        if is_section(hint):
            found.update(keys_of(hint, f"{prefix}{field.name}."))
        elif field.metadata.get("free"):
            continue
        elif isinstance(field.metadata.get("affects"), Effect):
            found[prefix + field.name] = Key(hint, **field.metadata)
        else:
            raise TypeError(f"{prefix}{field.name}: expected key(..., affects=NUMBERS, TRAINING, SCORING, SPEED or "
                            f"PLACE), found {field.metadata.get('affects', 'no affects')}")
    return found


def describe(hint: Any) -> str:
    """Return a type in the words of an error message."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is tuple:
        return "list of " + {int: "integers", float: "numbers", str: "texts"}.get(args[0], describe(args[0]))
    names = {int: "integer", float: "number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, str(hint))


class Mismatch(Exception):
    """Say that a value is not of the wanted type (internal; it becomes one line of a ConfigError)."""


def _number(value: Any, hint: type) -> Any:
    if isinstance(value, bool):
        raise Mismatch
    if hint is int:
        if isinstance(value, int) or isinstance(value, float) and value.is_integer():
            return int(value)
        raise Mismatch
    try:
        return float(value)  # PyYAML reads 1e-3 (no dot) as text
    except (TypeError, ValueError, OverflowError):
        raise Mismatch from None


def _union(value: Any, args: tuple[Any, ...]) -> Any:
    for arg in args:
        with suppress(Mismatch):
            return coerce(value, arg)
    raise Mismatch


def coerce(value: Any, hint: Any) -> Any:
    """Return `value` as the type `hint`: lists become tuples, integers widen to floats. Raises Mismatch."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(value, args)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise Mismatch
        return tuple(coerce(item, args[0]) for item in value)
    if hint in (int, float):
        return _number(value, hint)
    if not isinstance(value, hint):
        raise Mismatch
    return value
