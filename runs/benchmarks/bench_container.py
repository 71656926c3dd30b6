"""Measures where the frames of a cache should lie: reading 8 frames at random of a video, from each kind of container.

The containers are one file read by position (datasets/cache/store.py), one memory-mapped file, and LMDB and WebDataset
where they are installed. JPEG frames are random bytes, nothing is decoded, all is in the page cache. WebDataset gives
samples in order only: a clip costs reading its video.
"""

import importlib.util
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runs.benchmarks.rows import LOWER, Done, Row, silent

T = 8  # frames of a clip
Reader = Callable[[int, list[int]], list[bytes]]


@dataclass(frozen=True, slots=True)
class Size:
    """Says what is stored: so many videos of so many frames of about so many bytes."""

    videos: int
    frames: int
    bytes: int


def videos(size: Size) -> Iterator[list[bytes]]:
    """Yield the frames of each video, of lengths around size.bytes."""
    generator = np.random.default_rng(0)
    for _ in range(size.videos):
        lengths = generator.integers(size.bytes // 2, size.bytes * 3 // 2, size.frames)
        yield [generator.bytes(int(length)) for length in lengths]


def _one_file(directory: Path, size: Size) -> tuple[Path, list[np.ndarray]]:
    starts, path = [], directory / "frames.bin"
    with path.open("wb") as file:
        for frames in videos(size):
            lengths = np.array([len(frame) for frame in frames])
            starts.append(file.tell() + np.concatenate([[0], np.cumsum(lengths)]))
            file.writelines(frames)
            file.flush()
            os.fsync(file.fileno())
    return path, starts


def positional(directory: Path, size: Size) -> Reader:
    """Read one file by position."""
    path, starts = _one_file(directory, size)
    file = os.open(path, os.O_RDONLY)
    return lambda video, wanted: [os.pread(file, int(starts[video][i + 1] - starts[video][i]), int(starts[video][i]))
                                  for i in wanted]


def mapped(directory: Path, size: Size) -> Reader:
    """Read one file that is memory-mapped."""
    path, starts = _one_file(directory, size)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return lambda video, wanted: [memory[starts[video][i]:starts[video][i + 1]] for i in wanted]


def lightning(directory: Path, size: Size) -> Reader:
    """Read LMDB: a key a frame, a transaction a video."""
    import lmdb

    base = lmdb.open(str(directory), map_size=1 << 38)
    for video, frames in enumerate(videos(size)):
        with base.begin(write=True) as transaction:
            for i, frame in enumerate(frames):
                transaction.put(b"%08d%06d" % (video, i), frame)

    def read(video: int, wanted: list[int]) -> list[bytes]:
        with base.begin() as transaction:
            return [transaction.get(b"%08d%06d" % (video, i)) for i in wanted]

    return read


def web(directory: Path, size: Size) -> Reader:
    """Read WebDataset: a tar file a video, in order."""
    import webdataset

    for video, frames in enumerate(videos(size)):
        with webdataset.TarWriter(str(directory / f"{video}.tar")) as file:
            for i, frame in enumerate(frames):
                file.write({"__key__": f"{i:06d}", "jpg": frame})

    def read(video: int, wanted: list[int]) -> list[bytes]:
        found = webdataset.WebDataset(str(directory / f"{video}.tar"), shardshuffle=False, empty_check=False)
        chosen = {int(sample["__key__"]): sample["jpg"] for sample in found if int(sample["__key__"]) in set(wanted)}
        return [chosen[i] for i in wanted]

    return read


CONTAINERS = {"one file, positional": ("os", positional), "one file, mapped": ("mmap", mapped),
              "LMDB": ("lmdb", lightning), "WebDataset": ("webdataset", web)}


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure`."""
    return {"videos": 4 if quick else 20, "frames": 300, "bytes": 29000, "clips": 20 if quick else 200}


def measure(data: Path, done: Done = silent, *, clips: int, **sizes: int) -> list[Row]:
    """Return the rows of each container, which is made under `data`; times of a clip are one value a clip."""
    size, rows = Size(**sizes), []
    data.mkdir(parents=True, exist_ok=True)
    for name, (module, make) in CONTAINERS.items():
        if importlib.util.find_spec(module) is not None:
            rows += _rows(name, make, size, clips, data)
        done(len(rows) / (3 * len(CONTAINERS)))
    return rows


def _rows(name: str, make: Callable[[Path, Size], Reader], size: Size, clips: int, data: Path) -> list[Row]:
    """The rows of one container: reading, writing, and space."""
    with tempfile.TemporaryDirectory(dir=data) as folder:
        start = time.perf_counter()
        read = make(Path(folder), size)
        writing = time.perf_counter() - start
        generator, times = np.random.default_rng(1), []
        for _ in range(clips):
            video, wanted = int(generator.integers(size.videos)), sorted(generator.choice(size.frames, T))
            start = time.perf_counter()
            read(video, [int(i) for i in wanted])
            times.append(1e3 * (time.perf_counter() - start))
        stored = sum(path.stat().st_blocks * 512 for path in Path(folder).iterdir())
    content = sum(len(frame) for frames in videos(size) for frame in frames)
    return [Row(f"reading, {name}", "ms a clip", times, LOWER), Row(f"writing, {name}", "s", [writing], LOWER),
            Row(f"space beside the frames' own, {name}", "%", [100 * (stored / content - 1)], LOWER)]
