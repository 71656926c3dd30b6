"""Turn decoded frames into a model's input, with torchvision.transforms.v2: uint8 [T,H,W,3] -> float32 [T,3,H,W].

Order: /255, bilinear resize to exactly the scale (half-pixel centres, no antialias, aspect ratio not kept), flip, crop,
grayscale, colour jitter, normalise, erase. Every random choice is made once a clip, from the seed given with it, and on
the CPU (the noise of erasing, too), wherever the clip is. On CUDA the choices are the same, and the floats are but for
rounding: times STD, to 2e-5 where frames are resized to powers of two (as published, 256), whose positions are exact in
float32, else to 2e-5 and 1e-6 for each pixel of the frame's longer side.
`resize_frames` is the first two steps alone, rounded to whole grey levels: what a frame cache holds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _v2() -> Any:
    """Import torchvision's transforms when they are first used: that takes as long as all else together."""
    from torchvision.transforms import v2

    return v2


@dataclass(frozen=True, slots=True)
class Jitter:
    """Hold colour jitter: grayscale with probability `grayscale` first, then the four strengths in random order."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    grayscale: float


@dataclass(frozen=True, slots=True)
class Erasing:
    """Erase one random rectangle, the same in all frames, after normalisation."""

    probability: float
    mode: str  # "const" fills with 0 (the mean colour), "pixel" with normal noise
    area: tuple[float, float]  # least and largest share of the picture
    min_aspect: float  # least height/width; the largest is its inverse


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Say what training changes about its clips."""

    jitter: Jitter  # strengths, used where colour jitter is on
    erasing: Erasing | None  # part of the query recipe
    random_flip: bool  # flip all training clips with p = 0.5
    color_aug: bool  # colour jitter of all training clips
    support_query_diff: bool  # queries get the query recipe: flip, colour jitter and erasing
    support_query_diff_support: bool  # with support_query_diff, supports get that recipe, too


@dataclass(frozen=True, slots=True)
class PixelSettings:
    """Say how frames become a model's input, whatever is augmented."""

    scale: int | Sequence[int]  # height and width after resizing, pixels; one number for a square
    crop: int  # side of the crop, pixels
    mean: Sequence[float]  # of R, G, B in 0..1
    std: Sequence[float]

    @property
    def frame_size(self) -> tuple[int, int]:
        """Return height and width of the resized frame. Raises ValueError when `crop` does not fit into it."""
        sizes = (self.scale, self.scale) if isinstance(self.scale, int) else tuple(self.scale)
        if len(sizes) != 2 or not 1 <= self.crop <= min(sizes):
            raise ValueError(f"expected a scale of height and width that a crop of {self.crop} fits into, found "
                             f"{self.scale}")
        return sizes


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as loader workers do: the last bits of a resize depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _to_float(frames_TCHW: Tensor) -> Tensor:
    """Divide uint8 by 255, as published: v2.ToDtype multiplies by 1/255, which differs in the last bits."""
    return frames_TCHW.to(torch.float32).div_(255)


def _resize(size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    v2 = _v2()
    resize: Callable[[Tensor], Tensor] = v2.Resize(size, interpolation=v2.InterpolationMode.BILINEAR, antialias=False)
    return resize


def resize_frames(frames_THWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 [T,H,W,3] to uint8 [T,height,width,3]: in float as the pipelines do, then rounded (half to even).

    A frame is at most half a grey level from what the pipelines resize it to.
    """
    with _one_thread():
        resized = _resize(size)(_to_float(torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)))
    found: np.ndarray = resized.mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return found


class ClipTransform:
    """Apply v2 transforms that take their randomness from a seed and leave torch's generators alone.

    Frames are resized to `size` (height, width), then come `geometry`, transforms that only move pixels (flip, crop),
    and `steps` of a float32 clip [T,3,H,W] in 0..1. `random`: any of them draws, so every call needs a seed.
    """

    def __init__(self, size: tuple[int, int], geometry: Sequence[torch.nn.Module], steps: Sequence[torch.nn.Module],
                 random: bool):
        self.size, self.resize, self.random = size, _resize(size), random
        v2 = _v2()
        self.geometry, self.steps = v2.Compose(list(geometry)), v2.Compose(list(steps))

    def __call__(self, clip: np.ndarray | Tensor, seed: int | None = None) -> Tensor:
        """Transform uint8 [T,H,W,3] to float32 [T,3,H,W] on its device. Raises ValueError; `seed` may be needed."""
        frames = torch.as_tensor(clip)
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
            raise ValueError(f"expected a clip of uint8 [T, H, W, 3], found {frames.dtype} {list(frames.shape)}")
        frames = frames.permute(0, 3, 1, 2)
        if not self.random:
            return self._apply(frames)
        if seed is None:
            raise ValueError("a random transform needs a seed")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed CUDA, too
            return self._apply(frames)

    def _apply(self, frames_TCHW: Tensor) -> Tensor:
        with _one_thread() if frames_TCHW.device.type == "cpu" else nullcontext():
            if tuple(frames_TCHW.shape[-2:]) == self.size:
                # Nothing to resize (a frame cache): moving bytes, then converting what is left, gives the same floats;
                # laid out by channel, they are normalised in half the time.
                clip: Tensor = self.steps(_to_float(self.geometry(frames_TCHW).contiguous()))
            else:
                clip = self.steps(self.geometry(self.resize(_to_float(frames_TCHW))))
            return clip


def _train_transform(pixels: PixelSettings, augmentation: Augmentation, query_recipe: bool) -> ClipTransform:
    v2 = _v2()
    geometry = [v2.RandomHorizontalFlip(0.5)] if query_recipe or augmentation.random_flip else []
    steps: list[torch.nn.Module] = [v2.Normalize(list(pixels.mean), list(pixels.std))]
    if query_recipe or augmentation.color_aug:
        jitter = augmentation.jitter
        steps = [v2.RandomGrayscale(jitter.grayscale),
                 v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue), *steps]
    if query_recipe and (erasing := augmentation.erasing):
        aspects = sorted((erasing.min_aspect, 1 / erasing.min_aspect))
        steps.append(v2.RandomErasing(erasing.probability, erasing.area, tuple(aspects),
                                      value="random" if erasing.mode == "pixel" else 0.0))
    return ClipTransform(pixels.frame_size, [*geometry, v2.RandomCrop(pixels.crop)], steps, random=True)


def train_transforms(pixels: PixelSettings, augmentation: Augmentation) -> tuple[ClipTransform, ClipTransform]:
    """Return the transforms of a training episode's supports and queries; the crop is random."""
    queries = augmentation.support_query_diff
    return (_train_transform(pixels, augmentation, queries and augmentation.support_query_diff_support),
            _train_transform(pixels, augmentation, queries))


def test_transform(pixels: PixelSettings) -> ClipTransform:
    """Return the transform of validation and test: resize, central crop, normalise; nothing random."""
    v2 = _v2()
    return ClipTransform(pixels.frame_size, [v2.CenterCrop(pixels.crop)],
                         [v2.Normalize(list(pixels.mean), list(pixels.std))], random=False)
