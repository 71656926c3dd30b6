"""Where the frames of a cache should lie: 8 frames at random of a video, from each kind of container.

python runs/benchmarks/bench_container.py    (LMDB and WebDataset are measured where they are installed)

One file read by position (datasets/cache/store.py), one memory-mapped file, LMDB, WebDataset; JPEG frames of random
bytes, nothing decoded, all in the page cache. WebDataset gives samples in order only: a clip costs reading its video.
"""

import argparse
import importlib.util
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np  # noqa: E402

from runs.benchmarks.arguments import whole  # noqa: E402
from utils.command import command  # noqa: E402

T = 8
Reader = Callable[[int, list[int]], list[bytes]]


def videos(arguments: argparse.Namespace) -> Iterator[list[bytes]]:
    """The frames of each video, of lengths around --bytes."""
    generator = np.random.default_rng(0)
    for _ in range(arguments.videos):
        lengths = generator.integers(arguments.bytes // 2, arguments.bytes * 3 // 2, arguments.frames)
        yield [generator.bytes(int(length)) for length in lengths]


def _one_file(directory: Path, arguments: argparse.Namespace) -> tuple[Path, list[np.ndarray]]:
    starts, path = [], directory / "frames.bin"
    with path.open("wb") as file:
        for frames in videos(arguments):
            lengths = np.array([len(frame) for frame in frames])
            starts.append(file.tell() + np.concatenate([[0], np.cumsum(lengths)]))
            file.writelines(frames)
            file.flush()
            os.fsync(file.fileno())
    return path, starts


def positional(directory: Path, arguments: argparse.Namespace) -> Reader:
    """One file, os.pread."""
    path, starts = _one_file(directory, arguments)
    file = os.open(path, os.O_RDONLY)
    return lambda video, wanted: [os.pread(file, int(starts[video][i + 1] - starts[video][i]), int(starts[video][i]))
                                  for i in wanted]


def mapped(directory: Path, arguments: argparse.Namespace) -> Reader:
    """One file, mmap."""
    path, starts = _one_file(directory, arguments)
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return lambda video, wanted: [memory[starts[video][i]:starts[video][i + 1]] for i in wanted]


def lightning(directory: Path, arguments: argparse.Namespace) -> Reader:
    """LMDB, a key a frame, a transaction a video."""
    import lmdb

    base = lmdb.open(str(directory), map_size=1 << 38)
    for video, frames in enumerate(videos(arguments)):
        with base.begin(write=True) as transaction:
            for i, frame in enumerate(frames):
                transaction.put(b"%08d%06d" % (video, i), frame)

    def read(video: int, wanted: list[int]) -> list[bytes]:
        with base.begin() as transaction:
            return [transaction.get(b"%08d%06d" % (video, i)) for i in wanted]

    return read


def web(directory: Path, arguments: argparse.Namespace) -> Reader:
    """WebDataset, a tar file a video, read in order."""
    import webdataset

    for video, frames in enumerate(videos(arguments)):
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


def measure(make: Callable[..., Reader], arguments: argparse.Namespace) -> str:
    """Writing, reading and space, as the end of a line."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as place:
        start = time.perf_counter()
        read = make(Path(place), arguments)
        writing = time.perf_counter() - start
        generator, times = np.random.default_rng(1), []
        for _ in range(arguments.clips):
            video, wanted = int(generator.integers(arguments.videos)), sorted(generator.choice(arguments.frames, T))
            start = time.perf_counter()
            read(video, [int(i) for i in wanted])
            times.append(time.perf_counter() - start)
        size = sum(path.stat().st_blocks * 512 for path in Path(place).iterdir())
    content = sum(map(len, (frame for frames in videos(arguments) for frame in frames)))
    return (f"{np.median(times) * 1e3:7.3f} ms a clip, written in {writing:5.2f} s, {size / content - 1:6.1%} more "
            "space\n")


def main() -> None:
    """A line a container."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="where the containers are made (default: the temporary directory)")
    for name, value in (("videos", 20), ("frames", 300), ("bytes", 29000), ("clips", 200)):
        parser.add_argument(f"--{name}", type=whole(), default=value)
    arguments = parser.parse_args()
    for name, (module, make) in CONTAINERS.items():
        found = importlib.util.find_spec(module) is not None
        sys.stdout.write(f"{name:>20}: {measure(make, arguments)}" if found else f"{name:>20}: not installed\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(command(main))
