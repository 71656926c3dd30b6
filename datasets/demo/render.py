"""Render the demo data set: short clips of "a red ball bouncing", written as real video files.

Nothing is downloaded. A class is an object (colour and shape) doing a motion; 48 classes train, 8 validate
and 12 test. How the splits relate, so that results are read rightly: the words recur, the combinations do
not. Every colour, shape and motion of val and test also occurs in training, but no class name occurs in two
splits, and neither does any object: if "a red star" is a training object, no val or test class shows one.
In training each object does three motions; in val two objects, and in test four objects, do two motions
each, so those classes differ by motion alone. Size, speed, place, shade, light, background, picture size,
length and frame rate vary from clip to clip. The numbers of this set say that the code learns; they compare
with no published result.

Files under the root: `videos/<class>/<number>.mp4` (H.264) or `.avi` (MPEG-4, every third clip), and
`{train,val,test}_few_shot.txt` with lines such as `train0//videos/a_red_ball_bouncing/000.mp4`.
`python runs/prepare.py demo --out data/demo` renders them.
"""

import hashlib
import json
import multiprocessing
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from datasets.demo.scenes import COLOURS, MOTIONS, SHAPES, render_frames
from utils.errors import DemoError
from utils.files import whole_file

VERSION = 1  # raise it when the same seed renders other pictures or other classes
SPLITS = ("train", "val", "test")
CLIPS_PER_CLASS = 24
FRAME_RATES = (10, 12, 15, 20, 24, 25, 30)  # frames a second
SIDES = (96, 160)  # smallest and largest picture side, pixels, even
LENGTHS = (16, 60)  # smallest and largest number of frames
KEYFRAME_INTERVAL = 12  # frames
H264_OPTIONS = {"preset": "veryfast", "crf": "25", "threads": "1", "x264-params": "mbtree=0"}  # mbtree: bytes vary
STAMP, MARKER = ".demo_complete.json", ".demo_started.json"
CHUNK = 8  # clips a worker renders before it reports

ClassSpec = tuple[str, str, str]  # colour, shape, motion
_Job = tuple[ClassSpec, int]  # a clip to render: class, number


