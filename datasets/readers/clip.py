"""Define what every decoder gives, an opened video (`Clip`), and the table of decoders."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.registry import Registry

FOLDER_FPS = 12.0  # frames a second assumed of what has no rate of its own, such as a folder of frames
AUTO = "auto"  # DATA.DECODER: pyav


class Clip(Protocol):
    """Promise the frames of an opened video. fps: frames a second, NaN if the file does not say."""

    num_frames: int
    fps: float

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return uint8 RGB [T, H, W, 3] of the frames at `indices`, in that order; repeats allowed."""
        ...

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the seconds, float64 [T], at which the frames at `indices` are shown (see readers/times.py)."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


DECODERS: Registry[Callable[[Path], Clip]] = Registry("decoder", "datasets/readers/", also=(AUTO,))


def even_times(indices: Sequence[int] | np.ndarray, fps: float) -> np.ndarray:
    """Return the seconds, float64 [T], of frames that follow each other evenly, at FOLDER_FPS if fps is no rate."""
    return np.asarray(indices, np.float64) / (fps if math.isfinite(fps) and fps > 0 else FOLDER_FPS)


def first_line(error: BaseException) -> str:
    """Return an error's first line without the clock, source position and number that decoders put in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^(\[[\d:]+\] \S+: |\[Errno -?\d+\] |\w+, \S+:\d+, )+", "", lines[0]).strip()[:200]
