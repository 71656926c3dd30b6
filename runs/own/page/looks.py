"""Looks at a video in a process of its own, with limits, before anything else opens it: its length, and a few frames.

What a browser sends may be anything. A few first bytes say which container it is; FFmpeg never sees another, so no
playlist can make it open files or addresses.
"""

import io
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from datasets.decoding import open_video, reachable, read_frames
from datasets.demo.render import encode_clip
from datasets.frame_sampling import segment_indices
from datasets.readers.containers import container_kind
from datasets.streaming import stream_frames
from runs.own.clips import length_of
from utils.errors import DiskError, VideoDecodeError

SECONDS = 30.0  # a look that takes longer is given up
MEMORY = 2 << 30  # bytes beyond what the process began with
MOST_PIXELS = 8192 * 4320  # of a frame
HEIGHT, WIDEST, QUALITY = 96, 170, 72  # of a frame in a strip, pixels; JPEG
CUT_RATE, CUT_HEIGHT = 15, 360  # frames a second and height of a stretch that is cut out, pixels
SUFFIXES = {"mp4": ".mp4", "avi": ".avi", "matroska": ".mkv"}


@dataclass(frozen=True, slots=True)
class Look:
    """Holds what was seen of a video: seconds; width and height of its pictures; frames side by side, as a JPEG."""

    seconds: float
    width: int
    height: int
    strip: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names a video to look at, its decoder, and how many frames are to be seen."""

    path: Path
    decoder: str
    frames: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Names a stretch of a video, in seconds, and the file that is to hold it."""

    path: Path
    target: Path
    start: float
    end: float


def suffix_of(head: bytes) -> str | None:
    """Return the suffix that the first bytes of a file ask for; None: they are not of a video that is taken."""
    if kind := container_kind(head):
        return ".webm" if kind == "matroska" and b"webm" in head[:64] else SUFFIXES[kind]
    if head[:4] in (b"\0\0\1\xba", b"\0\0\1\xb3"):
        return ".mpg"
    return ".ts" if head[:1] == b"\x47" and head[188:189] == b"\x47" else None


def _limit_memory() -> None:
    """Let this process take MEMORY more, where the system can say how much it has."""
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))


def _check_size(path: Path) -> None:
    """Refuse pictures that are too large to decode, as the header tells them. Raises VideoDecodeError."""
    try:
        with av.open(str(path)) as container:
            for stream in container.streams.video:
                if stream.width * stream.height > MOST_PIXELS:
                    raise VideoDecodeError(path, f"its pictures are {stream.width} x {stream.height}; at most 8192 x "
                                                 "4320 are read")
    except (av.FFmpegError, ValueError) as error:
        raise VideoDecodeError(path, f"is no video that can be read ({getattr(error, 'strerror', None) or error})"
                               ) from error


def strip_of(frames_THWC: np.ndarray) -> bytes:
    """Return frames side by side as a JPEG, HEIGHT high, wide ones cut at both sides."""
    height, width = frames_THWC.shape[1:3]
    wide = max(16, min(WIDEST, round(HEIGHT * width / height)))
    small = max(wide, round(HEIGHT * width / height))
    pictures = [Image.fromarray(frame).resize((small, HEIGHT), Image.Resampling.BILINEAR) for frame in frames_THWC]
    left = (small - wide) // 2
    joined = np.concatenate([np.asarray(one)[:, left:left + wide] for one in pictures], axis=1)
    file = io.BytesIO()
    Image.fromarray(joined).save(file, "jpeg", quality=QUALITY)
    return file.getvalue()


def look_at(wanted: Wanted) -> Look | VideoDecodeError:
    """Look at a video, in a process of its own; an error is returned."""
    _limit_memory()
    path = wanted.path
    try:
        with reachable(path) as folder:
            if not folder:
                _check_size(path)
        clip = open_video(path, wanted.decoder)
        try:
            indices = segment_indices(clip.num_frames, wanted.frames, None, center=True)
            frames = read_frames(clip, indices, path)
            return Look(length_of(clip), frames.shape[2], frames.shape[1], strip_of(frames))
        finally:
            clip.close()
    except VideoDecodeError as error:
        return error
    except (MemoryError, OSError) as error:
        return VideoDecodeError(path, f"cannot be opened ({str(error) or 'it takes too much memory'})")


def _small(frame_HWC: np.ndarray) -> np.ndarray:
    """Return a frame no higher than CUT_HEIGHT, its sides even, as H.264 wants them."""
    height, width = frame_HWC.shape[:2]
    factor = min(1.0, CUT_HEIGHT / height)
    size = [max(2, 2 * round(side * factor / 2)) for side in (width, height)]
    return np.asarray(Image.fromarray(frame_HWC).resize((size[0], size[1]), Image.Resampling.BILINEAR))


def cut_out(wanted: Stretch) -> VideoDecodeError | None:
    """Write a stretch of a video as a video of its own, in a process of its own; an error is returned."""
    _limit_memory()
    times = np.arange(wanted.start, wanted.end, 1 / CUT_RATE)
    try:
        frames = [frame for _, frame in stream_frames(wanted.path, times, _small)]
        encode_clip(wanted.target, np.stack(frames), CUT_RATE)
    except VideoDecodeError as error:
        return error
    except (MemoryError, OSError, ValueError, DiskError) as error:
        return VideoDecodeError(wanted.path, f"the stretch cannot be cut out: {error}")
    return None
