"""Kinds of values that the benchmarks' options take, for argparse."""

import argparse
import math
from collections.abc import Callable


def whole(least: int = 1, most: int | None = None, why: str = "") -> Callable[[str], int]:
    """A whole number of at least `least`, and at most `most` because of `why`."""
    expected = "a whole number above 0" if least == 1 else f"a whole number of at least {least}"

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
        if most is not None and int(text) > most:
            raise argparse.ArgumentTypeError(f"expected at most {most}{why}, found {text!r}")
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
    """A finite number above 0."""
    return _finite(text, "a finite number above 0", lambda value: value > 0)


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    return _finite(text, "a finite number of at least 0", lambda value: value >= 0)
