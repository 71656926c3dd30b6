"""Thresholds, temperatures, and every sentence about what an answer is worth."""

import numpy as np
import pytest
from scipy import special

from runs.own.calibration import (
    AS_USUAL,
    HeldOut,
    Wishes,
    balanced_threshold,
    better_than_guessing,
    calibrate,
    clips_needed,
    conformal_threshold,
    fitted_temperature,
    leave_one_out_words,
    threshold_words,
)
from utils.errors import OwnClipsError

NOBODY = np.zeros(0)


def held_out(own, ways: int = 3) -> HeldOut:
    """Clips at these distances from their own action, action 0, and far from the others."""
    distances = np.full((len(own), ways), 99.0)
    distances[:, 0] = own
    return HeldOut(distances, np.zeros(len(own), int), np.arange(len(own)))


@pytest.mark.parametrize("clips, keep, rank", [(8, 0.9, None), (9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (20, 0.9, 19),
                                               (3, 0.8, None), (4, 0.8, 4), (9, 0.8, 8), (1, 0.5, 1)])
def test_the_threshold_is_the_rank_by_hand(clips, keep, rank):
    own = np.random.default_rng(clips).permutation(np.arange(1.0, clips + 1))
    assert conformal_threshold(own, keep) == rank
    assert (clips >= clips_needed(keep)) == (rank is not None)


def test_ties_are_kept():
    assert conformal_threshold(np.array([2.0] * 5 + [1.0] * 4), 0.9) == 2.0


def test_it_keeps_what_it_promises():
    """Over draws of clips of one kind; 19 clips: rank 18 of 20 places, 90 %."""
    rng, draws = np.random.default_rng(1), 2000
    kept = sum(rng.normal() <= conformal_threshold(rng.normal(size=19), 0.9) for _ in range(draws)) / draws
    assert abs(kept - 0.9) < 3.5 * np.sqrt(0.9 * 0.1 / draws)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(true):
    rng = np.random.default_rng(2)
    distances = rng.uniform(0, 8 * true, (4000, 4))
    chances = special.softmax(-distances / true, axis=1)
    labels = (rng.random(4000)[:, None] > chances.cumsum(axis=1)).sum(axis=1)
    found = fitted_temperature(HeldOut(distances, labels, np.arange(4000)))
    assert found == pytest.approx(true, rel=0.15)
    assert fitted_temperature(HeldOut(distances[:9], labels[:9], np.arange(9))) is None


def test_few_clips_place_no_threshold_and_say_why():
    found = calibrate(held_out([1.0, 2.0, 3.0, 4.0]), NOBODY, AS_USUAL, 0.9)
    assert (found.kind, found.threshold, found.temperature) == ("none", None, None)
    assert found.reason == ("4 clips of actions with at least two are too few for a threshold that keeps 90 %: 9 are "
                            "needed, or --keep 0.8")
    assert threshold_words(found, "x/none/") == f"No answer is 'unknown': {found.reason}."
    assert calibrate(held_out([1.0, 2.0, 3.0, 4.0]), NOBODY, Wishes(keep=0.8), 0.9).threshold == 4.0
    reference = calibrate(held_out([1.0]), NOBODY, AS_USUAL, 0.9, of_checkpoint=7.0)
    assert (reference.kind, reference.threshold) == ("checkpoint", 7.0)
    assert "as far as your videos are like those" in threshold_words(reference, "x/none/")
    given = calibrate(held_out([1.0]), NOBODY, Wishes(threshold=0.5), 0.9)
    assert (given.kind, given.threshold, given.kept) == ("given", 0.5, (0, 1))


def test_what_is_said_of_foreign_clips_is_counted():
    own = held_out(np.arange(10.0))
    found = calibrate(own, np.array([3.0, 20.0, 30.0, 8.5]), AS_USUAL, 0.9)
    assert found.threshold == 9.0 and found.none_accepted == (2, 4)
    assert "Of 4 clips of none, 2 would have been taken for an action (50 %, 95 % interval 15 to 85 %)." in \
        threshold_words(found, "x/none/")
    silent = threshold_words(calibrate(own, NOBODY, AS_USUAL, 0.9), "x/none/")
    assert silent.endswith("How many foreign clips get in is not known: put some into x/none/.")
    assert "(10 of 10 here are nearer)" in silent


def test_a_balance_takes_twenty_clips():
    own, foreign = held_out(np.arange(20.0)), np.arange(10.0, 30.0)
    with pytest.raises(OwnClipsError, match=r"--balance: expected at least 20 clips of none.*found 19"):
        calibrate(own, foreign[:19], Wishes(balance=True), 0.9)
    found = calibrate(own, foreign, Wishes(balance=True), 0.9)
    lost, accepted = 1 - found.kept[0] / 20, found.none_accepted[0] / 20
    assert abs(lost - accepted) <= 0.05 and found.threshold == balanced_threshold(own.own_n, foreign)


@pytest.mark.parametrize("right, total, ways, better", [(2, 10, 5, False), (4, 10, 5, False), (5, 10, 5, True),
                                                        (25, 25, 5, True), (0, 0, 5, False)])
def test_guessing_is_told_apart(right, total, ways, better):
    assert better_than_guessing(right, total, ways) is better
    if total:
        assert leave_one_out_words(right, total, ways).endswith("no better than guessing.") is not better


def test_leave_one_out_in_words():
    assert leave_one_out_words(19, 23, 5) == (
        "Leave one out: 19 of 23 right (83 %, 95 % interval 63 to 93 %, each with one clip fewer than you have); "
        "guessing gets 20 %.")
    assert "no action has two clips" in leave_one_out_words(0, 0, 5)
    assert "one action" in leave_one_out_words(3, 3, 1)


@pytest.mark.parametrize("wrong", [{"keep": 0.0}, {"keep": 1.0}, {"keep": float("nan")}, {"threshold": float("inf")}])
def test_wishes_that_nobody_can_meet(wrong):
    with pytest.raises(OwnClipsError, match=f"--{next(iter(wrong))}: expected"):
        Wishes(**wrong)
