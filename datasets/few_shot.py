"""Turn an episode's number into its pixels: `FewShotDataset`."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.decoding import read_frames
from datasets.episodes import EpisodeSampler, draw_distinct, rank_indices, raw_numbers
from datasets.raw_episode import RawEpisode
from datasets.transforms import ClipTransform
from datasets.videos import Videos
from utils.episode import BadVideo, Episode, EpisodeSpec
from utils.errors import VideoDecodeError
from utils.registry import Registry
from utils.seed import derive_seed, numpy_generator

MAX_REPLACEMENTS = 20  # clips tried in place of one that cannot be read
Value = TypeVar("Value")


def _stack(clips: Sequence[Tensor]) -> Tensor:
    """Stack [T,C,H,W] clips to [clips,T,C,H,W], contiguous whatever the memory layout of the clips."""
    return torch.stack(tuple(clips), out=clips[0].new_empty((len(clips), *clips[0].shape)))


def _episode(clips: Sequence[Tensor], spec: EpisodeSpec, bad: Sequence[BadVideo]) -> Episode:
    """Make an episode of transformed clips [T,C,H,W], supports first; its labels are on the CPU."""
    shots = len(spec.support_N)
    support_labels, query_labels = torch.tensor(spec.support_labels_N), torch.tensor(spec.query_labels_M)
    classes = torch.tensor(spec.classes_K)
    return Episode(
        support_NTCHW=_stack(clips[:shots]), support_labels_N=support_labels,
        support_classes_N=classes[support_labels], query_MTCHW=_stack(clips[shots:]), query_labels_M=query_labels,
        query_classes_M=classes[query_labels], classes_K=classes, spec=spec, bad_videos=tuple(bad))


class FewShotDataset(Dataset[Episode]):
    """Give the episodes of one split. Item i is the same for any number of workers, and for any order of asking.

    Args:
        sampler: draws the episodes; its seed and split are the seed and split of all draws here.
        frames: (num_frames, fps, *, generator) -> int64 [T]: frame_sampling.sample_frames with its settings bound.
        support_transform, query_transform: uint8 [T,H,W,3] and a seed -> float32 [T,C,H,W].
        length: number of episodes, over all ranks; `part` gives those of one process.
        draws: how many choices of frames a clip has; each clip of an episode takes one of them. None: any number.
        on_bad_video: "stop": VideoDecodeError; "replace": another clip of the class, recorded in Episode.bad_videos.
    """

    def __init__(self, *, videos: Videos, sampler: EpisodeSampler, frames: Callable[..., np.ndarray],
                 support_transform: ClipTransform, query_transform: ClipTransform, length: int,
                 draws: int | None = None, on_bad_video: str = "stop"):
        self.videos, self.sampler, self.frames, self.on_bad_video = videos, sampler, frames, on_bad_video
        self.support_transform, self.query_transform = support_transform, query_transform
        self.length, self.episodes, self.draws = length, rank_indices(length, 0, 1), draws

    def part(self, start: int = 0, rank: int = 0, world: int = 1, stop: int | None = None) -> "FewShotDataset":
        """Return the same data set with episodes start + rank, start + rank + world, ... before `stop` (None: all)."""
        taken = copy.copy(self)
        taken.episodes = rank_indices(self.length if stop is None else stop, rank, world, start)
        return taken

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        """Decode episode number `self.episodes[index]`. Raises IndexError behind the last."""
        spec = self.sampler.spec(self.episodes[index])
        clips, bad = self.read_clips(spec, lambda position, video: self._transformed(
            spec, position, *self._read(spec, position, video)))
        return _episode(clips, spec, bad)

    def raw(self, index: int) -> RawEpisode:
        """Return the same, not yet transformed."""
        spec = self.sampler.spec(self.episodes[index])
        clips, bad = self.read_clips(spec, lambda position, video: self._read(spec, position, video))
        return RawEpisode.of(clips, spec, bad)

    def finish(self, raw: RawEpisode) -> Episode:
        """Transform what `raw` gave, on the device where it is; the result equals the item."""
        clips = [self._transformed(raw.spec, position, *clip) for position, clip in enumerate(raw.clips())]
        return _episode(clips, raw.spec, raw.bad_videos).to(raw.pixels.device)

    def read_clips(self, spec: EpisodeSpec, read: Callable[[int, int], Value]) -> tuple[list[Value], list[BadVideo]]:
        """Call `read(position, video)` for every clip of an episode, supports first; return what it gave.

        A video for which it raises VideoDecodeError is replaced as on_bad_video says; the second list names those.
        """
        videos = [*spec.support_N, *spec.query_M]
        bad: list[BadVideo] = []
        taken = set(videos)
        return [self._clip(spec, position, video, read, taken, bad) for position, video in enumerate(videos)], bad

    def _clip(self, spec: EpisodeSpec, position: int, video: int, read: Callable[[int, int], Value], taken: set[int],
              bad: list[BadVideo]) -> Value:
        """Read a video at `position`; replacements join `taken`, what they replace joins `bad`."""
        try:
            return read(position, video)
        except VideoDecodeError as error:
            if self.on_bad_video != "replace":
                raise
            failures = [(video, error)]
        for candidate in self._stand_ins(spec, position, video, taken):
            taken.add(candidate)
            try:
                value = read(position, candidate)
            except VideoDecodeError as error:
                failures.append((candidate, error))
                continue
            records = self.videos.records
            bad += [BadVideo(records[failed].path, error.reason, records[candidate].path, spec.split, spec.index)
                    for failed, error in failures]
            return value
        original = failures[0][1]
        raise VideoDecodeError(original.path, f"{original.reason}; {len(failures) - 1} other clips of the class were "
                                              "tried in its place, none can be read") from original

    def _stand_ins(self, spec: EpisodeSpec, position: int, video: int, taken: set[int]) -> list[int]:
        """Return clips of the class that are not in the episode, in an order that the seed fixes."""
        members = self.sampler.members[self.videos.records[video].class_index]
        free = [member for member in members if member not in taken]
        count = min(MAX_REPLACEMENTS, len(free))
        generator = numpy_generator(self.sampler.seed, "replace:" + spec.split, spec.index, position)
        return [free[i] for i in draw_distinct(raw_numbers(generator, count), len(free), count)]

    def draw(self, spec: EpisodeSpec, position: int) -> int:
        """Return which of its `draws` choices of frames the clip at `position` takes."""
        if self.draws is None or self.draws == 1:
            return 0
        return derive_seed(self.sampler.seed, "draw:" + spec.split, spec.index, position) % self.draws

    def draw_generator(self, video: int, draw: int) -> np.random.Generator:
        """Return the generator of a video's `draw`-th choice of frames."""
        return numpy_generator(self.sampler.seed, "drawn frames:" + self.sampler.split, video, draw)

    def decode(self, video: int, generators: Sequence[np.random.Generator]) -> list[np.ndarray]:
        """Return the frames of a video, uint8 [T,H,W,3], once for each generator; the file is opened once.

        Raises VideoDecodeError; FrameCacheError where a cache is damaged.
        """
        path, clip = self.videos.open(video)
        try:
            indices = [self.frames(clip.num_frames, clip.fps, generator=generator) for generator in generators]
            pixels = read_frames(clip, np.concatenate(indices), path)
        except ValueError as error:
            raise VideoDecodeError(path, str(error)) from error
        finally:
            clip.close()
        return np.split(pixels, len(generators))

    def _read(self, spec: EpisodeSpec, position: int, video: int) -> tuple[np.ndarray, int]:
        """Return the frames of the clip at `position`, and the seed of its transform."""
        generator = self.draw_generator(video, self.draw(spec, position)) if self.draws else numpy_generator(
            self.sampler.seed, "frames:" + spec.split, spec.index, position)
        (pixels,) = self.decode(video, [generator])
        return pixels, derive_seed(self.sampler.seed, "augment:" + spec.split, spec.index, position)

    def _transformed(self, spec: EpisodeSpec, position: int, clip: np.ndarray | Tensor, seed: int) -> Tensor:
        transform = self.support_transform if position < len(spec.support_N) else self.query_transform
        return transform(clip, seed=seed)


DATASETS: Registry[type[FewShotDataset]] = Registry("data set", "datasets/few_shot.py")
DATASETS.register("Ssv2_few_shot", "few_shot")(FewShotDataset)
