"""Read videos by PyAV: slow and sure. It decodes in order from the start, so an index is never wrong."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.readers.clip import DECODERS, first_line
from utils.errors import LaunchError, VideoDecodeError

SHORTFALL = 2  # a decoder may give this many frames fewer than its container counts (delayed, packed); the last repeats


def open_container(path: Path) -> Any:
    """Open a file as a PyAV container. Raises av.error.FFmpegError, ValueError."""
    import av

    # A title in an odd encoding must not make a video unreadable; PyAV 19 ignores it by itself.
    lenient: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    return av.open(str(path), **lenient)


class Header(NamedTuple):
    """Hold what a file's header says."""

    fps: float = math.nan  # average frames a second, NaN where unknown
    reordered: bool = False  # whether frames are stored in another order than they are shown in
    codec: str = ""  # FFmpeg's name of it; "" where the file cannot be opened or has no pictures


def read_header(path: Path) -> Header:
    """Return what a file's header says."""
    import av

    try:
        with open_container(path) as container:
            stream = container.streams.video[0]
            return Header(float(stream.average_rate or math.nan), bool(stream.codec_context.has_b_frames),
                          stream.codec_context.name)
    except (av.error.FFmpegError, ValueError, IndexError):
        return Header()


def _upright(frame: Any) -> np.ndarray:
    """Return uint8 RGB [H, W, 3] of a PyAV frame, turned as its file asks (phones store upright videos lying)."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))


@DECODERS.register("pyav")
class PyavClip:
    """Read a file by PyAV: packets are counted on opening, frames decoded in order up to the last one wanted."""

    def __init__(self, path: Path):
        try:
            import av
        except ImportError as error:
            raise LaunchError(f"DATA.DECODER pyav: the av package cannot be imported ({error})") from error
        self.path, self._error = path, av.error.FFmpegError
        try:
            self._container = open_container(path)
        except (self._error, ValueError) as error:
            raise VideoDecodeError(path, f"not a video, or damaged (pyav: {first_line(error)})") from error
        try:
            self.num_frames, self.fps = self._measure()
        except VideoDecodeError:
            self.close()
            raise
        except (self._error, ValueError) as error:
            self.close()
            raise VideoDecodeError(path, f"damaged: reading failed (pyav: {first_line(error)})") from error

    def _measure(self) -> tuple[int, float]:
        if not self._container.streams.video:
            raise VideoDecodeError(self.path, "has no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type, self._stream.thread_count = "NONE", 1
        rate = self._stream.average_rate or self._stream.guessed_rate
        count = sum(1 for packet in self._container.demux(self._stream) if packet.size and not packet.is_discard)
        return count, float(rate) if rate else math.nan

    def _decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        """Return the frames at `wanted`; if the stream ends at most SHORTFALL early, its last one stands for the
        rest."""
        found: dict[int, np.ndarray] = {}
        last, index, frame = max(wanted), -1, None
        self._container.seek(0, stream=self._stream, backward=True)
        for index, frame in enumerate(self._container.decode(self._stream)):
            if index in wanted:
                found[index] = _upright(frame)
            if index == last:
                return found
        if frame is None or last - index > SHORTFALL:
            raise VideoDecodeError(self.path, f"truncated or damaged: frame {last} of {self.num_frames} was asked for, "
                                              f"decoding ended after {index + 1}")
        picture = _upright(frame)
        return {want: found.get(want, picture) for want in wanted}

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        order = [int(i) for i in indices]
        try:
            found = self._decode(set(order))
            return np.stack([found[i] for i in order])
        except (self._error, ValueError) as error:
            raise VideoDecodeError(self.path, f"damaged: decoding failed (pyav: {first_line(error)})") from error

    def close(self) -> None:
        """See Clip."""
        self._container.close()
