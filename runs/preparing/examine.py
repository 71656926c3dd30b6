"""Looks at one video file with a decoder."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from datasets.decoding import Clip, FolderClip, open_video, read_frames
from datasets.readers.look import look_at, opened
from datasets.readers.pyav import SHORTFALL
from utils.errors import VideoDecodeError

CHUNK = 16  # frames decoded at once when every frame is asked for


@dataclass(frozen=True, slots=True)
class FileToExamine:
    """Names a file to look at, the decoder, and whether every frame is decoded or one near the end."""

    path: str
    decoder: str
    every_frame: bool = False


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """Says what a decoder found in a file.

    Args:
        frames, fps: as the decoder gives them; None where it cannot open the file.
        width, height: pixels of a decoded frame. codec: FFmpeg's name of it.
        reason: why the file is unreadable, else what is odd about it, else "".
        readable: whether the frames that were asked for could be decoded.
        seconds: time it took. memory: size of the process after it, bytes.
    """

    frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    reason: str = ""
    readable: bool = False
    seconds: float = 0.0
    memory: int = 0


def header(path: Path) -> dict[str, Any]:
    """Return what the container says of the stream that is shown: format, codec, frames, width, height, fps, seconds,
    streams.

    frames is 0 where the container does not count them. The dictionary is empty for a folder. Raises VideoDecodeError.
    """
    if path.is_dir():
        return {}
    with opened(path) as (container, stream):
        rate, length = stream.average_rate, container.duration
        return {"format": container.format.name, "codec": stream.codec_context.name, "frames": stream.frames,
                "width": stream.codec_context.width, "height": stream.codec_context.height,
                "fps": float(rate) if rate else None, "seconds": length / av.time_base if length else None,
                "streams": ", ".join(stream.type for stream in container.streams)}


def lost(path: Path, said: dict[str, Any]) -> str:
    """Say how many frames an AVI file counts and does not have; "" where none is lost. `said`: see header.

    Other containers count frames that they hide (edit lists), or none.
    """
    packets = look_at(path).packets if said.get("format") == "avi" else math.inf
    counted = said.get("frames", 0)
    return f"the container counts {counted} frames, {packets} are there: a part is damaged" \
        if counted - packets > SHORTFALL else ""


def _indices(count: int, every_frame: bool) -> Iterator[np.ndarray]:
    """Yield the indices to decode: all, or one near the end, as containers may count last frames that they lack."""
    if not every_frame:
        yield np.array([max(0, count - 1 - SHORTFALL)])
        return
    for first in range(0, count, CHUNK):
        yield np.arange(first, min(first + CHUNK, count))


def _size(clip: Clip, path: Path, every_frame: bool) -> tuple[int, int]:
    """Decode what is asked for, and return (height, width) of the frames."""
    height = width = 0
    for indices in _indices(clip.num_frames, every_frame):
        _, height, width, _ = read_frames(clip, indices, path).shape
    return height, width


def examine(file: FileToExamine) -> VideoFacts:
    """Open a video and decode what is asked for. Errors of the file stand in the result; LaunchError is raised."""
    started, path = time.perf_counter(), Path(file.path)
    known: dict[str, Any] = {}
    try:
        clip = open_video(path, file.decoder)
        try:
            known = {"frames": clip.num_frames, "fps": clip.fps if np.isfinite(clip.fps) else None}
            said = header(path)
            known["codec"] = said.get("codec", "frames")
            known["height"], known["width"] = _size(clip, path, file.every_frame)
        finally:
            clip.close()
        known["readable"] = True
        known["reason"] = clip.gaps if isinstance(clip, FolderClip) else lost(path, said)
    except VideoDecodeError as error:
        known["reason"] = error.reason
    return VideoFacts(**known, seconds=time.perf_counter() - started, memory=psutil.Process().memory_info().rss)
