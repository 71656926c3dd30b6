"""How the schema declares a key, and how a YAML or command-line value becomes the key's type."""

import dataclasses
import functools
import types
import typing
from typing import Any, Union


def key(doc: str, *, inert: str = "", choices: tuple = (), minimum: float | None = None):
    """One configuration key.

    Args:
        doc: one line: meaning and unit.
        inert: why the key is read by nothing (kept so that published files load); empty for keys that act.
        choices: the values allowed, when they are few.
        minimum: the smallest number allowed.
    """
    return dataclasses.field(metadata={"doc": doc, "inert": inert, "choices": choices, "minimum": minimum})


def is_section(hint: Any) -> bool:
    """Whether a field's type is a nested section rather than a value."""
    return dataclasses.is_dataclass(hint)


@functools.cache
def hints(section: type) -> dict[str, Any]:
    """Field name to type of a section."""
    return typing.get_type_hints(section)


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of the schema, by its dotted name: what `key` declared, and the type."""

    hint: Any
    doc: str
    inert: str
    choices: tuple
    minimum: float | None

    @property
    def is_text(self) -> bool:
        """Whether text as typed is a value of this key."""
        return self.hint is str or str in typing.get_args(self.hint)

    @property
    def optional(self) -> bool:
        """Whether null is a value of this key."""
        return type(None) in typing.get_args(self.hint)


@functools.cache
def keys_of(section: type, prefix: str = "") -> dict[str, Key]:
    """Every key below a section by dotted name, in the order of the schema; the dict is shared: do not change it."""
    found: dict[str, Key] = {}
    for field in dataclasses.fields(section):
        hint = hints(section)[field.name]
        if is_section(hint):
            found.update(keys_of(hint, f"{prefix}{field.name}."))
        else:
            found[prefix + field.name] = Key(hint, **field.metadata)
    return found


def describe(hint: Any) -> str:
    """A type in the words of an error message."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is tuple:
        return "list of " + {int: "integers", float: "numbers", str: "texts"}.get(args[0], describe(args[0]))
    names = {int: "integer", float: "number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, str(hint))


class Mismatch(Exception):
    """A value that is not of the wanted type (internal; becomes one line of a ConfigError)."""


def _number(value: Any, hint: type) -> Any:
    if isinstance(value, bool):
        raise Mismatch
    if hint is int:
        if isinstance(value, int):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise Mismatch
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, str):  # PyYAML reads 1e-3 (no dot) as text
        try:
            return float(value)
        except ValueError:
            raise Mismatch from None
    raise Mismatch


def _union(value: Any, args: tuple) -> Any:
    if value is None and type(None) in args:
        return None
    for arg in args:
        if arg is type(None):
            continue
        try:
            return coerce(value, arg)
        except Mismatch:
            continue
    raise Mismatch


def coerce(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`, or Mismatch. Lists become tuples; integers widen to floats; nothing narrows."""
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
