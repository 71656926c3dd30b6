"""Single clips, each decoded once whatever the episodes: what a feature store is made from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.few_shot import FewShotDataset
from utils.episode import EpisodeSpec
from utils.errors import VideoDecodeError


@dataclass(frozen=True, slots=True)
class Clips:
    """One video, decoded.

    Args:
        video: index of its record. draws: which choices of frames (see FewShotDataset.draw).
        pixels: [draws, T, C, H, W]; empty when it could not be read.
        error: why not.
    """

    video: int
    draws: tuple[int, ...]
    pixels: Tensor
    error: VideoDecodeError | None = None


def clips_of(dataset: FewShotDataset, specs: Iterable[EpisodeSpec]) -> dict[int, tuple[int, ...]]:
    """The distinct videos of episodes with the draws that they take of each, in the order of the records."""
    wanted: dict[int, set[int]] = {}
    for spec in specs:
        for position, video in enumerate((*spec.support_N, *spec.query_M)):
            wanted.setdefault(video, set()).add(dataset.draw(spec, position))
    return {video: tuple(sorted(wanted[video])) for video in sorted(wanted)}


class ClipDataset(Dataset):
    """Item i is the i-th of `wanted`: a video with all its draws, as validation and test see it.

    Args:
        source: an evaluation split's data set with `draws` set.
        wanted: record index to draws.
    """

    def __init__(self, source: FewShotDataset, wanted: Mapping[int, Sequence[int]]):
        self.source, self.wanted = source, [(video, tuple(draws)) for video, draws in wanted.items()]

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, index: int) -> Clips:
        """A bad video is an item with its error where bad videos are replaced, else VideoDecodeError."""
        video, draws = self.wanted[index]
        try:
            frames = self.source.decode(video, [self.source.draw_generator(video, draw) for draw in draws])
        except VideoDecodeError as error:
            if self.source.on_bad_video != "replace":
                raise
            return Clips(video, draws, torch.empty(0), error)
        return Clips(video, draws, torch.stack([self.source.query_transform(clip) for clip in frames]))
