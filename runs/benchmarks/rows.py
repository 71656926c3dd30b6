"""Rows of figures, which are what a benchmark finds; the table and the JSON are made of them."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from utils.errors import BenchmarkError

HIGHER, LOWER, NEITHER = "higher", "lower", "neither"
RATIOS = ("times", "%")  # units of figures that another machine may be compared with
Done = Callable[[float], None]  # told the share, 0..1, of a benchmark's work that is done


def silent(share: float) -> None:
    """Show nothing: a Done for callers that have no bar."""


@dataclass(frozen=True, slots=True)
class Row:
    """Holds one figure of a benchmark.

    Args:
        name: what was measured; the same in every run, so that runs can be compared.
        unit: of the values; "times" and "%" are ratios of two things measured in turns.
        values: one a repeat; the figure is their median.
        better: higher, lower, or neither (what the machine or the setting has, such as its matmul rate).

    Raises BenchmarkError where a part is of another kind, or a value is no finite number.
    """

    name: str
    unit: str
    values: Sequence[float]
    better: str = HIGHER

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(self.values) if isinstance(self.values, (list, tuple)) else ())
        if not isinstance(self.name, str) or not isinstance(self.unit, str):
            raise BenchmarkError(f"expected a name and a unit, found {self.name!r} and {self.unit!r}")
        if self.better not in (HIGHER, LOWER, NEITHER):
            raise BenchmarkError(f"{self.name}: better: expected higher, lower or neither, found {self.better!r}")
        wrong = [v for v in self.values if not isinstance(v, (int, float)) or not math.isfinite(v)]
        if wrong or not self.values:
            raise BenchmarkError(f"{self.name}: values: expected one or more finite numbers, found "
                                 f"{wrong[0] if wrong else 'none'!r}")

    @property
    def figure(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.values)

    @property
    def relative(self) -> bool:
        """Whether the figure is a ratio, which another machine's may be compared with."""
        return self.unit in RATIOS

    def record(self) -> dict[str, Any]:
        """Return it as it stands in the JSON."""
        return {"name": self.name, "unit": self.unit, "better": self.better, "figure": self.figure,
                "least": min(self.values), "most": max(self.values), "values": list(self.values)}


def short(value: float) -> str:
    """Write a number in three digits, without an exponent: 0.0123, 4.56, 1,234."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def spread(row: Row) -> str:
    """Write the least and the most of the repeats, and how many they are."""
    if len(row.values) == 1:
        return "one value"
    return f"{short(min(row.values))} to {short(max(row.values))} ({len(row.values)})"


def table(rows: Iterable[tuple[str, Row]]) -> str:
    """Return (benchmark, row) pairs as a table of Markdown, one a line."""
    cells = [(benchmark, row.name, short(row.figure), row.unit, spread(row), row.better) for benchmark, row in rows]
    return markdown(cells, ("benchmark", "what", "figure", "unit", "spread over repeats", "better"))


def markdown(cells: Iterable[Iterable[str]], columns: Iterable[str]) -> str:
    """Return cells as a table of Markdown; numbers are text by now and stay as they are."""
    return pd.DataFrame(list(cells), columns=list(columns)).to_markdown(index=False, disable_numparse=True) + "\n"
