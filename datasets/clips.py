"""Decode single clips, each once whatever the episodes: a feature store is made from them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.few_shot import FewShotDataset
from utils.episode import EpisodeSpec, OfTensors
from utils.errors import VideoDecodeError


@dataclass(frozen=True, slots=True)
class Clips(OfTensors):
    """Hold one decoded video."""

    video: int  # index of its record
    draws: tuple[int, ...]  # which choices of frames (see FewShotDataset.draw)
    pixels: Tensor  # float32 [draws, T, C, H, W], or, not yet transformed, uint8 [draws, T, H, W, 3]
    error: VideoDecodeError | None = None  # why it could not be read; then `pixels` is empty


def clips_of(dataset: FewShotDataset, specs: Iterable[EpisodeSpec]) -> dict[int, tuple[int, ...]]:
    """Return the distinct videos of episodes, in the order of the records, with the draws taken of each."""
    wanted: dict[int, set[int]] = {}
    for spec in specs:
        for position, video in enumerate((*spec.support_N, *spec.query_M)):
            wanted.setdefault(video, set()).add(dataset.draw(spec, position))
    return {video: tuple(sorted(wanted[video])) for video in sorted(wanted)}


class ClipDataset(Dataset[Clips]):
    """Give each of the `wanted` videos (record index to draws), as validation and test see them.

    `source` is an evaluation split's data set with `draws` set.
    """

    def __init__(self, source: FewShotDataset, wanted: Mapping[int, Sequence[int]]):
        self.source, self.wanted = source, [(video, tuple(draws)) for video, draws in wanted.items()]

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, index: int) -> Clips:
        """Return the index-th video; a bad one carries its error where they are replaced, else raises it."""
        return self._read(index, self._transformed)

    def raw(self, index: int) -> Clips:
        """Return the same, not yet transformed."""
        return self._read(index, lambda frames: torch.from_numpy(np.stack(frames)))

    def finish(self, clips: Clips) -> Clips:
        """Transform what `raw` gave, on the device where it is; the result equals the item."""
        return clips if clips.error else replace(clips, pixels=self._transformed(clips.pixels))

    def _read(self, index: int, make: Callable[[Sequence[np.ndarray]], Tensor]) -> Clips:
        video, draws = self.wanted[index]
        try:
            frames = self.source.decode(video, [self.source.draw_generator(video, draw) for draw in draws])
        except VideoDecodeError as error:
            if self.source.on_bad_video != "replace":
                raise
            return Clips(video, draws, torch.empty(0), error)
        return Clips(video, draws, make(frames))

    def _transformed(self, clips: Iterable[np.ndarray | Tensor]) -> Tensor:
        return torch.stack([self.source.query_transform(clip) for clip in clips])
