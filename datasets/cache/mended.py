"""Give the frames of a cache, and where those are damaged the same ones, made anew from the video file."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datasets.annotations import file_stamp
from datasets.cache.store import FrameCache
from datasets.decoding import open_video, read_frames
from datasets.readers.clip import Clip, even_times
from datasets.transforms import resize_frames
from utils.errors import FewShotError, FrameCacheError
from utils.logging import warn_once

_LOGGER = logging.getLogger(__name__)


class _Fresh:
    """Give frames as a cache would hold them: decoded, resized, encoded and decoded again."""

    def __init__(self, path: Path, decoder: str, frames: FrameCache, size: tuple[int, int]):
        self._clip, self._path, self._codec, self._size = open_video(path, decoder), path, frames.codec, size
        self.num_frames, self.fps, self.close = self._clip.num_frames, self._clip.fps, self._clip.close

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        pictures = resize_frames(read_frames(self._clip, np.asarray(indices), self._path), self._size)
        return self._codec.decode([bytearray(self._codec.encode(picture)) for picture in pictures], self._size)

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return even_times(indices, self.fps)


class MendedClip:
    """Stand for one cached video.

    Args:
        listed: its path in the list. find: where its file lies.

    Raises FrameCacheError: damaged, and its file is not there, or is another one than was cached.
    """

    def __init__(self, stored: FrameCache, listed: str, find: Callable[[], Path], decoder: str):
        self._stored, self._entry, self._find, self._decoder = stored, stored.entries[listed], find, decoder
        try:
            self._clip: Clip = stored.clip(listed)
        except FrameCacheError as damage:
            self._clip = self._fresh(damage)
        self.num_frames, self.fps = self._clip.num_frames, self._clip.fps

    def _fresh(self, damage: FrameCacheError) -> Clip:
        try:
            path = self._find()
            if file_stamp(path) != self._entry.stamp:
                raise damage
            clip = _Fresh(path, self._decoder, self._stored, self._entry.size)
        except (FewShotError, OSError):
            raise damage from None
        warn_once(_LOGGER, f"{damage}; until then it is decoded anew")
        return clip

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return uint8 RGB [T, H, W, 3] of the frames at `indices`."""
        try:
            return self._clip.frames(indices)
        except FrameCacheError as damage:
            self._clip = self._fresh(damage)
            return self._clip.frames(indices)

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return seconds by the frame rate, as the cache does."""
        return even_times(indices, self.fps)

    def close(self) -> None:
        """Give the video file back, where one was opened."""
        self._clip.close()
