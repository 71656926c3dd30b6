"""Read videos by PyAV, which is always right: it decodes in order from the start, so an index is never wrong."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.readers.clip import DECODERS
from datasets.readers.look import Look, damage_told, decoded, look_at, opened
from datasets.readers.times import times_of
from utils.errors import VideoDecodeError

SHORTFALL = 2  # a decoder may give this many frames fewer than the packets that it was given; the last repeats


def _progressive(frame: Any) -> Any:
    """Return a frame without its mark of being interlaced: its colours would be scaled by fields, ffmpeg's are not."""
    from av.filter import Graph

    graph = Graph()
    graph.link_nodes(graph.add_buffer(width=frame.width, height=frame.height, format=frame.format,
                                      time_base=frame.time_base), graph.add("setfield", "prog"),
                     graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def upright(frame: Any, width: int, height: int, look: Look) -> np.ndarray:
    """Return uint8 RGB [H, W, 3] of a PyAV frame, scaled to a size and then turned and mirrored as its file asks."""
    # With threads of its own, what is left of a frame could not be freed in a forked process.
    options: dict[str, Any] = {"threads": 1} if "threads" in (type(frame).reformat.__doc__ or "") else {}
    frame = _progressive(frame) if frame.interlaced_frame else frame
    picture = frame.to_ndarray(width=width, height=height, format="rgb24", interpolation="BICUBIC", **options)
    if look.turn % 90:
        return np.array(Image.fromarray(picture).rotate(-look.turn, Image.Resampling.BILINEAR))
    a, b, c, d = look.matrix
    if look.turn % 180:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


@DECODERS.register("pyav")
class PyavClip:
    """Read a file by PyAV: frames are decoded in order up to the last one wanted, and on from there the next time.

    Frames of another size than the first are scaled to it.
    """

    def __init__(self, path: Path):
        self.path, self._look = path, look_at(path)
        self.num_frames, self.fps = self._look.frames, self._look.fps
        self._open = ExitStack()
        self._frames: Iterator[Any] | None = None
        self._next, self._size = 0, (0, 0)

    def _restart(self) -> Iterator[Any]:
        self.close()
        self._next, self._frames = 0, decoded(*self._open.enter_context(opened(self.path)))
        return self._frames

    def _decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        """Return the frames at `wanted`; if the stream ends at most SHORTFALL early, its last one stands for the
        rest."""
        found: dict[int, np.ndarray] = {}
        last, frame = max(wanted), None
        frames = self._frames
        if frames is None or min(wanted) < self._next:
            frames = self._restart()
        for frame in frames:
            index = self._next
            self._next += 1
            if index == 0:
                self._size = frame.width, frame.height
            if index in wanted:
                found[index] = upright(frame, *self._size, self._look)
            if index == last:
                return found
        ended, self._frames = self._next, None
        if frame is None or last - ended >= SHORTFALL:
            raise VideoDecodeError(self.path, f"truncated or damaged: frame {last} of {self.num_frames} was asked for, "
                                              f"decoding ended after {ended}")
        picture = upright(frame, *self._size, self._look)
        return {want: found.get(want, picture) for want in wanted}

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        order = [int(i) for i in indices]
        try:
            with damage_told(self.path):
                found = self._decode(set(order))
                return np.stack([found[i] for i in order])
        except VideoDecodeError:
            self._frames = None
            raise

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        return times_of(self.path, self.num_frames, indices)

    def close(self) -> None:
        """See Clip."""
        self._frames = None
        self._open.close()
