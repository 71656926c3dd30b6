"""The parts of runs/benchmarks/gpu.py, and how they share the time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from runs.benchmarks import gpu_works as works
from runs.benchmarks.bench_heads import Sizes
from runs.benchmarks.gpu_goals import ALIGNMENT, FASTEST, PLAIN_STEP, TRIED, WAYS, fastest_rows, step_part
from runs.benchmarks.guarded import Guarded
from runs.benchmarks.progress import Bar
from runs.benchmarks.record import Finding, Record, new_record, write_record
from runs.benchmarks.rows import Row
from runs.benchmarks.steps import SMALL, StepOptions
from utils.errors import BenchmarkError
from utils.signals import Stopped, number_of

TOWERS = {"ViT-B/16": 5.0, "RN50": 4.0}  # and the weights of their parts
ITERATIONS = 40  # of a run of ranks


@dataclass(frozen=True, slots=True)
class Part:
    """Holds works by name, which share a part's time.

    Args:
        weight: the part's share of the time, beside those of the other parts.
    """

    name: str
    weight: float
    works: Mapping[str, Callable[[], list[Row]]]


def parts_of(device: str, quick: bool, data: Path) -> list[Part]:
    """Return the parts in their order; `data` is where clips are rendered."""
    effort, towers, ways, base = works.Effort(), TOWERS, WAYS, StepOptions(query=5, device=device)
    if quick:
        effort, towers, ways = works.QUICK, {SMALL: 5.0}, {way: WAYS[way] for way in TRIED}
        base = StepOptions(way=2, query=1, frames=2, device=device)
    tested = Sizes(classes=5, clips=8, episodes=20) if quick else Sizes()
    clips = data.resolve() / "bench_gpu"
    trained = replace(base, backbone=next(iter(towers)), precision="bf16")
    places = {"transforms on the CPU": False, "transforms on the device (AUGMENTATION.USE_GPU)": True}
    return [
        Part("tests", 4.0, {"marked gpu": works.gpu_tests}),
        Part("rates", 0.3, {"this machine": partial(works.rates, device, effort)}),
        *(Part(step_part(tower), weight, {
            way: partial(works.way_of_a_step, replace(base, backbone=tower, **changes), way == PLAIN_STEP, effort)
            for way, changes in ways.items()}) for tower, weight in towers.items()),
        Part(ALIGNMENT, 1.0, {form: partial(works.alignment, form, base, effort) for form in works.FORMS}),
        Part("loading", 2.5, {
            **{f"decoder {name}": partial(works.decoding, name, clips, base, effort)
               for name in ("torchcodec", "decord", "pyav")},
            **{place: partial(works.loading, use_gpu, clips, trained, effort) for place, use_gpu in places.items()}}),
        Part("evaluation", 1.0, {f"features of {tower}": partial(
            works.scoring, tower, tested, device) for tower in towers}),
        Part("ranks", 1.0, {"two GPUs": partial(works.two_ranks, data.resolve() / "bench_ranks", device, ITERATIONS)}),
    ]


def chosen(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Return the parts whose name begins with one of `names`. Raises BenchmarkError: one that fits no part."""
    for name in names:
        if not any(part.name.startswith(name) for part in parts):
            raise BenchmarkError(f"--only: expected some of {'; '.join(part.name for part in parts)}, found {name!r}")
    return [part for part in parts if part.name.startswith(tuple(names))]


def measure_parts(parts: Sequence[Part], out: Path, minutes: float,
                  settings: Mapping[str, Any]) -> Record:
    """Measure part after part, each in its share of what is left of the time; write the record after every work.

    Args:
        settings: of the run, which say whether another run is of the same things.

    Raises Stopped, which says what has been written, and BenchmarkError where nothing can be written.
    """
    record, end = new_record(), time.monotonic() + 60 * minutes
    write_record(out, record)
    try:
        with Guarded() as guarded, Bar({part.name: part.weight for part in parts}) as bar:
            for place, part in enumerate(parts):
                now, done = time.monotonic(), bar.begin(part.name)
                until = now + (end - now) * part.weight / sum(one.weight for one in parts[place:])
                for number in _measured(part, guarded, record, until, settings):
                    write_record(out, record)
                    done(number / len(part.works))
    except KeyboardInterrupt as stop:
        raise Stopped(number_of(stop), f"what had been measured is in {out}") from stop
    return record


def _measured(part: Part, guarded: Guarded, record: Record, until: float, settings: Mapping[str, Any]) -> Iterator[int]:
    """Put the rows of each work, or the reason of its having none, into the record; yield how many have been done."""
    rows, start = list[Row](), time.monotonic()
    for number, (name, work) in enumerate(part.works.items(), start=1):
        try:
            rows += [replace(row, name=f"{name}: {row.name}") for row in guarded.call(work, until - time.monotonic())]
        except BenchmarkError as reason:
            record.failed[f"{part.name}: {name}"] = str(reason)
        if rows:
            record.findings[part.name] = Finding(dict(settings), list(rows), time.monotonic() - start)
        if derived := fastest_rows(record):
            record.findings[FASTEST] = Finding(dict(settings), derived, 0.0)
        yield number
