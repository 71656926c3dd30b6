"""Read videos by PyAV, which is always right: frames are counted in order, from the first one or a time that is exact.

Where a file says by its times which frame is which, those that are not wanted are not decoded, as far as no other frame
refers to them: B-frames, mostly. The frames that come are the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.readers.clip import DECODERS
from datasets.readers.look import UNSEEN, Look, damage_told, decoded, look_at, opened
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


class _PassedOver(Exception):
    """Say that a frame did not come that was wanted, or came with another time than it has in its file."""


@DECODERS.register("pyav")
class PyavClip:
    """Read a file by PyAV: frames are decoded in order, on from the last one or from the nearest of Look.starts.

    Where a container leads elsewhere than to that start, and where none is known, they are decoded from the first one.
    Where a frame does not come as others are passed over, none is from then on. Frames of another size than the first
    are scaled to it.
    """

    def __init__(self, path: Path):
        self.path, self._look = path, look_at(path)
        self.num_frames, self.fps = self._look.frames, self._look.fps
        self._starts, self._spares = self._look.starts, self._look.grid[1] > 0
        self._ticks: set[int] = set()  # of the frames that are wanted
        self._until = 0  # the last of them
        height, width = self._look.shape[:: -1 if self._look.turn % 180 == 90 else 1]
        self._size = width, height  # before they are turned
        self._open = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._frames: Iterator[Any] | None = None
        self._next = 0

    def _restart(self) -> Iterator[Any]:
        self.close()
        self._container, self._stream = self._open.enter_context(opened(self.path))
        self._next, self._frames = 0, self._decoded()
        return self._frames

    def _decoded(self) -> Iterator[Any]:
        """Return the frames from where the container is; what comes behind all that is wanted may be so next."""
        return decoded(self._container, self._stream, (lambda tick: tick < self._until and tick not in self._ticks)
                       if self._spares else None)

    def _index(self, frame: Any) -> int:
        """Return which frame has come."""
        if not self._spares:
            return self._next
        first, step = self._look.grid
        index = round((frame.pts - first) / step) if frame.pts is not None else -1
        if index < self._next or frame.pts != self._look.tick(index):
            raise _PassedOver
        return index

    def _begin(self, start: int, tick: int) -> Iterator[Any]:
        """Return the frames from one of Look.starts on, or all where seeking does not lead there."""
        if start == 0:
            return self._restart()
        if self._frames is None:
            self._restart()
        frames = self._decoded()
        try:
            with damage_told(self.path):
                self._container.seek(tick, stream=self._stream)
                first = next((frame for frame in frames if frame.pts is not None and frame.pts >= tick), None)
        except VideoDecodeError:
            first = None
        if first is None or first.pts != tick:
            self._starts = UNSEEN.starts
            return self._restart()
        self._next, self._frames = start, chain([first], frames)
        return self._frames

    def _towards(self, index: int) -> Iterator[Any]:
        """Return the frames from `self._next` on, which is at most `index`."""
        place = int(np.searchsorted(self._starts[:, 0], index, side="right")) - 1
        start, tick = map(int, self._starts[place]) if place >= 0 else (0, 0)
        if self._frames is None or index < self._next or start > self._next:
            return self._begin(start, tick)
        return self._frames

    def _decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        """Return the frames at `wanted`; if the stream ends at most SHORTFALL early, its last one stands for the
        rest."""
        found: dict[int, np.ndarray] = {}
        last = None
        for want in sorted(wanted):
            for frame in self._towards(want):
                last, self._next = frame, self._index(frame) + 1
                if self._next > want:
                    break
            if self._spares and self._next != want + 1:
                raise _PassedOver
            if self._next <= want:
                self._frames = None
                if last is None or want - self._next >= SHORTFALL:
                    raise VideoDecodeError(self.path, f"truncated or damaged: frame {want} of {self.num_frames} was "
                                                      f"asked for, decoding ended after {self._next}")
            found[want] = upright(last, *self._size, self._look)
        return found

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        order = [int(i) for i in indices]
        self._ticks = {self._look.tick(i) for i in order}
        self._until = max(self._ticks, default=0)
        try:
            with damage_told(self.path):
                try:
                    found = self._decode(set(order))
                except _PassedOver:
                    self._frames, self._spares = None, False
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
