"""Read frames that were decoded and resized once, in place of video files: `FrameCache` stands in for a decoder.

Written by datasets/cache/writer.py. Frames are read by their position in one data file, with the operating
system's positional read: nothing is shared between readers, and a damaged or shortened file is an error with a name,
never a crash (as a memory map's would be). T frames, H, W picture.
"""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datasets.cache.codec import Codec
from datasets.cache.index import DATA, FORMAT, INDEX, Entry, FrameIndex
from datasets.readers.clip import even_times
from utils.collecting import uncollected
from utils.errors import FrameCacheError, VideoDecodeError
from utils.files import told_as
from utils.foreign import regular, told

NAMED = 3  # videos named in a message


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """Say what a split needs of a cache."""

    split: str  # train, val or test
    list_hash: str  # of its list (annotations.list_hash)
    size: tuple[int, int]  # height and width that frames are resized to, pixels
    decoder: str  # that the frames are to come from
    paths: Sequence[str]  # the videos of the list
    stamp: Callable[[str], tuple[int, int] | None]  # path -> file_stamp of its file now; None where there is no file


def codec_of(meta: Mapping[str, Any], directory: Path) -> Codec:
    """Return the codec that a cache says it was written with. Raises FrameCacheError."""
    try:
        return Codec(meta["codec"]["mode"], meta["codec"].get("quality"))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FrameCacheError(f"{directory}: expected a frame cache, found one that does not say how its frames are "
                              f"stored ({error}); make it anew") from error


def _settings(meta: Mapping[str, Any], request: CacheRequest) -> list[str]:
    """List the settings in which a cache differs from what is requested."""
    found = [f"{name}: {meta.get(name)} there, {here} here"
             for name, here in (("format", FORMAT), ("decoder", request.decoder)) if meta.get(name) != here]
    lists = meta.get("lists", {})
    own = lists.get(request.split)
    if own is None:
        return [*found, f"{request.split} list: not in it (it holds {', '.join(sorted(lists)) or 'none'})"]
    if own["sha256"] != request.list_hash:
        found.append(f"{request.split} list: sha256 {own['sha256'][:12]} there, {request.list_hash[:12]} here")
    if tuple(own["size"]) != request.size:
        found.append("{} frame size: {} x {} there, {} x {} here".format(request.split, *own["size"], *request.size))
    if not found and not own["complete"]:
        found.append(f"{request.split} list: not finished there; the command that makes it goes on where it stopped")
    return found


def _other_files(entries: Mapping[str, Entry], request: CacheRequest) -> list[str]:
    """List the videos that are missing, or were cached from other files than lie there now."""
    missing = [path for path in request.paths if path not in entries]
    if missing:
        return [f"{len(missing)} of {len(request.paths)} videos of the {request.split} list are not in it "
                f"({', '.join(missing[:NAMED])})"]
    stamps = ((path, request.stamp(path)) for path in request.paths)
    changed = [(path, now) for path, now in stamps if now is not None and now != entries[path].stamp]
    texts = ["{} ({} bytes, changed at {} ns there; {} bytes, {} ns here)".format(path, *entries[path].stamp, *now)
             for path, now in changed[:NAMED]]
    return [f"{len(changed)} video files are not the ones cached: {', '.join(texts)}"] if changed else []


def open_frame_cache(directory: Path, request: CacheRequest) -> "FrameCache":
    """Open the cache of one split.

    Raises FrameCacheError: no cache, or one of another format, decoder, list, frame size or of other files; not
    complete; shorter than its index says. The message lists all that differs.
    """
    index = FrameIndex(directory)
    try:
        meta, end = index.meta(), index.end()
        with told(FrameCacheError, directory / INDEX, "the index of a frame cache"):
            problems = _settings(meta, request)
        with uncollected():
            entries = {} if problems else {entry.path: entry for entry in index.entries(request.size)}
    finally:
        index.close()
    problems = problems or _other_files(entries, request)
    if problems:
        raise FrameCacheError(f"{directory}: stale frame cache (DATA.FRAME_CACHE), not used. {'; '.join(problems)}. "
                              "Make it anew or bring it up to date with python runs/prepare.py cache --cfg X.yaml "
                              f"--out {directory}, or set DATA.FRAME_CACHE null to decode the videos")
    found = regular(directory / DATA, FrameCacheError)
    if found < end:
        raise FrameCacheError(f"{directory / DATA}: damaged frame cache: expected at least {end} bytes, found {found}")
    return FrameCache(directory, codec_of(meta, directory), {path: entries[path] for path in request.paths})


