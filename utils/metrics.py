"""Compute accuracy and what can be said about it. E episodes, M queries, N supports, K ways, G classes of a split."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy  # its parts are imported when they are first used
from torch import Tensor

from utils.errors import ResultsError

Kind = Literal["distance", "logits", "probabilities"]
REPLICATES = 2000  # of the bootstrap
BINS = 15  # of the calibration error


def correct_queries(logits_MK: Tensor, labels_M: Tensor) -> Tensor:
    """Return whether the best score is the query's own class, bool [M]. Ties go to the first; a NaN is wrong."""
    return (logits_MK.argmax(dim=1) == labels_M) & logits_MK.isfinite().all(dim=1)


def mean_interval(values_E: Sequence[float]) -> tuple[float, float]:
    """Return (mean, half width of its 95 % interval over independent episodes, by Student's t) of values in 0..1.

    The half width is 1, which says nothing, where one value says nothing.
    """
    count = len(values_E)
    if not count:
        raise ValueError("expected at least one episode, found none")
    mean = math.fsum(values_E) / count
    if count == 1:
        return mean, 1.0
    variance = math.fsum((v - mean) ** 2 for v in values_E) / (count - 1)
    return mean, min(float(scipy.stats.t.ppf(0.975, count - 1)) * math.sqrt(variance / count), 1.0)


def probabilities(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Turn scores [..., K], higher is nearer, into probabilities of the ways, float64 [..., K].

    Kinds "distance" (minus a distance) and "logits" take a softmax over the ways; "probabilities" are divided by their
    sum. Raises ResultsError where scores that are called probabilities are negative or all zero.
    """
    values = np.asarray(scores, np.float64)
    if kind != "probabilities":
        return np.asarray(scipy.special.softmax(values, axis=-1))
    totals = values.sum(axis=-1, keepdims=True)
    if ((values < 0).any(axis=-1) & np.isfinite(values).all(axis=-1)).any() or (totals == 0).any():
        raise ResultsError(f"expected probabilities, up to a factor, found scores from {np.nanmin(values):g} to "
                           f"{np.nanmax(values):g} that are none")
    return np.asarray(values / totals)


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927)."""
    interval = scipy.stats.binomtest(int(correct), int(total)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _influences(correct_EM: np.ndarray, query_EM: np.ndarray, support_EN: np.ndarray, videos: int
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (influence_V, noise_V, influence_E): how much each video and each episode moves the mean accuracy; noise_V
    is the expected square of influence_V if videos did not matter."""
    centred = (correct_EM - correct_EM.mean()) / correct_EM.size
    episode_E = centred.sum(axis=1)
    own, supports = centred.ravel(), np.repeat(episode_E, support_EN.shape[1])
    influence = np.bincount(query_EM.ravel(), own, videos) + np.bincount(support_EN.ravel(), supports, videos)
    chance = np.bincount(query_EM.ravel(), own**2, videos) + np.bincount(support_EN.ravel(), supports**2, videos)
    return influence, chance, episode_E


def shared_videos_interval(correct_EM: np.ndarray, query_EM: np.ndarray, support_EN: np.ndarray,
                           class_V: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of the mean accuracy, in 0..1, respecting that episodes share videos.

    Episodes drawn from a few thousand videos are not independent: another draw of videos would shift them together.
    Bootstrap over videos, within each class: a replicate gives every video a multinomial weight, and moves the mean by
    the sum of (weight - 1) * influence, where a video's influence is the summed error of the outcomes it takes part
    in, as query or as support (the first-order, or Hajek, part of the mean as a statistic of the videos). Each video
    meets only some episodes, which adds chance to its influence; the replicates are scaled so that their variance is
    that of the videos less this chance, plus the variance over episodes.

    Args:
        correct_EM: whether each query was right. query_EM, support_EN: video index 0..V-1 of queries and supports.
        class_V: class index of every video. seed: of the bootstrap.
    """
    mean = float(correct_EM.mean())
    influence, chance, episode_E = _influences(np.asarray(correct_EM, float), query_EM, support_EN, len(class_V))
    rng, moves, kept = np.random.default_rng(seed), np.zeros(REPLICATES), 0.0
    for members in (np.flatnonzero(class_V == k) for k in np.unique(class_V)):
        if not np.any(influence[members]):
            continue
        weights = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), REPLICATES)
        moves += (weights - 1) @ influence[members]
        kept += (1 - 1 / len(members)) * chance[members].sum()
    spread = moves.var()
    over_episodes = (episode_E**2).sum()
    scale = math.sqrt((max(spread - kept, 0.0) + over_episodes) / spread) if spread else 0.0
    low, high = np.quantile(moves * scale, (0.025, 0.975))
    return max(mean + float(low), 0.0), min(mean + float(high), 1.0)


def calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> float | None:
    """Return the expected calibration error, 0..1, over 15 bins of equal width (Guo et al., 2017): |confidence -
    accuracy|, weighted; None where a probability is NaN (a broken model has no confidence).

    Args:
        probabilities: [..., K], each summing to 1. correct: [...], whether the largest is the right one.
    """
    confidence = probabilities.max(axis=-1).ravel()
    if not np.isfinite(confidence).all():
        return None
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = np.bincount(bins, confidence - correct.ravel().astype(float), BINS)
    return float(np.abs(gap).sum() / confidence.size)


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count how often class row was taken for class column. int64 [G, G]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (true.ravel(), predicted.ravel()), 1)
    return counts


def exact_mcnemar(only_first: int, only_second: int) -> float:
    """Return p of McNemar's exact test: the queries that only one of two models gets right are a fair coin
    (two-sided)."""
    total = only_first + only_second
    return float(scipy.stats.binomtest(int(only_first), total).pvalue) if total else 1.0
