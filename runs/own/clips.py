"""Reads own clips: T frames from the middle of T equal parts of the whole clip, as the model wants them.

Files are read in processes of their own with a time limit (runs/preparing/pool.py), so that no file can hang or end the
command. Frames are chosen so whatever the protocol says: an answer does not change from call to call.

T frames, C/H/W image.
"""

import errno
import hashlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.annotations import is_frame
from datasets.decoding import Clip, open_video, read_frames
from datasets.frame_sampling import segment_indices
from datasets.transforms import PixelSettings, test_transform
from runs.preparing.pool import Failure, guarded
from utils.cores import cores
from utils.errors import OwnClipsError, VideoDecodeError
from utils.files import sha256

SECONDS_A_CLIP = 120.0  # a file that takes longer is given up
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """Says how clips are read: T, what a model takes as pixels, and the decoder."""

    frames: int
    pixels: PixelSettings
    decoder: str


@dataclass(frozen=True, slots=True, eq=False)
class ReadClip:
    """Holds one clip as a model takes it.

    Args:
        sha256: of its content (hex). pixels: float32 [T, C, H, W]. times: of the frames taken, seconds from the start.
        seconds: its length. size: height and width of its pictures. distinct: how many different frames were taken.
    """

    sha256: str
    pixels: Tensor
    times: tuple[float, ...]
    seconds: float
    size: tuple[int, int]
    distinct: int


def content_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or of the frames of a folder with their names.

    Raises OSError where one cannot be read, or is no file, such as a pipe, which may never end.
    """
    if path.is_dir():
        frames = sorted(entry for entry in path.iterdir() if is_frame(entry.name))
        return hashlib.sha256("".join(f"{frame.name}:{content_hash(frame)}\n" for frame in frames).encode()).hexdigest()
    if not S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no file, or one without an end", str(path))
    return sha256(path)


def length_of(clip: Clip) -> float:
    """Return the length of an opened clip in seconds: the last frame is shown as long as the one before it."""
    last = clip.times(range(max(0, clip.num_frames - 2), clip.num_frames))
    return float(last[-1] + (last[-1] - last[-2] if len(last) > 1 else 0.0 if not clip.fps > 0 else 1 / clip.fps))


def from_array(frames_LHWC: np.ndarray, fps: float | None, reading: Reading) -> ReadClip:
    """Make a clip of pictures in memory, uint8 RGB [L, H, W, 3], at so many a second.

    Raises OwnClipsError where they are something else.
    """
    frames = np.asarray(frames_LHWC)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise OwnClipsError(f"expected frames of uint8 [L, H, W, 3], found {frames.dtype} {list(frames.shape)}")
    if fps is None or not (math.isfinite(fps) and fps > 0):
        raise OwnClipsError(f"expected the frames a second of an array (fps=...), found {fps}")
    indices = segment_indices(len(frames), reading.frames, None, center=True)
    taken = np.ascontiguousarray(frames[indices])
    digest = hashlib.sha256(f"{frames.shape}{fps}".encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()
    return ReadClip(digest, test_transform(reading.pixels)(taken), tuple(float(i / fps) for i in indices),
                    len(frames) / fps, (frames.shape[1], frames.shape[2]), len(set(indices.tolist())))


def read_clip(path: Path, reading: Reading) -> ReadClip:
    """Read one file or folder of frames. Raises VideoDecodeError naming it."""
    try:
        digest = content_hash(path)
        clip = open_video(path, reading.decoder)
        try:
            indices = segment_indices(clip.num_frames, reading.frames, None, center=True)
            frames = read_frames(clip, indices, path)
            return ReadClip(digest, test_transform(reading.pixels)(frames), tuple(map(float, clip.times(indices))),
                            length_of(clip), (frames.shape[1], frames.shape[2]), len(set(indices.tolist())))
        finally:
            clip.close()
    except OSError as error:
        raise VideoDecodeError(path, f"cannot be read: {error.strerror or error}") from error


def _guarded_read(item: tuple[Path, Reading]) -> tuple[ReadClip, np.ndarray] | VideoDecodeError:
    """Read a clip in a process of its own; its pixels travel as an array, for which no file stays open."""
    path, reading = item
    try:
        clip = read_clip(path, reading)
    except VideoDecodeError as error:
        return error
    return replace(clip, pixels=torch.empty(0)), clip.pixels.numpy()


def read_clips(paths: Sequence[Path], reading: Reading, jobs: int | None = None, title: str = "clips"
               ) -> Iterator[tuple[Path, ReadClip | VideoDecodeError]]:
    """Yield each clip, or why it cannot be read, as soon as it is there.

    Args:
        jobs: processes that decode; None: one a core. title: of the progress bar.
    """
    if not paths:
        return
    items = [(path, reading) for path in paths]
    workers = min(len(items), jobs or cores())
    with tqdm(total=len(items), desc=title, unit="clip", disable=None, leave=False) as bar:
        for (path, _), found in guarded(_guarded_read, items, workers=workers, limit=SECONDS_A_CLIP):
            bar.update()
            if isinstance(found, Failure):
                found = VideoDecodeError(path, found.reason)
            if isinstance(found, VideoDecodeError):
                yield path, found
                continue
            clip, pixels = found
            yield path, replace(clip, pixels=torch.from_numpy(pixels))


def hashes(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the content hash of each path that can be read."""
    found = {}
    for path in paths:
        try:
            found[path] = content_hash(path)
        except OSError as error:
            _LOGGER.debug("%s: not hashed (%s)", path, os.strerror(error.errno or 0))
    return found
