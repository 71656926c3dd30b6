"""Intervals against simulation, and the small figures against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from utils.errors import ResultsError
from utils.metrics import (
    calibration_error,
    confusion,
    correct_queries,
    exact_mcnemar,
    mean_interval,
    probabilities,
    shared_videos_interval,
    wilson,
)

CLASSES, VIDEOS, EPISODES, WAY = 6, 12, 400, 5


def _world(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How good each video of a fresh data set is as a query, and as a support. [CLASSES, VIDEOS]"""
    return rng.normal(0.6, 0.9, (CLASSES, VIDEOS)), rng.normal(0, 0.7, (CLASSES, VIDEOS))


def _test(rng: np.random.Generator, query_skill: np.ndarray, support_skill: np.ndarray):
    """(correct [E, M], query videos [E, M], support videos [E, N]) of random 5-way 1-shot episodes."""
    classes = np.array([rng.permutation(CLASSES)[:WAY] for _ in range(EPISODES)])
    pairs = np.array([[rng.choice(VIDEOS, 2, replace=False) for _ in range(WAY)] for _ in range(EPISODES)])
    skill = query_skill[classes, pairs[..., 0]] + support_skill[classes, pairs[..., 1]]
    correct = rng.random((EPISODES, WAY)) < 1 / (1 + np.exp(-skill))
    return correct, classes * VIDEOS + pairs[..., 0], classes * VIDEOS + pairs[..., 1]


@pytest.mark.slow
def test_the_interval_over_videos_covers_and_the_plain_one_does_not():
    """Data sets are drawn anew: the plain interval misses the true mean far too often, the other about 5 % of times."""
    rng = np.random.default_rng(0)
    worlds = [_test(rng, *_world(rng)) for _ in range(150)]
    truth = float(np.mean([_test(rng, *_world(rng))[0].mean() for _ in range(400)]))
    labels = np.repeat(np.arange(CLASSES), VIDEOS)
    covered = plain = 0
    widths = []
    for correct, query, support in worlds:
        low, high = shared_videos_interval(correct, query, support, labels)
        covered += low <= truth <= high
        widths.append(high - low)
        mean, half = mean_interval(correct.mean(axis=1).tolist())
        plain += mean - half <= truth <= mean + half
    assert 0.87 <= covered / len(worlds) <= 0.99
    assert plain / len(worlds) < 0.75
    spread = np.std([correct.mean() for correct, *_ in worlds])
    assert 0.8 < np.mean(widths) / (2 * 1.96 * spread) < 1.25


def test_without_shared_effects_the_two_intervals_agree():
    rng = np.random.default_rng(1)
    flat = np.full((CLASSES, VIDEOS), 1.0), np.zeros((CLASSES, VIDEOS))
    ratios = []
    for _ in range(30):
        correct, query, support = _test(rng, *flat)
        low, high = shared_videos_interval(correct, query, support, np.repeat(np.arange(CLASSES), VIDEOS))
        ratios.append((high - low) / (2 * mean_interval(correct.mean(axis=1).tolist())[1]))
    assert 0.9 < np.mean(ratios) < 1.35


def test_the_interval_over_videos_of_a_perfect_model_and_of_the_same_seed():
    ones, query = np.ones((4, 2), bool), np.arange(8).reshape(4, 2)
    assert shared_videos_interval(ones, query, query + 8, np.zeros(16, int)) == (1.0, 1.0)
    rng = np.random.default_rng(2)
    correct, query, support = _test(rng, *_world(rng))
    labels = np.repeat(np.arange(CLASSES), VIDEOS)
    assert shared_videos_interval(correct, query, support, labels) == shared_videos_interval(correct, query, support,
                                                                                             labels)


def test_the_interval_over_videos_draws_them_within_each_class():
    """One class is always right and one always wrong, whichever videos stand for them: another draw of videos of each
    class would change nothing. A draw that mixes the classes would."""
    correct, query = np.tile([True, False], (4, 1)), np.array([[0, 4], [1, 5], [2, 6], [3, 7]])
    support = np.roll(query, 1, axis=0)
    assert shared_videos_interval(correct, query, support, np.repeat([0, 1], 4)) == (0.5, 0.5)
    low, high = shared_videos_interval(correct, query, support, np.zeros(8, int))
    assert low < 0.4 and high > 0.6


def test_a_tie_goes_to_the_first_way_and_a_broken_score_is_wrong():
    """argmax takes a NaN for the largest score: a query whose own class has it must not pass as right."""
    rows = [([1.0, 2.0], 1, True), ([1.0, 2.0], 0, False), ([3.0, 3.0], 0, True), ([3.0, 3.0], 1, False),
            ([math.nan, 1.0], 0, False), ([1.0, math.nan], 1, False), ([math.nan, 1.0], 1, False),
            ([1.0, math.inf], 1, False)]
    scores, labels, expected = zip(*rows, strict=True)
    assert correct_queries(torch.tensor(scores), torch.tensor(labels)).tolist() == list(expected)


def test_probabilities_of_each_kind_of_score():
    odds = np.log([[1.0, 3.0], [4.0, 1.0]])
    for kind in ("distance", "logits"):
        assert probabilities(odds, kind) == pytest.approx(np.array([[0.25, 0.75], [0.8, 0.2]]))
    weights = np.array([[2.0, 1.0, 1.0], [0.0, 0.1, 0.1]], np.float32)
    assert probabilities(weights, "probabilities") == pytest.approx(np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]))
    for wrong in ([0.5, -0.1], [0.0, 0.0]):
        with pytest.raises(ResultsError, match="expected probabilities, up to a factor, found scores from"):
            probabilities(np.array([wrong]), "probabilities")


def test_wilson():
    low, high = wilson(8, 10)  # Wilson 1927, worked out by hand
    assert (low, high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1


def test_calibration_error():
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    right = np.array([True, True, True, False])
    assert calibration_error(sure, right) == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)
    assert calibration_error(sure * math.nan, right) is None
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([True])) == 0


def test_the_calibration_error_has_15_bins():
    def error(wrong: float, right: float) -> float | None:
        return calibration_error(np.array([[wrong, 1 - wrong], [right, 1 - right]]), np.array([False, True]))

    assert error(0.92, 0.93) == pytest.approx((0.92 - 0.07) / 2)  # both lie in 13/15..14/15, so the gaps cancel
    assert error(0.92, 0.94) == pytest.approx((0.92 + 0.06) / 2)  # 0.94 lies in the last bin
    assert error(0.94, 1.0) == pytest.approx(0.94 / 2)  # which takes in 1


def test_confusion_and_mcnemar():
    assert confusion(np.array([[0, 1], [1, 2]]), np.array([[0, 2], [1, 2]]), 3).tolist() == [
        [1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert exact_mcnemar(0, 0) == 1 and exact_mcnemar(1, 7) == pytest.approx(2 * 9 / 2**8)


def test_mean_interval():
    mean, half = mean_interval([0.0, 1.0, 1.0, 1.0])
    assert mean == 0.75 and half == pytest.approx(3.182446 * 0.25)  # Student's t with 3 degrees of freedom
    assert mean_interval([0.5]) == (0.5, 1.0) and mean_interval([0.0, 1.0]) == (0.5, 1.0)
    assert mean_interval([0.0, 1.0] * 5000)[1] == pytest.approx(1.96 * 0.005, rel=1e-3)
    with pytest.raises(ValueError, match="at least one episode"):
        mean_interval([])