def _class_specs(split: str) -> list[ClassSpec]:
    """Return the classes of one split as (colour, shape, motion); colour + shape pairs never cross splits."""
    colours, shapes, motions = list(COLOURS), list(SHAPES), list(MOTIONS)
    if split == "train":  # 16 objects, three motions each; every motion four times
        pairs = [(i % 8, i % 8 + i // 8) for i in range(16)]
        table = [(c, s, k + step) for k, (c, s) in enumerate(pairs) for step in (0, 1, 5)]
    elif split == "val":  # six objects
        table = [(0, 2, 0), (0, 2, 6), (2, 4, 2), (2, 4, 9), (3, 5, 4), (4, 6, 11), (6, 0, 8), (7, 1, 10)]
    else:  # eight objects, the first four with two motions
        table = [(0, 4, 6), (0, 4, 0), (2, 6, 2), (2, 6, 3), (4, 0, 4), (4, 0, 10), (6, 2, 5), (6, 2, 9)]
        table += [(1, 5, 8), (3, 7, 7), (5, 1, 1), (7, 3, 11)]
    return [(colours[c], shapes[s % 8], motions[m % 12]) for c, s, m in table]


def _name(spec: ClassSpec) -> str:
    article = "an" if spec[0][0] in "aeiou" else "a"
    return f"{article} {' '.join(spec)}"


def class_names(split: str) -> tuple[str, ...]:
    """Return the class names of a split; the position is the class index in the split's list."""
    if split not in SPLITS:
        raise DemoError(f"unknown split: expected one of {', '.join(SPLITS)}, found {split!r}")
    return tuple(map(_name, _class_specs(split)))


def _clip_path(name: str, number: int) -> str:
    """Return the path of a clip under the root; every third clip is MPEG-4 in AVI."""
    return f"videos/{name.replace(' ', '_')}/{number:03d}.{'avi' if number % 3 == 2 else 'mp4'}"


def encode_clip(target: Path, clip: np.ndarray, rate: int) -> None:
    """Write uint8 [frames, height, width, 3] RGB at `rate` frames a second; the file appears when whole."""
    is_avi = target.suffix == ".avi"
    with whole_file(target) as part, av.open(str(part), "w", format="avi" if is_avi else "mp4") as container:
        stream = container.add_stream("mpeg4" if is_avi else "libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        stream.gop_size, stream.thread_count = KEYFRAME_INTERVAL, 1
        stream.codec_context.time_base = Fraction(1, rate)
        if is_avi:
            stream.bit_rate = 600_000
        else:
            stream.options = H264_OPTIONS
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _render_clip(root: Path, spec: ClassSpec, number: int, seed: int) -> None:
    """Render clip `number` of a class; its pictures depend on seed, class and number only."""
    name = _name(spec)
    rng = np.random.default_rng([seed, VERSION, zlib.crc32(name.encode()), number])
    height, width = (2 * int(rng.integers(SIDES[0] // 2, SIDES[1] // 2 + 1)) for _ in range(2))
    frames, rate = int(rng.integers(LENGTHS[0], LENGTHS[1] + 1)), int(rng.choice(FRAME_RATES))
    target = root / _clip_path(name, number)
    target.parent.mkdir(parents=True, exist_ok=True)
    encode_clip(target, render_frames(*spec, frames, height, width, rng), rate)


def _render_chunk(root: Path, jobs: list[_Job], seed: int) -> int:
    for spec, number in jobs:
        _render_clip(root, spec, number, seed)
    return len(jobs)


def _counts(label: str, given: Mapping[str, int], default: Mapping[str, int]) -> dict[str, int]:
    """Return a number for each split, the default where none is given. Raises DemoError."""
    for split, count in given.items():
        if split not in SPLITS or type(count) is not int or count < 1:
            raise DemoError(f"{label}: expected whole numbers over 0 for {', '.join(SPLITS)}, found {count!r} for "
                            f"{split}")
    return {**default, **given}


def write_text(target: Path, text: str) -> None:
    with whole_file(target) as part:
        part.write_text(text, encoding="utf-8")


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _render_missing(root: Path, jobs: list[_Job], seed: int, workers: int) -> None:
    """Render the jobs, in this process when workers is 1, else in fresh processes."""
    chunks = [jobs[i : i + CHUNK] for i in range(0, len(jobs), CHUNK)]
    with tqdm(total=len(jobs), desc="rendering the demo", unit="clip", disable=None if jobs else True) as bar:
        if workers == 1 or len(chunks) < 2:
            for chunk in chunks:
                bar.update(_render_chunk(root, chunk, seed))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
            futures = [pool.submit(_render_chunk, root, chunk, seed) for chunk in chunks]
            try:
                for future in as_completed(futures):
                    bar.update(future.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)  # and wait: the end of `with` would take the cancelling back
                raise


def render_demo(root: Path | str, *, seed: int = 0, clips_per_class: int | Mapping[str, int] = CLIPS_PER_CLASS,
                workers: int | None = None, max_classes: Mapping[str, int] | None = None) -> dict[str, Path]:
    """Render the demo data set under `root` and return the list file of each split.

    A finished set with the same settings is returned at once; an interrupted one is completed; clips of
    other settings at the same paths are rendered anew. `clips_per_class` is a number or one per split
    (absent splits keep the default), `max_classes` keeps the first classes of a split, `workers` is the
    number of processes (None: one per CPU core).
    """
    if seed < 0:
        raise DemoError(f"seed: expected a whole number of at least 0, found {seed!r}")
    if workers is not None and workers < 1:
        raise DemoError(f"workers: expected at least 1 or None, found {workers!r}")
    given = dict.fromkeys(SPLITS, clips_per_class) if isinstance(clips_per_class, int) else clips_per_class
    clips = _counts("clips_per_class", given, dict.fromkeys(SPLITS, CLIPS_PER_CLASS))
    kept = _counts("max_classes", max_classes or {}, {split: len(_class_specs(split)) for split in SPLITS})
    specs = {split: _class_specs(split)[: kept[split]] for split in SPLITS}
    root = Path(root)
    lists = {split: root / f"{split}_few_shot.txt" for split in SPLITS}
    plan = json.dumps({"version": VERSION, "seed": seed, "clips": clips, "classes": specs}, sort_keys=True)
    key = json.dumps({"settings": hashlib.sha256(plan.encode()).hexdigest()}) + "\n"
    missing = _missing(root, [(spec, n) for split in SPLITS for spec in specs[split] for n in range(clips[split])], key)
    if not missing and _holds(root / STAMP, key) and all(path.is_file() for path in lists.values()):
        return lists
    (root / STAMP).unlink(missing_ok=True)
    _render_missing(root, missing, seed, workers or os.cpu_count() or 1)
    for split in SPLITS:
        write_text(lists[split], "".join(f"{split}{index}//{_clip_path(_name(spec), number)}\n" for index, spec
                                         in enumerate(specs[split]) for number in range(clips[split])))
    write_text(root / STAMP, key)
    return lists


def _missing(root: Path, jobs: list[_Job], key: str) -> list[_Job]:
    """Return the jobs whose clip is not there, after removing clips of other settings at their paths."""
    paths = [root / _clip_path(_name(spec), number) for spec, number in jobs]
    if not _holds(root / MARKER, key):
        root.mkdir(parents=True, exist_ok=True)
        (root / STAMP).unlink(missing_ok=True)
        for path in paths:
            path.unlink(missing_ok=True)
        write_text(root / MARKER, key)
    return [job for job, path in zip(jobs, paths, strict=True) if not path.is_file()]
