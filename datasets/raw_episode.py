"""Hand an episode's frames, as they were decoded, from a worker to the training process that transforms them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from torch import Tensor

from utils.episode import BadVideo, EpisodeSpec, OfTensors


@dataclass(frozen=True, slots=True)
class RawEpisode(OfTensors):
    """Hold an episode that is decoded and not yet transformed.

    The clips lie in one tensor: each tensor that leaves a worker takes a file descriptor, and each copy to a device a
    call.
    """

    pixels: Tensor  # uint8 [bytes], the clips one behind the other, supports first
    shapes: tuple[tuple[int, ...], ...]  # [T, H, W, 3] of each clip; videos of one episode may have different sizes
    seeds: tuple[int, ...]  # of each clip's transform
    spec: EpisodeSpec
    bad_videos: tuple[BadVideo, ...] = field(default=())

    @classmethod
    def of(cls, clips: Sequence[tuple[np.ndarray, int]], spec: EpisodeSpec, bad: Sequence[BadVideo]) -> "RawEpisode":
        """Pack (uint8 [T,H,W,3], seed) of each clip of the episode."""
        pixels = torch.from_numpy(np.concatenate([frames.reshape(-1) for frames, _ in clips]))
        return cls(pixels, tuple(frames.shape for frames, _ in clips), tuple(seed for _, seed in clips), spec,
                   tuple(bad))

    def clips(self) -> list[tuple[Tensor, int]]:
        """Return (uint8 [T,H,W,3], seed) of each clip; the frames are views of `pixels`."""
        parts = torch.split(self.pixels, [prod(shape) for shape in self.shapes])
        return [(part.view(shape), seed) for part, shape, seed in zip(parts, self.shapes, self.seeds, strict=True)]
