"""Define what every decoder gives, an opened video (`Clip`), the table of decoders, and the simplest: a folder."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from datasets.annotations import is_jpeg
from utils.errors import VideoDecodeError
from utils.registry import Registry

FOLDER_FPS = 12.0  # frames a second assumed of a folder of frames, which has no rate of its own
AUTO = "auto"  # DATA.DECODER: torchcodec where it and FFmpeg work, else decord


class Clip(Protocol):
    """Promise the frames of an opened video. fps: frames a second, NaN if the file does not say."""

    num_frames: int
    fps: float

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return uint8 RGB [T, H, W, 3] of the frames at `indices`, in that order; repeats allowed."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


DECODERS: Registry[Callable[[Path], Clip]] = Registry("decoder", "datasets/readers/", also=(AUTO,))


def first_line(error: BaseException) -> str:
    """Return an error's first line without the clock, source position and number that decoders put in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[[\d:]+\] \S+: |\[Errno -?\d+\] |\w+, \S+:\d+, )+", "", lines[0]).strip()[:200]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts frame 10 after frame 9."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]


@DECODERS.register("frames")
class FolderClip:
    """Read a folder of JPEG frames in the order of their numbers, at FOLDER_FPS."""

    def __init__(self, path: Path):
        self.path, self.fps = path, FOLDER_FPS
        if not path.is_dir():
            raise VideoDecodeError(path, "expected a folder of JPEG frames, found a file")
        self._files = sorted((entry for entry in path.iterdir() if is_jpeg(entry.name)),
                             key=lambda entry: _natural(entry.name))
        self.num_frames = len(self._files)

    def _picture(self, index: int) -> np.ndarray:
        try:
            with Image.open(self._files[index]) as image:
                return np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoDecodeError(self.path, f"frame {self._files[index].name} is no whole JPEG "
                                              f"({first_line(error)})") from error

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See Clip."""
        pictures = {i: self._picture(i) for i in dict.fromkeys(int(i) for i in indices)}
        sizes = {picture.shape for picture in pictures.values()}
        if len(sizes) > 1:
            raise VideoDecodeError(self.path, f"expected frames of one size, found {sorted(s[:2] for s in sizes)}")
        return np.stack([pictures[int(i)] for i in indices])

    def close(self) -> None:
        """See Clip."""
