"""Clips a second from each decoder and frame cache, and how far two workers decode while the model works.

python runs/benchmarks/bench_loader.py --data data/bench_loader
(renders 10 s clips of 340 x 256, 30 frames a second, a keyframe every 250 frames there the first time)

"frames" is opening a video and reading 8 frames of it (cache: already resized); "clip" is the tensor the model takes.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np  # noqa: E402
import torch  # noqa: E402

from datasets.builder import SplitData, build_loader, build_split  # noqa: E402
from datasets.decoding import DECODERS  # noqa: E402
from datasets.frame_codec import QUALITY  # noqa: E402
from models.builder import build_model  # noqa: E402
from runs.benchmarks.long_clips import render_long_clips  # noqa: E402
from runs.prepare import main as prepare  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.config.schema import Config  # noqa: E402
from utils.errors import FewShotError  # noqa: E402
from utils.seed import numpy_generator  # noqa: E402

CLASSES, CLIPS = 2, 4
TOWER = {
    "embed_dim": 128, "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
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
    (scratch / "tower.json").write_text(json.dumps(TOWER))
    path = scratch / "project.yaml"
    path.write_text(PROJECT.format(scratch=scratch, data=data, episodes=episodes))
    return path


def seconds_each(work: Callable[[int], object], count: int) -> float:
    """Mean time of one of `count` calls, after one to warm up."""
    work(0)
    start = time.perf_counter()
    for n in range(count):
        work(n)
    return (time.perf_counter() - start) / count


def measure(splits: Sequence[SplitData], count: int) -> np.ndarray:
    """Seconds [splits, 2] of frames and of a clip: medians over `count` clips, each with its own draw of frames.

    The sources take turns, so that what else the machine does falls on all alike.
    """
    times = np.empty((count, len(splits), 2))
    for n in range(-1, count):  # the first round warms up
        for place, split in enumerate(splits):
            start = time.perf_counter()
            (frames,) = split.dataset.decode(n % len(split.records), [numpy_generator(0, "bench", n + 1)])
            middle = time.perf_counter()
            split.dataset.query_transform(frames)
            times[n, place] = middle - start, time.perf_counter() - start
    return np.median(times, axis=0)


def overlap(cfg: Config, source: str) -> str:
    """Loading alone, the model alone, one after the other, and with two workers, as lines: for a model on these cores,
    and for one elsewhere (a GPU), for which the process waits as long."""
    split, model = build_split(cfg, "test"), build_model(cfg).eval()
    with torch.inference_mode():
        episode = split.dataset[0]
        each = seconds_each(lambda n: model(episode, "test"), split.episodes)

    def run(workers: int, work: Callable[..., object]) -> float:
        loaders = replace(cfg, DATA_LOADER=replace(cfg.DATA_LOADER, NUM_WORKERS=workers))
        start = time.perf_counter()
        with torch.inference_mode():
            for episode in build_loader(loaders, split):
                work(episode, "test")
        return time.perf_counter() - start

    lines = []
    for name, work in (("on these cores", model), ("elsewhere", lambda *_: time.sleep(each))):
        # The least of two, taken in turns: what else the machine does falls on all alike.
        times = [(run(0, lambda *_: None), run(0, work), run(2, work)) for _ in range(2)]
        loading, after, together = (min(column) for column in zip(*times, strict=True))
        lines.append(f"{source}, model {name}: {split.episodes} episodes: loading alone {loading:.2f} s, model alone "
                     f"{each * split.episodes:.2f} s, one after the other {after:.2f} s, with 2 workers {together:.2f} "
                     f"s: {(after - together) / loading:.0%} of the loading is hidden\n")
    return "".join(lines)


def sources(path: Path, data: Path, quality: int) -> list[tuple[str, list[str]]]:
    """(name, KEY VALUE pairs) of each decoder that is installed and each cache."""
    found = []
    for name in sorted(DECODERS, key=lambda name: name != "decord"):  # first what the others are measured against
        with contextlib.suppress(FewShotError):  # not installed, or not for files
            build_split(load_config(path, ["DATA.DECODER", name]), "test").dataset[0]
            found.append((name, ["DATA.DECODER", name]))
    jpeg = ["--quality", str(quality)]
    for name, folder, options in ((f"cache, jpeg {quality}", f"cache_jpeg{quality}", ["--mode", "jpeg", *jpeg]),
                                  ("cache, lossless", "cache_lossless", ["--mode", "lossless"])):
        out = str(data / folder)
        if prepare(["cache", "--cfg", str(path), "--out", out, *options]):
            raise SystemExit(f"{out}: no cache")
        found.append((name, ["DATA.FRAME_CACHE", out]))
    return found


def bytes_a_video(split: SplitData) -> float:
    """Mean bytes of the files, or of what a cache stores of them."""
    if split.dataset.cache is not None:
        return sum(entry.length for entry in split.dataset.cache.entries.values()) / len(split.records)
    return sum(split.dataset.stamp(video)[0] for video in range(len(split.records))) / len(split.records)


def main() -> None:
    """A line a source, against decord; then the overlap of decoding and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the rendered videos")
    for name, value in (("clips", 60), ("episodes", 12), ("quality", QUALITY)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data.resolve()
        path = project(data, Path(scratch), arguments.episodes)
        found = {name: load_config(path, pairs) for name, pairs in sources(path, data, arguments.quality)}
        splits = [build_split(cfg, "test") for cfg in found.values()]
        measured = measure(splits, arguments.clips)
        for name, split, (frames, clip) in zip(found, splits, measured, strict=True):
            times = measured[0] / (frames, clip)  # the first is decord
            sys.stdout.write(f"{name:>16}: {1 / frames:7.1f} clips/s frames ({times[0]:5.1f} times decord), "
                             f"{1 / clip:7.1f} clips/s ready for the model ({times[1]:5.1f} times), "
                             f"{bytes_a_video(split) / 1e6:.2f} MB a video\n")
        sys.stdout.flush()
        for name, cfg in found.items():
            if cfg.DATA.FRAME_CACHE is None:  # a cache leaves too little to hide
                sys.stdout.write(overlap(cfg, name))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