class FrameCache:
    """Give the videos of one split, by their path in the list, out of a cache. It may be sent to other processes."""

    def __init__(self, directory: Path, codec: Codec, entries: Mapping[str, Entry]):
        self.directory, self.codec, self.entries = directory, codec, entries

    @property
    def pixel_settings(self) -> dict[str, Any]:
        """Return what tells its pixels from those of another cache, or of decoding."""
        return {"format": FORMAT, **self.codec.settings}

    @cached_property
    def _file(self) -> int:
        with told_as(FrameCacheError, self.directory / DATA, "cannot be read"):
            return os.open(self.directory / DATA, os.O_RDONLY)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_file"}  # each process opens its own

    def __del__(self) -> None:
        if "_file" in self.__dict__:
            os.close(self.__dict__["_file"])

    def read(self, start: int, length: int) -> bytearray:
        """Return bytes of the data file, fewer at its end. Processes may share the file: no position moves."""
        data = bytearray(length)
        with told_as(FrameCacheError, self.directory / DATA, "cannot be read"):
            count = os.preadv(self._file, [data], start)
        return data if count == length else data[:count]

    def clip(self, path: str) -> "CachedClip":
        """Open a video, as decoding.open_video does. Raises VideoDecodeError if the cache could not decode it."""
        entry = self.entries[path]
        if entry.error is not None:
            raise VideoDecodeError(path, f"{entry.error} (when {self.directory} was made)")
        return CachedClip(self, entry)


class CachedClip:
    """Give the frames of one cached video, as decoding.Clip does; they are already resized."""

    def __init__(self, cache: FrameCache, entry: Entry):
        self._cache, self._entry = cache, entry
        self.num_frames, self.fps = entry.frames, entry.fps
        table = cache.read(entry.start, entry.table_size)
        head = entry.head()
        if zlib.crc32(table) != entry.checksum or table[:len(head)] != head:
            raise self._damaged("its table does not have the checksum it was written with")
        self._lengths, self._checksums = np.frombuffer(table, "<u4", offset=len(head)).reshape(-1, 2).T
        self._ends = entry.start + entry.table_size + np.cumsum(self._lengths, dtype=np.int64)
        if self._ends[-1] != entry.start + entry.length:
            raise self._damaged("its table does not fit its bytes")

    def _damaged(self, what: str) -> FrameCacheError:
        return FrameCacheError(f"{self._cache.directory}: damaged frame cache: video {self._entry.path}: {what}; "
                               f"python runs/prepare.py cache --cfg X.yaml --out {self._cache.directory} --verify "
                               "makes such videos anew")

    def _frame(self, index: int) -> bytearray:
        length = int(self._lengths[index])
        data = self._cache.read(int(self._ends[index]) - length, length)
        if zlib.crc32(data) != self._checksums[index]:
            raise self._damaged(f"frame {index} does not have the checksum it was written with")
        return data

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return uint8 RGB [T, H, W, 3] of the frames at `indices`. Raises FrameCacheError on damage."""
        order = [int(i) for i in indices]
        distinct = sorted(set(order))
        try:
            pictures = self._cache.codec.decode([self._frame(i) for i in distinct], self._entry.size)
        except (OSError, ValueError) as error:
            raise self._damaged(f"a frame cannot be decoded ({error})") from error
        return pictures if order == distinct else pictures[[distinct.index(i) for i in order]]

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return seconds by the frame rate: the stamps of the file are not kept."""
        return even_times(indices, self.fps)

    def check(self) -> None:
        """Read every frame and compare its checksum. Raises FrameCacheError."""
        for index in range(self.num_frames):
            self._frame(index)

    def close(self) -> None:
        """Do nothing: no file is held open for a clip."""
