"""Choose which frames of a clip are seen: pure functions on integers.

n frames in the video, T frames wanted. SAMPLING_RATE above 40 cuts the clip into T segments and takes a frame of each;
up to 40 it takes T frames evenly spaced over an interval of T * rate frames counted at TARGET_FPS.
A clip shorter than T repeats frames, in order.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

SEGMENT_ABOVE = 40  # SAMPLING_RATE above which segments are sampled, as published


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """Hold the settings that decide which frames of a clip are seen: DATA's keys of these names."""

    T: int  # NUM_INPUT_FRAMES
    sampling_rate: float
    target_fps: float
    test_sampling: str  # outside training, segments give a "random" frame or their "center"
    interval_tail: str  # "drop" or "keep"; see `interval_indices`

    @property
    def drawn_in_test(self) -> bool:
        """Whether `sample_frames` draws outside training: then a clip has other frames each time it is seen."""
        return self.test_sampling != "center" and (self.T == 1 or self.sampling_rate > SEGMENT_ABOVE)


def _check(num_frames: int, T: int) -> None:
    if num_frames < 1 or T < 1:
        raise ValueError(f"expected at least one frame to choose from and to choose, found {num_frames} and {T}")


def _one_frame(num_frames: int, generator: np.random.Generator | None) -> np.ndarray:
    index = (num_frames - 1) // 2 if generator is None else int(generator.integers(num_frames))
    return np.array([index], dtype=np.int64)


def segment_indices(num_frames: int, T: int, generator: np.random.Generator | None, center: bool) -> np.ndarray:
    """Choose one frame of each of T segments: int64 [T], not decreasing, in 0..n-1.

    Args:
        center: take the middle frame of T equal segments of the whole clip. Otherwise, as published, the segments are
            n // T frames long, the n % T last frames belong to none, and `generator` draws each frame uniformly.
    """
    _check(num_frames, T)
    t = np.arange(T, dtype=np.int64)
    if center:
        return (2 * t + 1) * num_frames // (2 * T)
    if generator is None:
        raise ValueError("random segment sampling needs a generator")
    if T == 1:
        return _one_frame(num_frames, generator)
    length = num_frames // T
    if length == 0:
        return t * num_frames // T
    return t * length + generator.integers(0, length, size=T)


def interval_indices(num_frames: int, fps: float, T: int, rate: float, target_fps: float,
                     generator: np.random.Generator | None, keep_tail: bool) -> np.ndarray:
    """Choose T frames evenly spaced over an interval of L = T * rate * fps / target_fps frames: int64 [T] in 0..n-1.

    The linspace is computed in float32, as published.

    Args:
        fps: frames a second of the video.
        rate: SAMPLING_RATE, frames between two wanted ones at `target_fps`.
        generator: draws where the interval starts; None (test): it lies in the middle.
        keep_tail: False, as published: the last frame lies `rate` before the interval's end, and where L > n the
            interval shrinks to (n // T) * T. True: an interval longer than the clip is the clip, and the T frames run
            from its first to its last frame: linspace(start, start + L - 1, T).
    """
    _check(num_frames, T)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"interval sampling needs the video's frame rate, found {fps}")
    if T == 1:
        return _one_frame(num_frames, generator)
    if num_frames < T:
        return np.arange(T, dtype=np.int64) * num_frames // T
    length = T * rate * fps / target_fps
    if keep_tail:
        length = min(length, num_frames)
        room, reach = num_frames - length, max(length - 1, 0.0)
    else:
        if length > num_frames:
            length = num_frames // T * T
        room, reach = max(num_frames - length + 1, 0), length - rate
    start = room / 2 if generator is None else float(generator.uniform(0, room))
    spaced = torch.linspace(start, start + reach, T, dtype=torch.float32)
    return spaced.clamp(0, num_frames - 1).long().numpy()


def sample_frames(num_frames: int, fps: float, sampling: FrameSampling, *, training: bool,
                  generator: np.random.Generator) -> np.ndarray:
    """Choose the frames of one clip, int64 [T], as the settings say; `generator` gives all draws of it.

    One frame (T = 1) is uniform over the clip, or its middle when test_sampling is "center". Raises ValueError: no
    frames, or interval sampling of a video without a frame rate.
    """
    T, rate = sampling.T, sampling.sampling_rate
    _check(num_frames, T)
    center = not training and sampling.test_sampling == "center"
    if T == 1:
        return _one_frame(num_frames, None if center else generator)
    if rate > SEGMENT_ABOVE:
        return segment_indices(num_frames, T, generator, center)
    return interval_indices(num_frames, fps, T, rate, sampling.target_fps, generator if training else None,
                            keep_tail=sampling.interval_tail == "keep")
