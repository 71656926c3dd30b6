"""Frames out of video files: decoders behind one Protocol, every failure a VideoDecodeError.

`open_video(path, "decord")` opens a file once; the clip tells its length and rate and gives frames by index.
Decoders (`DECODERS`): decord, pyav, frames (a folder of JPEG frames; a folder is read so whatever the decoder).
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.annotations import is_jpeg
from utils.errors import LaunchError, VideoDecodeError
from utils.registry import Registry

FOLDER_FPS = 12.0  # frames a second assumed of a folder of frames, which has no rate of its own
SHORTFALL = 2  # frames a container may count and its decoder not give (delayed or packed frames); the last one repeats
SLACK = 1024  # bytes a container may promise and not have before it counts as truncated


class Clip(Protocol):
    """An opened video. Attributes: num_frames, fps (frames a second; NaN where the file does not say)."""

    num_frames: int
    fps: float

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 RGB [T, H, W, 3] of the frames at `indices`, in that order; repeats allowed."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


DECODERS: Registry[Callable[[Path], Clip]] = Registry("decoder")


def _first_line(error: BaseException) -> str:
    """An error's first line without the clock, source position and number that decoders put in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[[\d:]+\] \S+: |\[Errno -?\d+\] )+", "", lines[0]).strip()[:200]


@DECODERS.register("decord")
class DecordClip:
    """A file read by decord, one thread, on the CPU."""

    def __init__(self, path: Path):
        try:
            import decord
        except ImportError as error:
            raise LaunchError(f"DATA.DECODER decord: the decord package cannot be imported ({error}); "
                              "install it, or set DATA.DECODER pyav") from error
        self.path = path
        self._errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, IndexError, ValueError,
                        AssertionError)
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, fault_tol=SHORTFALL)
            self.num_frames, self.fps = len(self._reader), float(self._reader.get_avg_fps())
        except self._errors as error:
            raise VideoDecodeError(path, f"not a video, or damaged (decord: {_first_line(error)})") from error

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        try:
            return self._reader.get_batch([int(i) for i in indices]).asnumpy()
        except self._errors as error:
            raise VideoDecodeError(self.path, f"damaged: decoding failed (decord: {_first_line(error)})") from error

    def close(self) -> None:
        """See Clip."""
        self._reader = None


@DECODERS.register("pyav")
class PyavClip:
    """A file read by PyAV: packets are counted on opening, frames decoded in order up to the last one wanted."""

    def __init__(self, path: Path):
        try:
            import av
        except ImportError as error:
            raise LaunchError(f"DATA.DECODER pyav: the av package cannot be imported ({error})") from error
        self.path, self._error = path, av.error.FFmpegError
        try:
            # Titles in any encoding are no reason to refuse a video; PyAV 19 no longer asks.
            lenient = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
            self._container = av.open(str(path), **lenient)
        except (self._error, ValueError) as error:
            raise VideoDecodeError(path, f"not a video, or damaged (pyav: {_first_line(error)})") from error
        try:
            self.num_frames, self.fps = self._measure()
        except VideoDecodeError:
            self.close()
            raise
        except (self._error, ValueError) as error:
            self.close()
            raise VideoDecodeError(path, f"damaged: reading failed (pyav: {_first_line(error)})") from error

    def _measure(self) -> tuple[int, float]:
        if not self._container.streams.video:
            raise VideoDecodeError(self.path, "has no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type, self._stream.thread_count = "NONE", 1
        rate = self._stream.average_rate or self._stream.guessed_rate
        count = sum(1 for packet in self._container.demux(self._stream) if packet.size and not packet.is_discard)
        return count, float(rate) if rate else math.nan

    def _decode(self, wanted: set[int]) -> dict[int, np.ndarray]:
        """The frames at `wanted`; where the stream ends at most SHORTFALL early, its last frame stands for the rest."""
        found: dict[int, np.ndarray] = {}
        last, index, frame = max(wanted), -1, None
        self._container.seek(0, stream=self._stream, backward=True)
        for index, frame in enumerate(self._container.decode(self._stream)):
            if index in wanted:
                found[index] = frame.to_ndarray(format="rgb24")
            if index == last:
                return found
        if frame is None or last - index > SHORTFALL:
            raise VideoDecodeError(self.path, f"truncated or damaged: frame {last} of {self.num_frames} was asked for, "
                                              f"decoding ended after {index + 1}")
        picture = frame.to_ndarray(format="rgb24")
        return {want: found.get(want, picture) for want in wanted}

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        order = [int(i) for i in indices]
        try:
            found = self._decode(set(order))
            return np.stack([found[i] for i in order])
        except (self._error, ValueError) as error:
            raise VideoDecodeError(self.path, f"damaged: decoding failed (pyav: {_first_line(error)})") from error

    def close(self) -> None:
        """See Clip."""
        self._container.close()


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame 10 after frame 9."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]


@DECODERS.register("frames")
class FolderClip:
    """A folder of JPEG frames in the order of their numbers, at FOLDER_FPS."""

    def __init__(self, path: Path):
        self.path, self.fps = path, FOLDER_FPS
        if not path.is_dir():
            raise VideoDecodeError(path, "expected a folder of JPEG frames, found a file")
        self._files = sorted((entry for entry in path.iterdir() if is_jpeg(entry.name)),
                             key=lambda entry: _natural(entry.name))
        self.num_frames = len(self._files)

    def _picture(self, index: int) -> np.ndarray:
        from PIL import Image

        try:
            with Image.open(self._files[index]) as image:
                return np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoDecodeError(self.path, f"frame {self._files[index].name} is no whole JPEG "
                                              f"({_first_line(error)})") from error

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        pictures = {i: self._picture(i) for i in dict.fromkeys(int(i) for i in indices)}
        sizes = {picture.shape for picture in pictures.values()}
        if len(sizes) > 1:
            raise VideoDecodeError(self.path, f"expected frames of one size, found {sorted(s[:2] for s in sizes)}")
        return np.stack([pictures[int(i)] for i in indices])

    def close(self) -> None:
        """See Clip."""


def _ebml_number(head: bytes, at: int, keep_marker: bool) -> tuple[int, int]:
    """An EBML number and the position behind it; -1 for "unknown size"."""
    length = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + length], "big")
    if keep_marker:
        return value, at + length
    value &= (1 << 7 * length) - 1
    return (-1 if value == (1 << 7 * length) - 1 else value), at + length


