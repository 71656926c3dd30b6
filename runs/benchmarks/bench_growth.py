"""Measures how time and memory grow as one size grows and the others are held, and compares that with the work itself.

Sizes: videos of the list, episodes, ways, shots, frames, classes. Each line's exponent is the slope of log CPU seconds
over log size, by least squares over the upper half of its sizes; one that is over that of its work by more than 0.15 is
marked, and --strict ends with exit status 1. CPU seconds, one thread, so that other work on the machine matters little.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from models.builder import FewShotModel, build_model
from runs.benchmarks import growing_works as works
from runs.benchmarks.bench_evaluation import config
from runs.benchmarks.growth import ALLOWED, Growth, Line, growth_table, measured, write_growth
from runs.benchmarks.hardware import machine
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.timing import threads
from runs.reporting.run_record import git_commit
from utils.errors import BenchmarkError


def _of_list(folder: Path, largest: int) -> Iterator[Line]:
    videos = works.spaced(min(1_000, largest // 10), min(1_000_000, largest), 7)
    yield Line("reading and checking the list", "videos", videos, 1, works.reading(folder), True)
    yield Line("drawing 500 episodes", "videos", videos, 0, partial(works.drawing, episodes=500))
    yield Line("opening the frame cache", "videos", videos, 1, partial(works.cache_opening, folder), True)


def _of_episodes(folder: Path, model: FewShotModel, largest: int) -> Iterator[Line]:
    episodes = works.spaced(min(100, largest // 10), min(100_000, largest), 7)
    few = [one for one in episodes if one <= 10_000]  # of scoring: 0.1 ms an episode is seconds by then

    def of(work: Any) -> Any:
        return lambda count: work(*works.an_evaluation(count))

    def file(which: int) -> Any:
        return lambda count: works.predicting(folder, *works.an_evaluation(count))[which]

    yield Line("drawing and hashing the episodes", "episodes", few, 1, partial(works.drawing, 10_000))
    yield Line("scoring from ready features", "episodes", few, 1, partial(works.scoring, model), True)
    yield Line("results.json", "episodes", episodes, 1, of(works.summing), True)
    yield Line("report", "episodes", episodes, 0, of(works.reporting))
    yield Line("writing predictions.parquet", "episodes", episodes, 1, file(0), True)
    yield Line("reading predictions.parquet", "episodes", episodes, 1, file(1), True)


def _of_an_episode(model: FewShotModel, largest: int) -> Iterator[Line]:
    def upto(*sizes: int) -> list[int]:
        return [one for one in sizes if one <= largest]

    ways, shots = upto(5, 10, 20, 30, 50, 70, 100), upto(1, 2, 3, 5, 10, 15, 20)
    frames = upto(8, 12, 16, 24, 32, 48, 64)

    def match(name: str) -> Any:
        return lambda size: works.matching(model, **{name: size})

    def align(name: str) -> Any:
        return lambda size: works.aligning(**{name: size})

    yield Line("OTAM, forward and backward", "ways", ways, 1, align("way"), True)
    yield Line("OTAM, forward and backward", "queries", ways, 1, align("queries"), True)
    yield Line("CLIP-FSAR's match", "ways", ways, 1, match("way"))
    yield Line("CLIP-FSAR's match", "shots", shots, 1, match("shot"))
    yield Line("OTAM, forward and backward", "frames", frames, 2, align("frames"), True)
    yield Line("CLIP-FSAR's match", "frames", frames, 2, match("frames"))


def _of_classes(folder: Path, largest: int) -> Iterator[Line]:
    classes = works.spaced(12, min(1_000, max(24, largest)), 7)

    def of(work: Any) -> Any:
        return lambda count: work(*works.an_evaluation(works.EPISODES, count, 2_000 // count * count))

    yield Line("confusion.csv", "classes", classes, 2, of(partial(works.confusing, folder)))
    yield Line("results.json", "classes", classes, 2, of(works.summing))
    yield Line("report", "classes", classes, 2, of(works.reporting), True)


def lines(folder: Path, model: FewShotModel, largest: int) -> list[Line]:
    """Return every line, its sizes up to `largest`."""
    return [*_of_list(folder, largest), *_of_episodes(folder, model, largest), *_of_an_episode(model, largest),
            *_of_classes(folder, largest)]


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure`."""
    return {"largest": 1_000_000, "quick": quick, "out": "output/growth", "strict": False}


def rows_of(found: list[Growth]) -> list[Row]:
    """Return what was fitted as rows of a benchmark."""
    return [Row(f"{one.name}, by {one.size} (work: {one.work:g})", "exponent", [one.exponent], LOWER) for one in found]


def measure(done: Done = silent, *, largest: int, quick: bool, out: str, strict: bool) -> list[Row]:
    """Return the fitted exponents, and write growth.md, growth.json and growth.png into `out`.

    Args:
        largest: no size goes beyond it. quick: small sizes, which show that it runs and not how things grow.

    Raises BenchmarkError: `largest` leaves no sizes; or, if strict, a line costs more than its work.
    """
    if largest < 100:
        raise BenchmarkError(f"--largest: expected at least 100, found {largest}")
    found: list[Growth] = []
    largest = min(largest, 1_000) if quick else largest
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        folder = Path(scratch)
        model = build_model(config(folder, folder, 1, episodes=1, classes=works.CLASSES)).eval()
        every = lines(folder, model, largest)
        for number, line in enumerate(every):
            line = replace(line, sizes=line.sizes[::3]) if quick else line
            found.append(measured(line, 1 if quick else 2))
            done((number + 1) / len(every))
    write_growth(found, Path(out), {"machine": machine(), "git_commit": git_commit(), "largest": largest})
    sys.stdout.write(f"{growth_table(found)}Written to {out}\n\n")
    over = [f"{one.name} by {one.size}: {one.exponent:.2f} where its work has {one.work:g}"
            for one in found if one.costs_more]
    if strict and over:
        raise BenchmarkError(f"--strict: {len(over)} cost more than their work (by over {ALLOWED}): {'; '.join(over)}")
    return rows_of(found)
