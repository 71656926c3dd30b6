"""Read by decord and torchcodec, which jump to a frame, where they are right; PyAV reads everything else in their name.

Who reads a file is decided by looking at it (look.py). decord neither turns nor mirrors; torchcodec turns by quarters.
Where one of them fails, or finds another number or size of frames, PyAV has the last word on what is in the file.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datasets.readers.clip import DECODERS, Clip, first_line
from datasets.readers.look import look_at
from datasets.readers.pyav import SHORTFALL, PyavClip
from datasets.readers.times import times_of
from utils.errors import LaunchError

Read = Callable[[list[int]], np.ndarray]  # from indices to frames, uint8 [T, H, W, 3]


class JumpingClip:
    """Read a file by a decoder that jumps, and by PyAV as soon as that one fails.

    Args:
        start: opens the file for reading; returns the number of its frames, and how they are read.
        errors: what the decoder raises where it fails.
    """

    def __init__(self, path: Path, start: Callable[[str], tuple[int, Read]], errors: tuple[type[Exception], ...]):
        self.path, self._look, self._errors = path, look_at(path), errors
        self.num_frames, self.fps = self._look.frames, self._look.fps
        self._instead: PyavClip | None = None
        self._read: Read | None = None
        try:
            found, self._read = start(str(path.absolute()))  # a bare name may have a colon, and look like a protocol
        except errors:
            found = 0
        if found != self.num_frames:
            self._sure()

    def _sure(self) -> PyavClip:
        self._read, self._instead = None, PyavClip(self.path)
        return self._instead

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        if self._read is not None:
            try:
                frames = self._read([int(i) for i in indices])
                if frames.shape[1:3] == self._look.shape:
                    return frames
            except self._errors:
                pass
        return (self._instead or self._sure()).frames(indices)

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        return times_of(self.path, self.num_frames, indices)

    def close(self) -> None:
        """See Clip."""
        self._read = None
        if self._instead is not None:
            self._instead.close()


@DECODERS.register("decord")
def open_decord(path: Path) -> Clip:
    """Open a file by decord, one thread, on the CPU; by PyAV where decord would give wrong frames."""
    try:
        import decord
    except ImportError as error:
        raise LaunchError(f"DATA.DECODER decord: the decord package cannot be imported ({error}); "
                          "install it, or set DATA.DECODER pyav") from error

    def start(name: str) -> tuple[int, Read]:
        reader = decord.VideoReader(name, ctx=decord.cpu(0), num_threads=1, fault_tol=SHORTFALL)
        return len(reader), lambda order: reader.get_batch(order).asnumpy()

    look = look_at(path)
    if not look.jumps or look.turn or look.mirrored:
        return PyavClip(path)
    return JumpingClip(path, start, (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, IndexError,
                                     ValueError, AssertionError))


@cache
def torchcodec_problem() -> str | None:
    """Return why torchcodec cannot be used here (not installed, no FFmpeg libraries, another torch); None: it can."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder  # noqa: F401
    except ModuleNotFoundError as error:
        return f"the {error.name} package is not installed"
    except (ImportError, RuntimeError, OSError) as error:  # older versions cannot even be imported without FFmpeg
        return f"torchcodec cannot be loaded ({first_line(error)}): it needs FFmpeg's libraries and a matching torch"
    # Newer versions can be imported without FFmpeg, and then report no version of it.
    if torchcodec.ffmpeg_major_version is None:
        return ("torchcodec cannot load FFmpeg's shared libraries (versions 4 to 9; apt install ffmpeg, or conda "
                "install -c conda-forge ffmpeg), or does not fit this torch")
    return None


def require_torchcodec() -> None:
    """Raise LaunchError where torchcodec does not work here."""
    if problem := torchcodec_problem():
        raise LaunchError(f"DATA.DECODER torchcodec: {problem}; or set DATA.DECODER auto")


@DECODERS.register("torchcodec")
def open_torchcodec(path: Path) -> Clip:
    """Open a file by torchcodec, one thread, on the CPU; by PyAV where torchcodec would give wrong frames."""
    require_torchcodec()
    from torchcodec.decoders import VideoDecoder

    look = look_at(path)
    first, step = look.pace

    def opened(name: str, mode: Literal["exact", "approximate"]) -> VideoDecoder:
        return VideoDecoder(name, dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu", seek_mode=mode)

    def start(name: str) -> tuple[int, Read]:
        # "exact" reads all packets so that an index is exact; by an even pace, times are as exact without it.
        timed = step > 0
        decoder = opened(name, "approximate" if timed else "exact")
        if timed and decoder.metadata.num_frames != look.frames:
            decoder, timed = opened(name, "exact"), False

        def at(index: int) -> Any:
            if not timed:
                return decoder.get_frame_at(index)
            frame = decoder.get_frame_played_at(first + (index + 0.5) * step)
            if abs(frame.pts_seconds - first - index * step) > step / 2:
                raise ValueError(f"asked for frame {index}, found that of {frame.pts_seconds} s")
            return frame

        def read(order: list[int]) -> np.ndarray:
            # One by one and forwards: get_frames_at seeks anew for each frame, which takes two to four times as long.
            found = {i: at(i).data.numpy() for i in sorted(set(order))}
            return np.stack([found[i] for i in order])

        return decoder.metadata.num_frames or 0, read

    if not look.jumps or look.turn % 90 or look.mirrored:
        return PyavClip(path)
    return JumpingClip(path, start, (RuntimeError, ValueError, IndexError))
