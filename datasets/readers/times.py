"""Tell when each frame of a video file is shown, in seconds, by the stamps in the file: a rate may vary.

0 is the file's own zero, as browsers count; of MPEG streams, whose stamps begin anywhere, it is the start of the file.
A frame without a stamp follows the one before it at the file's rate. No frame is shown before the one in front of it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations import file_stamp
from datasets.readers.clip import even_times
from datasets.readers.look import damage_told, decoded, opened, rate_of

STREAMS = ("mpegts", "mpeg")  # FFmpeg's names of the containers whose stamps begin anywhere
MICROSECONDS = 1e6  # a second, as FFmpeg counts the start of a container


def _zero(container: Any) -> float:
    return (container.start_time or 0) / MICROSECONDS if container.format.name in STREAMS else 0.0


def step_of(stream: Any) -> float:
    """Return the seconds from a frame to the next by the file's rate."""
    return float(even_times([1], rate_of(stream))[0])


def stamped(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Yield each frame behind the second at which it is shown, in order. Raises av.error.FFmpegError."""
    zero, step, last = _zero(container), step_of(stream), None
    for frame in decoded(container, stream):
        ticks = frame.dts if frame.pts is None else frame.pts
        if ticks is not None:
            second = float(ticks * (frame.time_base or stream.time_base)) - zero
        else:
            second = 0.0 if last is None else last + step
        last = second if last is None else max(second, last)
        yield last, frame


@lru_cache(maxsize=64)
def _times(path: Path, _stamp: tuple[int, int], frames: int) -> np.ndarray:
    with opened(path) as (container, stream):
        stamps = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        if len(stamps) == frames == len(set(stamps)) and None not in stamps:
            return np.sort(np.array(stamps)) * float(stream.time_base) - _zero(container)
    with opened(path) as (container, stream):
        found = [second for second, _ in stamped(container, stream)]
    return np.pad(found, (0, max(0, frames - len(found))), "edge")


def times_of(path: Path, frames: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the seconds, float64 [T], at which frames of a file that has `frames` of them are shown.

    The file is decoded only where its packets do not tell. Raises VideoDecodeError on a file that is damaged.
    """
    with damage_told(path):
        found: np.ndarray = _times(path.absolute(), file_stamp(path), frames)[np.asarray(indices, int)]
        return found
