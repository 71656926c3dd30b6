"""Fits how the cost of a work grows with one size, and shows it as a table, a record and a plot."""

import gc
import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from runs.benchmarks.rows import markdown, short
from runs.benchmarks.timing import Work
from utils.allocator import give_back_memory
from utils.json_files import write_json

ALLOWED = 0.15  # by which a fitted exponent may exceed that of the work
LEAST_SECONDS = 0.02  # a work is repeated until its calls take as long


@dataclass(frozen=True, slots=True)
class Line:
    """Says what is measured as one size grows, and how it may grow.

    Args:
        name: of the work. size: what grows. sizes: from small to large.
        exponent: of the work itself: its cost grows as size ** exponent.
        prepare: size -> the work, whose preparation is not measured.
        memory: whether the memory that it takes is measured, too.
    """

    name: str
    size: str
    sizes: Sequence[int]
    exponent: float
    prepare: Callable[[int], Work]
    memory: bool = False


@dataclass(frozen=True, slots=True)
class Growth:
    """Holds what was measured of a line.

    Args:
        seconds: CPU seconds of one call at each size. bytes_each: memory that one more of the size takes, or None.
    """

    name: str
    size: str
    sizes: list[int]
    seconds: list[float]
    work: float
    bytes_each: float | None = None

    @property
    def exponent(self) -> float:
        """Gives the exponent that fits the upper half of the sizes."""
        return fitted(self.sizes, self.seconds)

    @property
    def costs_more(self) -> bool:
        """Tells whether it grows more than its work."""
        return self.exponent > self.work + ALLOWED

    def record(self) -> dict[str, Any]:
        """Return it as it stands in the JSON."""
        return {**asdict(self), "exponent": self.exponent, "costs_more": self.costs_more}


def fitted(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the slope of log seconds over log size, by least squares over the upper half of the sizes (of five: the
    largest three), where what does not grow counts least. NaN for a single size."""
    half = len(sizes) // 2
    sizes, seconds = sizes[half:], seconds[half:]
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]) if len(sizes) > 1 else math.nan


def cpu_seconds(work: Work, repeats: int) -> float:
    """Return the least CPU seconds of a call, of this process and those that it waited for, over `repeats` repeats."""
    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    def timed(calls: int) -> float:
        start = spent()
        for _ in range(calls):
            work()
        return (spent() - start) / calls

    gc.collect()
    first = timed(1)
    calls = max(1, math.ceil(LEAST_SECONDS / max(first, 1e-7)))
    return min(first, *(timed(calls) for _ in range(repeats)))


def _grown(work: Work, pipe: Connection) -> None:
    """Send the KiB by which the memory of this process, a fresh fork, grows at most while the work is done."""
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize() // 1024
    kept = work()
    pipe.send(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
    del kept


def peak_bytes(work: Work) -> int:
    """Return the bytes by which a process grows at most while a work is done, in a forked process of its own."""
    give_back_memory()  # what is free here, the work would take for its own there
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_grown, args=(work, theirs))
    process.start()
    theirs.close()
    grown = ours.recv()
    process.join()
    return 1024 * int(grown)


def measured(line: Line, repeats: int) -> Growth:
    """Measure a line: CPU seconds at each size; memory as the growth from the middle size to the largest."""
    sizes, seconds, peaks = list(line.sizes), [], {}
    for size in sizes:
        work = line.prepare(size)
        if line.memory and size in (sizes[len(sizes) // 2], sizes[-1]):
            peaks[size] = peak_bytes(work)
        seconds.append(cpu_seconds(work, repeats))
    each = None
    if len(peaks) == 2:
        (small, of_small), (large, of_large) = peaks.items()
        each = (of_large - of_small) / (large - small)
    return Growth(line.name, line.size, sizes, seconds, line.exponent, each)


def growth_table(found: Sequence[Growth]) -> str:
    """Return what was found as a table of Markdown; a line that costs more than its work says so."""
    cells = [(one.size, one.name, f"{one.sizes[0]:,} to {one.sizes[-1]:,}", f"{short(1e3 * one.seconds[-1])} ms",
              f"{one.exponent:.2f}", f"{one.work:g}", "" if one.bytes_each is None else f"{one.bytes_each:,.0f}",
              "MORE THAN ITS WORK" if one.costs_more else "") for one in found]
    return markdown(cells, ("size", "what", "from, to", "CPU, largest", "exponent", "of its work", "bytes each", ""))


def plot_growth(found: Sequence[Growth], path: Path) -> None:
    """Draw CPU seconds over each size as one PNG, a panel a size, logarithmic both ways."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one.size for one in found))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5.5 * columns, 4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        for one in (one for one in found if one.size == name):
            axes.loglog(one.sizes, one.seconds, marker="o", markersize=3,
                        linestyle="--" if one.costs_more else "-",
                        label=f"{one.name}: {one.exponent:.2f} (work: {one.work:g})")
        axes.set(xlabel=name, ylabel="CPU seconds")
        axes.legend(fontsize=7)
    for axes in panels[len(names):]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def write_growth(found: Sequence[Growth], directory: Path, facts: dict[str, Any]) -> None:
    """Write growth.md, growth.json and growth.png into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "growth.md").write_text(growth_table(found), encoding="utf-8")
    write_json(directory / "growth.json", {**facts, "lines": [one.record() for one in found]})
    plot_growth(found, directory / "growth.png")
