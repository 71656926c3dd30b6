"""Fill a frame cache: each video is decoded once, a few frames at a time, and added as a whole.

A worker (`encode_video`) writes a video's frames into a spool file; the one writer appends that to the data file, waits
for the disk, and then makes it part of the index. Killed at any moment, the cache holds whole videos only.
"""

import dataclasses
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.annotations import file_stamp
from datasets.cache.codec import Codec
from datasets.cache.index import DATA, FORMAT, Entry, FrameIndex
from datasets.cache.store import FrameCache, codec_of
from datasets.decoding import Clip, open_video, read_frames
from datasets.transforms import resize_frames
from utils.errors import FrameCacheError, VideoDecodeError
from utils.files import told_as
from utils.lock import lock_file

CHUNK_BYTES = 64 << 20  # decoded frames that are in memory at once
LOCK, SPOOL = "writer.lock", "spool"


@dataclass(frozen=True, slots=True)
class VideoToCache:
    """Name a video that is to be cached."""

    listed: str  # its path in the list
    file: Path | None  # its file or folder, if there is one
    sizes: tuple[tuple[int, int], ...]  # heights and widths wanted
    problem: str = ""  # why there is no file

    def stamp(self) -> tuple[int, int]:
        """Return the file's annotations.file_stamp, zeros where there is no file."""
        return file_stamp(self.file) if self.file is not None else (0, 0)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Hold a video at one size on its way into the cache: `entry` has no start yet, `spool` holds its frames."""

    entry: Entry
    table: bytes = b""
    spool: Path | None = None


class _Spool:
    """Write the frames of one size into a file as they come, and note their lengths and checksums."""

    def __init__(self, path: Path, size: tuple[int, int], codec: Codec):
        self.path, self.size, self.codec = path, size, codec
        self.lengths: list[int] = []
        self.checksums: list[int] = []

    def add(self, frames_THWC: np.ndarray, file: BinaryIO) -> None:
        for picture in resize_frames(frames_THWC, self.size):
            data = self.codec.encode(picture)
            self.lengths.append(len(data))
            self.checksums.append(zlib.crc32(data))
            file.write(data)

    def encoded(self, video: VideoToCache, stamp: tuple[int, int], fps: float) -> Encoded:
        entry = Entry(video.listed, *self.size, *stamp, frames=len(self.lengths), fps=fps)
        table = entry.table(self.lengths, self.checksums)
        length = len(table) + sum(self.lengths)
        return Encoded(dataclasses.replace(entry, length=length, checksum=zlib.crc32(table)), table, self.path)


def _decode_into(spools: Sequence[_Spool], clip: Clip, path: Path) -> None:
    """Decode all frames of a clip, in order, into every spool."""
    first = read_frames(clip, np.array([0]), path)
    step = max(1, CHUNK_BYTES // first.nbytes)
    for start in range(0, clip.num_frames, step):
        frames = read_frames(clip, np.arange(start, min(start + step, clip.num_frames)), path)
        for spool in spools:
            with spool.path.open("ab") as file:
                spool.add(frames, file)


def undecodable(video: VideoToCache, spool: Path, reason: str) -> list[Encoded]:
    """Return entries that say why a video has no frames, and remove what was left in `spool`."""
    for path in spool.parent.glob(f"{spool.name}_*"):
        path.unlink()
    return [Encoded(Entry(video.listed, *size, *video.stamp(), error=reason)) for size in video.sizes]


def encode_video(video: VideoToCache, decoder: str, codec: Codec, spool: Path) -> list[Encoded]:
    """Decode, resize and encode a video. One that cannot be decoded gives entries that say why.

    Files are left whose names start with `spool`. Raises FrameCacheError when the disk refuses.
    """
    try:
        if video.file is None:
            raise VideoDecodeError(video.listed, video.problem)
        stamp = video.stamp()
        spools = [_Spool(spool.with_name(f"{spool.name}_{n}"), size, codec) for n, size in enumerate(video.sizes)]
        clip = open_video(video.file, decoder)
        try:
            _decode_into(spools, clip, video.file)
        finally:
            clip.close()
    except VideoDecodeError as error:
        return undecodable(video, spool, error.reason)
    except OSError as error:
        raise FrameCacheError(f"{spool.parent.parent}: {video.listed} cannot be cached: "
                              f"{error.strerror or error}") from error
    return [one.encoded(video, stamp, clip.fps) for one in spools]


class CacheWriter:
    """Add videos to a cache, new or gone on with, as the only process that does; a context manager.

    `repair` accepts a data file that is shorter than the index says; its videos are to be checked.

    Raises FrameCacheError: another codec, decoder or format there; another writer at work; the disk refuses.
    """

    def __init__(self, directory: Path, codec: Codec, decoder: str, repair: bool = False):
        self.directory, self.codec, self.decoder, self._repair = directory, codec, decoder, repair
        with told_as(FrameCacheError, directory, "cannot be written"):
            directory.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = lock_file(directory / LOCK)
            except BlockingIOError:
                raise FrameCacheError(f"{directory}: another command is writing this frame cache; wait for it to end"
                                      ) from None

    def __enter__(self) -> "CacheWriter":
        try:
            self.index = FrameIndex(self.directory, write=True)
            self._check()
            self._data = self._open_data()
        except FrameCacheError:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        self.index.close()
        shutil.rmtree(self.directory / SPOOL, ignore_errors=True)
        self._lock.close()

    def _check(self) -> None:
        meta, own = self.index.meta(), {"format": FORMAT, "decoder": self.decoder, "codec": self.codec.settings}
        if not meta:
            self.index.set_meta(**own, lists={})
            return
        codec_of(meta, self.directory)
        other = [f"{name}: {meta.get(name)} there, {value} asked for" for name, value in own.items()
                 if meta.get(name) != value]
        if other:
            raise FrameCacheError(f"{self.directory} holds another frame cache. {'; '.join(other)}. Choose another "
                                  "--out, or remove the directory")

    def _open_data(self) -> BinaryIO:
        """Open the data file, cut off what a killed writer left at its end, and make an empty spool directory."""
        path, end = self.directory / DATA, self.index.end()
        with told_as(FrameCacheError, path, "cannot be written"):
            shutil.rmtree(self.directory / SPOOL, ignore_errors=True)
            (self.directory / SPOOL).mkdir()
            path.touch()
            found = path.stat().st_size
            if found < end and not self._repair:
                raise FrameCacheError(f"{path}: damaged frame cache: expected at least {end} bytes, found {found}; "
                                      "--verify finds the videos that are damaged and makes them anew")
            file = path.open("r+b")
            file.truncate(end)
            file.seek(end)
            return file

    def spool(self, number: int) -> Path:
        """Return where video `number` may leave files."""
        return self.directory / SPOOL / str(number)

    def add(self, video: Sequence[Encoded]) -> int:
        """Make a video part of the cache, remove its spool files, and return its bytes."""
        entries, before = [], self._data.tell()
        with told_as(FrameCacheError, self.directory / DATA, "cannot be written",
                     "; the same command goes on where it stopped"):
            for one in video:
                entries.append(dataclasses.replace(one.entry, start=self._data.tell()))
                self._data.write(one.table)
                if one.spool is not None:
                    with one.spool.open("rb") as file:
                        shutil.copyfileobj(file, self._data, 1 << 20)
                    one.spool.unlink()
            self._data.flush()
            os.fsync(self._data.fileno())
        self.index.put(entries)
        return self._data.tell() - before

    def damaged(self, entry: Entry) -> str | None:
        """Read every byte of a stored video and return what is wrong with it; None: nothing."""
        try:
            if entry.error is None:
                FrameCache(self.directory, self.codec, {entry.path: entry}).clip(entry.path).check()
        except FrameCacheError as error:
            return str(error)
        return None
