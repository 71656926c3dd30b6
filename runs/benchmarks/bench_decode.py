"""Clips a second from each decoder that works here and from frame caches of the same videos.

python runs/benchmarks/bench_decode.py --data data/bench_loader
(renders 10 s clips of 340 x 256, 30 frames a second, a keyframe every 250 frames there the first time)

"frames" is opening a video and reading 8 frames of it (cache: already resized); "clip" is the tensor the model takes.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np  # noqa: E402

from datasets.builder import SplitData, build_split  # noqa: E402
from datasets.cache.codec import QUALITY  # noqa: E402
from datasets.decoding import DECODERS  # noqa: E402
from runs.benchmarks.arguments import whole  # noqa: E402
from runs.benchmarks.long_clips import render_long_clips  # noqa: E402
from runs.benchmarks.rows import LOWER, Done, Row, silent  # noqa: E402
from runs.benchmarks.timing import threads  # noqa: E402
from runs.benchmarks.towers import small_resnet  # noqa: E402
from runs.prepare import main as prepare  # noqa: E402
from utils.command import command  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.config.schema import Config  # noqa: E402
from utils.errors import BenchmarkError, FewShotError  # noqa: E402
from utils.seed import numpy_generator  # noqa: E402

CLASSES, CLIPS = 2, 4
PROJECT = """
PROTOCOL: upstream
NUM_GPUS: 0
OUTPUT_DIR: {scratch}/out
TRAIN: {{ENABLE: false, DATASET_FEW: HMDB_few_shot, NUM_TEST_TASKS: {episodes}, WAY: 2, CLASS_NAME: [a, b]}}
TEST: {{ENABLE: true, CLASS_NAME: [a, b], TEMPORAL_DRAWS: 0, FEATURE_STORE: false}}
DATA: {{DATA_ROOT_DIR: {data}, ANNO_DIR: {data}}}
VIDEO: {{HEAD: {{BACKBONE_NAME: {scratch}/tower.json, BACKBONE_WEIGHTS: random}}}}
DATA_LOADER: {{NUM_WORKERS: 0}}
"""


def project(data: Path, scratch: Path, episodes: int) -> Path:
    """The videos, their test list, and a project file."""
    paths = render_long_clips(data, CLASSES * CLIPS)
    lines = [f"test{n % CLASSES}//{path.name}\n" for n, path in enumerate(paths)]
    (data / "test_few_shot.txt").write_text("".join(lines), encoding="utf-8")
    (scratch / "tower.json").write_text(json.dumps(small_resnet(224, 1, 16)))
    path = scratch / "project.yaml"
    path.write_text(PROJECT.format(scratch=scratch, data=data, episodes=episodes))
    return path


def decoders(path: Path) -> dict[str, Config]:
    """The configuration of each decoder that reads these videos here; first decord, else the first that is there."""
    found = {}
    for name in sorted(DECODERS, key=lambda name: name != "decord"):
        cfg = load_config(path, ["DATA.DECODER", name])
        with contextlib.suppress(FewShotError):  # not installed, or not for files
            build_split(cfg, "test").dataset[0]
            found[name] = cfg
    return found


def caches(path: Path, data: Path, quality: int) -> dict[str, Config]:
    """The configuration of each frame cache, which is made where it is not there. Raises BenchmarkError."""
    found = {}
    jpeg = ["--quality", str(quality)]
    for name, folder, options in ((f"cache, jpeg {quality}", f"cache_jpeg{quality}", ["--mode", "jpeg", *jpeg]),
                                  ("cache, lossless", "cache_lossless", ["--mode", "lossless"])):
        out = str(data / folder)
        with contextlib.redirect_stdout(sys.stderr):  # what it says of the cache is no part of the table
            if prepare(["cache", "--cfg", str(path), "--out", out, *options]):
                raise BenchmarkError(f"{out}: no frame cache could be made there (the reason stands above)")
        found[name] = load_config(path, ["DATA.FRAME_CACHE", out])
    return found


def clip_seconds(splits: Sequence[SplitData], count: int, first: int = 0) -> np.ndarray:
    """Seconds [splits, 2] of frames and of a clip: medians over `count` clips, each with its own draw of frames.

    The sources take turns, so that what else the machine does falls on all alike. `first`: number of the first clip.
    """
    times = np.empty((count, len(splits), 2))
    for n in range(-1, count):  # the first round warms up
        for place, split in enumerate(splits):
            start = time.perf_counter()
            draw = numpy_generator(0, "bench", first + n + 1)
            (frames,) = split.dataset.decode((first + n) % len(split.records), [draw])
            middle = time.perf_counter()
            split.dataset.query_transform(frames)
            times[n, place] = middle - start, time.perf_counter() - start
    return np.median(times, axis=0)


def bytes_a_video(split: SplitData) -> float:
    """Mean bytes of the files, or of what a cache stores of them."""
    if split.dataset.videos.cache is not None:
        return sum(entry.length for entry in split.dataset.videos.cache.entries.values()) / len(split.records)
    return sum(split.dataset.videos.stamp(video)[0] for video in range(len(split.records))) / len(split.records)


def lines(configs: dict[str, Config], clips: int) -> str:
    """A line a source, against the first."""
    splits, text = [build_split(cfg, "test") for cfg in configs.values()], ""
    measured, base = clip_seconds(splits, clips), next(iter(configs))
    for name, split, (frames, clip) in zip(configs, splits, measured, strict=True):
        times = measured[0] / (frames, clip)
        text += (f"{name:>16}: {1 / frames:7.1f} clips/s frames ({times[0]:5.1f} times {base}), "
                 f"{1 / clip:7.1f} clips/s ready for the model ({times[1]:5.1f} times), "
                 f"{bytes_a_video(split) / 1e6:.2f} MB a video\n")
    return text


def settings(quick: bool) -> dict[str, Any]:
    """Arguments of `measure` in the suite."""
    return {"clips": 4 if quick else 20, "quality": QUALITY, "rounds": 3}


def measure(data: Path, done: Done = silent, *, clips: int, quality: int, rounds: int) -> list[Row]:
    """Rows of each source: clips/s of frames and of ready clips, against the first, and bytes; a value a round."""
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        path = project(data.resolve(), Path(scratch), episodes=1)
        configs = {**decoders(path), **caches(path, data.resolve(), quality)}
        splits = [build_split(cfg, "test") for cfg in configs.values()]
        times = np.empty((rounds, len(splits), 2))
        for turn in range(rounds):
            times[turn] = clip_seconds(splits, clips, turn * clips)
            done((turn + 1) / rounds)
        return _rows(list(configs), times) + [Row(f"bytes, {name}", "MB a video", [bytes_a_video(split) / 1e6], LOWER)
                                              for name, split in zip(configs, splits, strict=True)]


def _rows(names: Sequence[str], times: np.ndarray) -> list[Row]:
    """Rows of the seconds [rounds, sources, 2]: all rates, then all ratios."""
    rates, ratios = [], []
    for place, name in enumerate(names):
        for kind, what in enumerate(("frames", "clip")):
            column = times[:, place, kind]
            rates.append(Row(f"{what}, {name}", "clips/s", (1 / column).tolist()))
            if place:
                ratios.append(Row(f"{what}, {name} against {names[0]}", "times",
                                  (times[:, 0, kind] / column).tolist()))
    return ratios + rates


def parser(description: str) -> argparse.ArgumentParser:
    """--data, --clips, --quality."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True, help="directory of the rendered videos")
    for name, value in (("clips", 60), ("quality", QUALITY)):
        found.add_argument(f"--{name}", type=whole(), default=value)
    return found


def main() -> None:
    """A line a source, against decord."""
    arguments = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        data = arguments.data.resolve()
        path = project(data, Path(scratch), episodes=1)
        sys.stdout.write(lines({**decoders(path), **caches(path, data, arguments.quality)}, arguments.clips))


if __name__ == "__main__":
    sys.exit(command(main))