def _matroska_end(head: bytes) -> int | None:
    """Byte at which a WebM or Matroska file says it ends; None where it does not say."""
    size, at = _ebml_number(head, 4, keep_marker=False)
    if size < 0 or at + size + 12 > len(head):
        return None
    name, at = _ebml_number(head, at + size, keep_marker=True)
    size, at = _ebml_number(head, at, keep_marker=False)
    return at + size if name == 0x18538067 and size >= 0 else None


def _mp4_problem(path: Path, size: int) -> str | None:
    """What is missing of an MP4 file: a box that ends behind the file, or the index (`moov`)."""
    at, boxes = 0, set()
    with open(path, "rb") as file:
        while at + 8 <= size and len(boxes) < 64:
            file.seek(at)
            head = file.read(16)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:], "big")
            boxes.add(name)
            if length == 0:
                break
            if length < 8:
                return None
            at += length
            if name in (b"mdat", b"moov") and at > size:
                return f"truncated: the file should have at least {at} bytes, found {size}"
    return None if b"moov" in boxes else "truncated: an MP4 file without its index (moov)"


def container_problem(path: Path) -> str | None:
    """Why a file cannot be a whole video, as its container's own sizes tell (MP4, AVI, WebM); None: no objection.

    Decoders read a truncated AVI or WebM as a shorter video, so this is asked before them.
    """
    size = path.stat().st_size
    if size == 0:
        return "empty file (0 bytes)"
    with open(path, "rb") as file:
        head = file.read(128)
    end = None
    if head[:4] == b"RIFF" and len(head) >= 12:
        declared = int.from_bytes(head[4:8], "little")
        end = None if declared in (0, 2**32 - 1) else declared + 8
    elif head[:4] == b"\x1aE\xdf\xa3" and len(head) == 128:
        end = _matroska_end(head)
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _mp4_problem(path, size)
    if end is not None and end > size + SLACK:
        return f"truncated: the file should have {end} bytes, found {size}"
    return None


def open_video(path: Path, decoder: str = "decord") -> Clip:
    """Open a video file or a folder of frames.

    Args:
        path: file, or folder of JPEG frames.
        decoder: a name of DECODERS; a folder is read as frames whatever it says.

    Raises:
        VideoDecodeError: missing, empty, truncated, damaged, not a video, no frames.
        LaunchError: the decoder is not installed.  RegistryError: no such decoder.
    """
    path, opener = Path(path), DECODERS[decoder]
    try:
        folder = path.is_dir()
        if not folder and (problem := container_problem(path)):
            raise VideoDecodeError(path, problem)
        clip = FolderClip(path) if folder else opener(path)
    except FileNotFoundError:
        raise VideoDecodeError(path, "no such file") from None
    except OSError as error:
        raise VideoDecodeError(path, f"cannot be read: {error.strerror or error}") from error
    if clip.num_frames < 1:
        clip.close()
        raise VideoDecodeError(path, "has no JPEG frames" if folder else "has no frames")
    return clip


def read_frames(clip: Clip, indices: np.ndarray, path: Path) -> np.ndarray:
    """`clip.frames(indices)`, its shape and type checked: uint8 [T, H, W, 3], T = len(indices)."""
    if len(indices) == 0 or min(indices) < 0 or max(indices) >= clip.num_frames:
        raise VideoDecodeError(path, f"expected indices in 0..{clip.num_frames - 1}, found {list(map(int, indices))}")
    frames = clip.frames(indices)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != len(indices) or frames.shape[3] != 3 \
            or 0 in frames.shape:
        raise VideoDecodeError(path, f"expected uint8 frames of shape [{len(indices)}, H, W, 3], found {frames.dtype} "
                                     f"{list(frames.shape)}")
    return frames
