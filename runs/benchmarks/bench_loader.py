"""Measures which share of the loading two workers hide while the model works.

The videos are 10 s clips of 340 x 256, 30 frames a second, a keyframe every 250 frames. The model works on the same
cores, or elsewhere: then the process waits as long as the model took.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.builder import build_loader, build_split
from models.builder import build_model
from runs.benchmarks.bench_decode import decoders, project
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.timing import seconds, threads
from utils.config.schema import Config

PLACES = ("on these cores", "elsewhere")  # of the model; elsewhere (a GPU) is a wait of as long


@dataclass(frozen=True, slots=True)
class Overlap:
    """Holds, by turn, the seconds of `episodes` episodes: loading alone, one after the other, and with 2 workers."""

    place: str
    episodes: int
    turns: list[tuple[float, float, float]]

    def hidden(self, loading: float, after: float, together: float) -> float:
        """Return the share of the loading that two workers hide."""
        return (after - together) / loading

    def rows(self, source: str) -> list[Row]:
        """Return rows with a value a turn."""
        name = f"{source}, model {self.place}"
        return [Row(f"{name}: loading hidden by 2 workers", "%", [100 * self.hidden(*turn) for turn in self.turns]),
                Row(f"{name}: with 2 workers", "ms an episode", [1e3 * turn[2] / self.episodes for turn in self.turns],
                    LOWER)]


def overlaps(cfg: Config, turns: int) -> Iterator[Overlap]:
    """Yield the overlap of loading with a model on these cores, and with one elsewhere.

    The ways take turns: what else the machine does falls on all alike.
    """
    split, model = build_split(cfg, "test"), build_model(cfg).eval()
    text_GD = model.text("test")
    with torch.inference_mode():
        episode = split.dataset[0]
        seconds(lambda: model(episode, text_GD))
        each = seconds(lambda: model(episode, text_GD), calls=split.episodes)

    def run(workers: int, work: Callable[..., object]) -> float:
        loaders = replace(cfg, DATA_LOADER=replace(cfg.DATA_LOADER, NUM_WORKERS=workers))
        start = time.perf_counter()
        with torch.inference_mode():
            for episode in build_loader(loaders, split):
                work(episode, text_GD)
        return time.perf_counter() - start

    works: tuple[Callable[..., object], ...] = (model, lambda *_: time.sleep(each))
    for place, work in zip(PLACES, works, strict=True):
        yield Overlap(place, split.episodes,
                      [(run(0, lambda *_: None), run(0, work), run(2, work)) for _ in range(turns)])


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite."""
    return {"decoder": "decord", "episodes": 4 if quick else 12, "turns": 2 if quick else 3}


def measure(data: Path, done: Done = silent, *, decoder: str, episodes: int, turns: int) -> list[Row]:
    """Return the rows of one decoder's overlap; a value a turn."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        found = decoders(project(data.resolve(), Path(scratch), episodes))
        name = decoder if decoder in found else next(iter(found))
        for overlap in overlaps(found[name], turns):
            rows += overlap.rows(name)
            done(len(rows) / (2 * len(PLACES)))
    return rows
