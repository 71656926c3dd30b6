"""Read by decord and torchcodec, which jump to a frame. What they get wrong is read by PyAV, in order, instead.

After a jump they can be wrong about an index where the file does not say when a frame is shown: in AVI with B-frames
or H.264 (decord also without B-frames), in MPEG-4 part 2 with B-frames in any container. PyAV reads such files whatever
the decoder, and those in containers that were not compared. decord can neither turn a rotated video nor decode AV1:
PyAV reads these, too.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from datasets.readers.clip import DECODERS, Clip, first_line
from datasets.readers.containers import container_kind
from datasets.readers.pyav import SHORTFALL, Header, PyavClip, read_header
from utils.errors import LaunchError, VideoDecodeError

REORDERED_RIGHT = ("h264", "hevc", "vp8", "vp9", "av1")  # seeking is exact with their B-frames in MP4, Matroska


def _look(path: Path) -> tuple[bool, Header | None]:
    """Return (unsafe, header). unsafe: seeking can return the wrong frame. header: None if it was not needed."""
    with open(path, "rb") as file:
        head = file.read(64)
    kind = container_kind(head)
    if kind == "matroska" and b"webm" in head:  # VP8, VP9, AV1 only
        return False, None
    found = read_header(path)
    if not found.codec:  # PyAV cannot open it: let the decoder report what is wrong
        return False, found
    if kind == "avi":
        return found.reordered or found.codec in ("h264", "hevc"), found
    return kind is None or (found.reordered and found.codec not in REORDERED_RIGHT), found


@DECODERS.register("decord")
def open_decord(path: Path) -> Clip:
    """Open a file by decord; by PyAV where decord would give wrong frames, or finds none that it can decode."""
    if _look(path)[0]:
        return PyavClip(path)
    try:
        return DecordClip(path)
    except VideoDecodeError as error:
        if "cannot find video stream" in error.reason:
            return PyavClip(path)
        raise


class DecordClip:
    """Read a file by decord, one thread, on the CPU."""

    def __init__(self, path: Path):
        try:
            import decord
        except ImportError as error:
            raise LaunchError(f"DATA.DECODER decord: the decord package cannot be imported ({error}); "
                              "install it, or set DATA.DECODER pyav") from error
        self.path = path
        self._upright: PyavClip | None = None
        self._errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, IndexError, ValueError,
                        AssertionError)
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, fault_tol=SHORTFALL)
            self.num_frames, self.fps = len(self._reader), float(self._reader.get_avg_fps())
        except self._errors as error:
            raise VideoDecodeError(path, f"not a video, or damaged (decord: {first_line(error)})") from error

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        if self._upright is not None:
            return self._upright.frames(indices)
        try:
            frames: np.ndarray = self._reader.get_batch([int(i) for i in indices]).asnumpy()
            return frames
        except self._errors as error:
            if "from_size == to_size" in str(error):  # decord fails so on a rotated video, which it turns into RGBA
                self._upright = PyavClip(self.path)
                return self._upright.frames(indices)
            raise VideoDecodeError(self.path, f"damaged: decoding failed (decord: {first_line(error)})") from error

    def close(self) -> None:
        """See Clip."""
        self._reader = None
        if self._upright is not None:
            self._upright.close()


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
        raise LaunchError(f"DATA.DECODER torchcodec: {problem}; or set DATA.DECODER decord (auto: whichever works)")


@DECODERS.register("torchcodec")
def open_torchcodec(path: Path) -> Clip:
    """Open a file by torchcodec; by PyAV where torchcodec would give wrong frames."""
    require_torchcodec()
    wrong, header = _look(path)
    return PyavClip(path) if wrong else TorchcodecClip(path, header or read_header(path))


class TorchcodecClip:
    """Read a file by torchcodec, one thread, on the CPU; it scans the packets once, so indices are exact."""

    def __init__(self, path: Path, header: Header):
        from torchcodec.decoders import VideoDecoder

        self.path = path
        try:
            self._decoder: Any = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu",
                                         seek_mode="exact")
            found = self._decoder.metadata
        except (RuntimeError, ValueError) as error:
            reason = first_line(error).replace(f"Could not open input file: {path} ", "")
            raise VideoDecodeError(path, f"not a video, or damaged (torchcodec: {reason})") from error
        self.num_frames = found.num_frames or 0
        # The header's average rate, as the other decoders give it: torchcodec's own differs where the rate varies.
        self.fps = header.fps if math.isfinite(header.fps) else float(found.average_fps or math.nan)

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        try:
            frames: np.ndarray = self._decoder.get_frames_at([int(i) for i in indices]).data.numpy()
            return frames
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoDecodeError(self.path,
                                   f"damaged: decoding failed (torchcodec: {first_line(error)})") from error

    def close(self) -> None:
        """See Clip."""
        self._decoder = None
