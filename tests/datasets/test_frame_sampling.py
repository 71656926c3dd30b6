"""Frame indices: golden cases, and properties for any length, rate and T."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datasets.frame_sampling import FrameSampling, interval_indices, sample_frames, segment_indices

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "frame_sampling.json").read_text())
LENGTHS, FRAMES, RATES = st.integers(1, 2000), st.integers(1, 40), st.floats(1, 120)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_interval_sampling_at_test_is_the_published_one():
    wrong = {}
    for case in GOLDEN["cases"]:
        length, fps = case["num_frames_in_video"], case["fps"]
        rate = case.get("sampling_rate", GOLDEN["SAMPLING_RATE"])
        found = interval_indices(length, fps, GOLDEN["NUM_INPUT_FRAMES"], rate, GOLDEN["TARGET_FPS"], None,
                                 keep_tail=False)
        if found.tolist() != case["indices"]:
            wrong[length, fps, rate] = found.tolist()
    assert wrong == {} and len(GOLDEN["cases"]) == 148


@example(n=3, fps=1.0, T=2, rate=1, training=False, test="random", tail="keep", seed=0)  # less than a frame's interval
@given(n=LENGTHS, fps=RATES, T=FRAMES, rate=st.integers(1, 80), training=st.booleans(),
       test=st.sampled_from(["random", "center"]), tail=st.sampled_from(["drop", "keep"]), seed=st.integers(0, 99))
def test_any_setting_gives_T_frames_of_the_clip(n, fps, T, rate, training, test, tail, seed):
    sampling = FrameSampling(T, rate, 12, test, tail)
    found = sample_frames(n, fps, sampling, training=training, generator=rng(seed))
    assert found.shape == (T,) and found.dtype == np.int64
    assert found.min() >= 0 and found.max() < n
    assert (found == sample_frames(n, fps, sampling, training=training, generator=rng(seed))).all()
    if rate > 40 or tail == "keep":
        assert (np.diff(found) >= 0).all()


@given(n=LENGTHS, T=FRAMES, seed=st.integers(0, 99))
def test_random_segments_hold_one_frame_each(n, T, seed):
    found, length = segment_indices(n, T, rng(seed), center=False), n // T
    if length and T > 1:
        assert (found // length == np.arange(T)).all()
    elif T > 1:
        assert found.tolist() == [t * n // T for t in range(T)]


@given(n=LENGTHS, T=FRAMES)
def test_central_segments_cover_the_whole_clip(n, T):
    found = segment_indices(n, T, None, center=True)
    for t, index in enumerate(found):  # the middle of segment [t n/T, (t+1) n/T]
        assert abs(index + 0.5 - (t + 0.5) * n / T) <= 0.5


@pytest.mark.parametrize(("n", "T", "expected"), [
    (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]), (80, 8, [5, 15, 25, 35, 45, 55, 65, 75]), (8, 8, list(range(8))),
    (23, 8, [1, 4, 7, 10, 12, 15, 18, 21]), (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]), (1, 4, [0, 0, 0, 0]), (9, 1, [4]),
])
def test_central_segments(n, T, expected):
    assert segment_indices(n, T, None, center=True).tolist() == expected


def test_random_segments_reach_both_ends_of_a_segment_and_never_the_remainder():
    drawn = np.stack([segment_indices(23, 4, rng(i), center=False) for i in range(400)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [list(range(5 * t, 5 * t + 5)) for t in range(4)]


def test_published_interval_never_shows_its_last_frames_and_keep_does():
    dropped = interval_indices(200, 12, 8, 35, 12, None, keep_tail=False)
    kept = interval_indices(200, 12, 8, 35, 12, None, keep_tail=True)
    assert dropped[-1] == 165  # (200 // 8) * 8 frames, half a frame late, less 35
    assert (kept[0], kept[-1]) == (0, 199)
    assert interval_indices(203, 12, 8, 35, 12, None, keep_tail=True)[-1] == 202


def test_kept_interval_shorter_than_the_clip_lies_in_its_middle():
    found = interval_indices(101, 12, 5, 5, 12, None, keep_tail=True)  # L = 25, from frame 38 to 62
    assert found.tolist() == [38, 44, 50, 56, 62]


def test_training_draws_where_the_interval_starts():
    starts = {int(interval_indices(300, 12, 8, 8, 12, rng(i), keep_tail=False)[0]) for i in range(300)}
    assert min(starts) < 12 and 225 < max(starts) <= 237  # U(0, 300 - 64 + 1)


def test_interval_needs_a_frame_rate_and_frames():
    for fps in (0.0, float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="interval sampling needs the video's frame rate, found"):
            interval_indices(30, fps, 8, 35, 12, None, keep_tail=False)
    with pytest.raises(ValueError, match="at least one frame to choose from and to choose, found 0 and 8"):
        segment_indices(0, 8, rng(), center=False)
    with pytest.raises(ValueError, match="random segment sampling needs a generator"):
        segment_indices(30, 8, None, center=False)


def test_one_frame_is_uniform_or_the_middle():
    random, center = FrameSampling(1, 35, 12, "random", "drop"), FrameSampling(1, 35, 12, "center", "drop")
    for training, sampling in ((True, center), (False, random)):
        drawn = {int(sample_frames(10, 12, sampling, training=training, generator=rng(i))[0]) for i in range(200)}
        assert drawn == set(range(10))
    assert random.drawn_in_test and not center.drawn_in_test
    middle = sample_frames(9, 12, center, training=False, generator=rng())
    assert middle.tolist() == [4]


def test_a_rate_of_40_is_still_an_interval_and_41_is_segments():
    at_40, at_41 = FrameSampling(2, 40, 12, "center", "keep"), FrameSampling(2, 41, 12, "center", "keep")
    found = [sample_frames(80, 12, one, training=False, generator=rng()).tolist() for one in (at_40, at_41)]
    assert found == [[0, 79], [20, 60]]  # both ends of an interval of 2 * 40 frames; the middles of two halves
    random = [FrameSampling(2, rate, 12, "random", "keep") for rate in (40, 41)]
    assert [one.drawn_in_test for one in random] == [False, True]


def test_protocols_at_test():
    def seen(frames: int, sampling: FrameSampling) -> set[tuple[int, ...]]:
        return {tuple(sample_frames(frames, 12, sampling, training=False, generator=rng(i))) for i in range(20)}

    random, center = FrameSampling(8, 50, 12, "random", "drop"), FrameSampling(8, 50, 12, "center", "drop")
    assert len(seen(80, random)) == 20 and seen(80, center) == {(5, 15, 25, 35, 45, 55, 65, 75)}
    interval = FrameSampling(8, 35, 12, "random", "drop")
    assert len(seen(300, interval)) == 1
    assert [one.drawn_in_test for one in (random, center, interval)] == [True, False, False]
