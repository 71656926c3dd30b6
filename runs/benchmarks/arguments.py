"""Options of the benchmarks' commands: kinds of values, and an option for each setting of a benchmark."""

import argparse
import math
from collections.abc import Callable, Mapping
from typing import Any


def whole(least: int = 1) -> Callable[[str], int]:
    """Return a reader of whole numbers of at least `least`, for argparse."""
    expected = "a whole number above 0" if least == 1 else f"a whole number of at least {least}"

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
        return int(text)

    return read


def _finite(text: str, expected: str, fits: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not fits(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
    return value


def positive(text: str) -> float:
    """Read a finite number above 0."""
    return _finite(text, "a finite number above 0", lambda value: value > 0)


def not_negative(text: str) -> float:
    """Read a finite number of at least 0."""
    return _finite(text, "a finite number of at least 0", lambda value: value >= 0)


def _kind(value: Any) -> dict[str, Any]:
    """How argparse reads values like this one: a list takes several, a number whose default is 0 may be 0."""
    if isinstance(value, list):
        return {"nargs": "+", **_kind(value[0])}
    if isinstance(value, bool):
        return {"action": argparse.BooleanOptionalAction}
    if isinstance(value, int):
        return {"type": whole(min(value, 1))}
    return {"type": positive if isinstance(value, float) else str}


def add_settings(parser: argparse.ArgumentParser, settings: Mapping[str, Any]) -> None:
    """Add an option for each setting, whose default says what kind of value it takes."""
    for name, value in settings.items():
        shown = " ".join(map(str, value)) if isinstance(value, list) else repr(value) if value == "" else value
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, help=f"default: {shown}", **_kind(value))
