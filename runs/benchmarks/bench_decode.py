"""Measures clips a second from each decoder that works here, and from frame caches of the same videos.

The videos are 10 s clips of 340 x 256, 30 frames a second, a keyframe every 250 frames.
"frames" is opening a video and reading 8 frames of it (cache: already resized); "clip" is the tensor the model takes.
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.builder import SplitData, build_split
from datasets.cache.codec import QUALITY, Codec
from datasets.decoding import DECODERS
from runs.benchmarks.long_clips import render_long_clips
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.timing import threads
from runs.benchmarks.towers import small_resnet
from runs.preparing.cache import fill_cache
from utils.config import load_config
from utils.config.schema import Config
from utils.errors import FewShotError
from utils.seed import numpy_generator

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
    """Make the videos, their test list, and a project file; return the latter's path."""
    paths = render_long_clips(data, CLASSES * CLIPS)
    lines = [f"test{n % CLASSES}//{path.name}\n" for n, path in enumerate(paths)]
    (data / "test_few_shot.txt").write_text("".join(lines), encoding="utf-8")
    (scratch / "tower.json").write_text(json.dumps(small_resnet(224, 1, 16)))
    path = scratch / "project.yaml"
    path.write_text(PROJECT.format(scratch=scratch, data=data, episodes=episodes))
    return path


def decoders(path: Path) -> dict[str, Config]:
    """Return the configuration of each decoder that reads these videos here; first decord, else the first that does."""
    found = {}
    for name in sorted(DECODERS, key=lambda name: name != "decord"):
        cfg = load_config(path, ["DATA.DECODER", name])
        with contextlib.suppress(FewShotError):  # not installed, or not for files
            build_split(cfg, "test").dataset[0]
            found[name] = cfg
    return found


def caches(path: Path, data: Path, quality: int) -> dict[str, Config]:
    """Return the configuration of each frame cache, which is made where it is not there. Raises FrameCacheError."""
    found, cfg = {}, load_config(path)
    for name, folder, codec in ((f"cache, jpeg {quality}", f"cache_jpeg{quality}", Codec("jpeg", quality)),
                                ("cache, lossless", "cache_lossless", Codec("lossless", None))):
        with contextlib.redirect_stdout(sys.stderr):  # what it says of the cache is no part of the table
            fill_cache(cfg, data / folder, codec)
        found[name] = load_config(path, ["DATA.FRAME_CACHE", str(data / folder)])
    return found


def clip_seconds(splits: Sequence[SplitData], count: int, first: int = 0) -> np.ndarray:
    """Return seconds [splits, 2] of frames and of a clip: medians over `count` clips, each with its own draw of frames.

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
    """Return the mean bytes of the files, or of what a cache stores of them."""
    if split.dataset.videos.cache is not None:
        return sum(entry.length for entry in split.dataset.videos.cache.entries.values()) / len(split.records)
    return sum(split.dataset.videos.stamp(video)[0] for video in range(len(split.records))) / len(split.records)


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite."""
    return {"clips": 4 if quick else 20, "quality": QUALITY, "rounds": 3}


def measure(data: Path, done: Done = silent, *, clips: int, quality: int, rounds: int) -> list[Row]:
    """Return the rows of each source: clips/s of frames and of ready clips, against the first, and bytes a video."""
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
    """Turn seconds [rounds, sources, 2] into rows: first ratios, then rates."""
    rates, ratios = [], []
    for place, name in enumerate(names):
        for kind, what in enumerate(("frames", "clip")):
            column = times[:, place, kind]
            rates.append(Row(f"{what}, {name}", "clips/s", (1 / column).tolist()))
            if place:
                ratios.append(Row(f"{what}, {name} against {names[0]}", "times",
                                  (times[:, 0, kind] / column).tolist()))
    return ratios + rates
