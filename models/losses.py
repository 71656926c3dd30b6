"""Losses of an episode. Each takes (EpisodeOutput, Episode) and returns a scalar; the criterion weighs them."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from models.registries import LOSSES
from utils.episode import Episode, EpisodeOutput

Loss = Callable[[EpisodeOutput, Episode], Tensor]


@LOSSES.register("few_shot")
def few_shot_loss(output: EpisodeOutput, episode: Episode) -> Tensor:
    """Cross entropy of the queries over the ways."""
    return F.cross_entropy(output.logits_MK, episode.query_labels_M)


@LOSSES.register("classification")
def classification_loss(output: EpisodeOutput, episode: Episode) -> Tensor:
    """Cross entropy of supports, then queries, over all training classes: the video-text contrast."""
    if output.class_logits_PG is None:
        raise ValueError("the classification loss needs class_logits, which a head gives in training mode only")
    classes = torch.cat([episode.support_classes_N, episode.query_classes_M])
    return F.cross_entropy(output.class_logits_PG, classes)


class Criterion:
    """Weighted losses by name; their sum is what training minimises.

    Args:
        weights: loss name (from LOSSES) to weight.
        divisor: TRAIN.BATCH_SIZE, which divides every loss as published.
    """

    def __init__(self, weights: Mapping[str, float], divisor: float = 1.0):
        self._losses: dict[str, tuple[Loss, float]] = {n: (LOSSES[n], w / divisor) for n, w in weights.items()}

    def __call__(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """{name: weighted scalar}."""
        return {name: loss(output, episode) * weight for name, (loss, weight) in self._losses.items()}


def clip_fsar_criterion(*, use_classification: bool, classification_weight: float, classification_only: bool,
                        divisor: float) -> Criterion:
    """(CE(logits) + weight * CE(class_logits)) / divisor, or one of the two terms alone."""
    weights = {}
    if not (use_classification and classification_only):
        weights["few_shot"] = 1.0
    if use_classification:
        weights["classification"] = classification_weight
    return Criterion(weights, divisor)
