"""Clips a second from each decoder and frame cache, and how far two workers decode while the model works.

python runs/benchmarks/bench_loader.py --data data/bench_loader
(renders 10 s clips of 340 x 256, 30 frames a second, a keyframe every 250 frames there the first time)

"frames" is opening a video and reading 8 frames of it (cache: already resized); "clip" is the tensor the model takes.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402

from datasets.builder import build_loader, build_split  # noqa: E402
from models.builder import build_model  # noqa: E402
from runs.benchmarks.arguments import whole  # noqa: E402
from runs.benchmarks.bench_decode import caches, decoders, lines, parser, project  # noqa: E402
from runs.benchmarks.rows import LOWER, Done, Row, silent  # noqa: E402
from runs.benchmarks.timing import seconds, threads  # noqa: E402
from utils.command import command  # noqa: E402
from utils.config.schema import Config  # noqa: E402

PLACES = ("on these cores", "elsewhere")  # of the model; elsewhere (a GPU) is a wait of as long


@dataclass(frozen=True, slots=True)
class Overlap:
    """Seconds of `episodes` episodes: loading alone, one after the other, with 2 workers, by turn; the model's each."""

    place: str
    episodes: int
    each: float
    turns: list[tuple[float, float, float]]

    def hidden(self, loading: float, after: float, together: float) -> float:
        """Share of the loading that two workers hide."""
        return (after - together) / loading

    def line(self, source: str) -> str:
        """The least of the turns, in words."""
        least = [min(column) for column in zip(*self.turns, strict=True)]
        return (f"{source}, model {self.place}: {self.episodes} episodes: loading alone {least[0]:.2f} s, model alone "
                f"{self.each * self.episodes:.2f} s, one after the other {least[1]:.2f} s, with 2 workers "
                f"{least[2]:.2f} s: {self.hidden(*least):.0%} of the loading is hidden\n")

    def rows(self, source: str) -> list[Row]:
        """A value a turn."""
        name = f"{source}, model {self.place}"
        return [Row(f"{name}: loading hidden by 2 workers", "%", [100 * self.hidden(*turn) for turn in self.turns]),
                Row(f"{name}: with 2 workers", "ms an episode", [1e3 * turn[2] / self.episodes for turn in self.turns],
                    LOWER)]


def overlaps(cfg: Config, turns: int) -> Iterator[Overlap]:
    """The overlap of loading with a model on these cores, and with one elsewhere, for which the process waits as long.

    The ways take turns: what else the machine does falls on all alike.
    """
    split, model = build_split(cfg, "test"), build_model(cfg).eval()
    with torch.inference_mode():
        episode = split.dataset[0]
        seconds(lambda: model(episode, "test"))
        each = seconds(lambda: model(episode, "test"), calls=split.episodes)

    def run(workers: int, work: Callable[..., object]) -> float:
        loaders = replace(cfg, DATA_LOADER=replace(cfg.DATA_LOADER, NUM_WORKERS=workers))
        start = time.perf_counter()
        with torch.inference_mode():
            for episode in build_loader(loaders, split):
                work(episode, "test")
        return time.perf_counter() - start

    for place, work in zip(PLACES, (model, lambda *_: time.sleep(each)), strict=True):
        yield Overlap(place, split.episodes, each,
                      [(run(0, lambda *_: None), run(0, work), run(2, work)) for _ in range(turns)])


def settings(quick: bool) -> dict[str, Any]:
    """Arguments of `measure` in the suite."""
    return {"decoder": "decord", "episodes": 4 if quick else 12, "turns": 2 if quick else 3}


def measure(data: Path, done: Done = silent, *, decoder: str, episodes: int, turns: int) -> list[Row]:
    """Rows of one decoder's overlap; a value a turn."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        found = decoders(project(data.resolve(), Path(scratch), episodes))
        name = decoder if decoder in found else next(iter(found))
        for overlap in overlaps(found[name], turns):
            rows += overlap.rows(name)
            done(len(rows) / (2 * len(PLACES)))
    return rows


def main() -> None:
    """A line a source, against decord; then the overlap of decoding and model."""
    parsing = parser(__doc__)
    parsing.add_argument("--episodes", type=whole(), default=12)
    arguments = parsing.parse_args()
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        data = arguments.data.resolve()
        path = project(data, Path(scratch), arguments.episodes)
        found = decoders(path)
        sys.stdout.write(lines({**found, **caches(path, data, arguments.quality)}, arguments.clips))
        sys.stdout.flush()
        for name, cfg in found.items():  # a cache leaves too little to hide
            for overlap in overlaps(cfg, 2):
                sys.stdout.write(overlap.line(name))
                sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(command(main))
