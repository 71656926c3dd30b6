"""Evaluation of fixed episodes, one after the other."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm

from utils.episode import BadVideo, Episode
from utils.metrics import correct_queries, mean_interval


@dataclass(slots=True)
class Evaluation:
    """What an evaluation found.

    Args:
        episode_accuracy: share of correct queries of each episode.
        class_counts: class index to [correct, queries].
        bad_videos: clips that were replaced.
    """

    episode_accuracy: list[float] = field(default_factory=list)
    class_counts: dict[int, list[int]] = field(default_factory=dict)
    bad_videos: list[BadVideo] = field(default_factory=list)

    def add(self, episode: Episode, correct: list[bool]) -> None:
        """Count one episode."""
        self.episode_accuracy.append(sum(correct) / len(correct))
        for index, right in zip(episode.query_classes_M.tolist(), correct, strict=True):
            counts = self.class_counts.setdefault(index, [0, 0])
            counts[0] += right
            counts[1] += 1
        self.bad_videos.extend(episode.bad_videos)

    @property
    def accuracy(self) -> float:
        """Mean accuracy over episodes, 0..1."""
        return mean_interval(self.episode_accuracy)[0]

    @property
    def interval(self) -> float:
        """Half width of its 95 % interval over episodes."""
        return mean_interval(self.episode_accuracy)[1]


@torch.inference_mode()
def evaluate(model: nn.Module, episodes: Iterable[Episode], split: str, *, device: torch.device, total: int,
             title: str) -> Evaluation:
    """Score every episode of a split; the model is put in evaluation mode and left there."""
    model.eval()
    result = Evaluation()
    with tqdm(episodes, total=total, desc=title, unit="episode", disable=None, leave=False) as bar:
        for episode in bar:
            output = model(episode.to(device), split)
            result.add(episode, correct_queries(output.logits_MK.cpu(), episode.query_labels_M).tolist())
            if bar.n % 20 == 0:
                bar.set_postfix_str(f"accuracy {result.accuracy:.1%}")
    return result
