"""Examples: what a head scored, and how it says that frames meet; parts that do not fit together are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.heads.base import Alignment
from runs.reporting.examples import Example, QueryPictures, WayExample, make_example, pixels
from utils.errors import ReportError

LABELS = np.tile(np.arange(3), 2)


def _example(scores=(-3.0, -1.0, -2.0), kind="distance", true_label=1, names=("class 0", "class 1", "class 2"),
             **changes) -> Example:
    """Three ways of two supports and four frames each; `changes` are of its pictures and of its alignment."""
    drawn = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 8, 3), dtype=np.uint8)
    costs = changes.pop("costs", torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)))
    alignment = None if costs is None else Alignment(costs, changes.pop("path", costs.softmax(dim=-1)))
    pictures = QueryPictures(**{"query_frames_THWC": drawn[0], "support_frames_NTHWC": drawn[1:],
                                "support_labels_N": LABELS, "episode": 7, "query_video": "a/b.mp4", **changes})
    return make_example(pictures, names, true_label, np.array(scores, np.float32), kind, alignment)


def test_an_example_shows_what_was_scored():
    found = _example()
    assert [way.value for way in found.ways] == [3.0, 1.0, 2.0] and found.measure == "distance"
    shares = np.exp([-3, -1, -2]) / np.exp([-3, -1, -2]).sum()
    assert [way.probability for way in found.ways] == pytest.approx(shares.tolist())
    assert (found.predicted_class, found.true_class, found.right) == ("class 1", "class 1", True)
    drawn = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 8, 3), dtype=np.uint8)
    for label, way in enumerate(found.ways):
        np.testing.assert_array_equal(way.support_frames_STHWC, drawn[1:][[label, label + 3]])
        assert way.costs_TT.shape == way.path_TT.shape == (4, 4)


@pytest.mark.parametrize(("kind", "scores", "values", "shares", "measure"), [
    ("probabilities", (0.2, 0.1, 0.5), [0.2, 0.1, 0.5], [0.25, 0.125, 0.625], "score"),
    ("logits", (1.0, 1.0, 2.0), [1.0, 1.0, 2.0], [0.2119, 0.2119, 0.5761], "logit"),
])
def test_the_kind_of_a_scoring_decides_what_is_shown(kind, scores, values, shares, measure):
    found = _example(scores, kind)
    assert [way.value for way in found.ways] == pytest.approx(values) and found.measure == measure
    assert [way.probability for way in found.ways] == pytest.approx(shares, abs=1e-4)
    assert found.predicted_class == "class 2" and not found.right


def test_pixels_undo_the_normalisation():
    frames = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    normal = (torch.tensor(frames).permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1))
    np.testing.assert_array_equal(pixels(normal / torch.tensor(std).view(3, 1, 1), mean, std), frames)


@pytest.mark.parametrize(("change", "message"), [
    ({"true_label": 3}, "true label 3"),
    ({"names": ["a", "b"]}, "2 class names, 3 scores"),
    ({"names": ["a", "a", "b"]}, "ways of different names"),
    ({"support_labels_N": [0, 1, 2]}, "3 labels of 6 supports"),
    ({"support_labels_N": [0, 1, 1, 0, 1, 1]}, r"class 'class 2': expected frames"),
    ({"query_frames_THWC": np.zeros((4, 6, 8, 3))}, "expected frames of uint8"),
    ({"query_frames_THWC": np.zeros((5, 6, 8, 3), np.uint8)}, "5 query frames, but costs of 4"),
])
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ReportError, match=message):
        _example(**change)


@pytest.mark.parametrize(("change", "message"), [
    ({"value": math.nan}, "finite value"), ({"probability": 1.1}, "probability from 0 to 1"),
    ({"costs_TT": None}, "of the shape of its costs"), ({"path_TT": np.ones((4, 3))}, "of the shape of its costs"),
    ({"path_TT": np.full((4, 4), 2.0)}, "visiting probabilities from 0 to 1"),
    ({"costs_TT": np.full((4, 4), np.nan)}, "finite numbers"),
    ({"costs_TT": np.ones((4, 5)), "path_TT": None}, "costs of 5 support frames"),
    ({"support_frames_STHWC": np.zeros((4, 6, 8, 3), np.uint8)}, r"\[S, T, H, W, 3\]"),
])
def test_a_way_checks_itself(change, message):
    with pytest.raises(ReportError, match=message):
        replace(_example().ways[0], **change)


@pytest.mark.parametrize(("change", "message"), [
    ({"true_class": "x"}, "'x' is none of its ways"), ({"ways": ()}, "two or more ways"),
    ({"predicted_class": "class 0"}, "not the most probable"),
])
def test_an_example_checks_itself(change, message):
    with pytest.raises(ReportError, match=message):
        replace(_example(), **change)


def test_probabilities_that_do_not_sum_to_one_are_refused():
    found = _example()
    with pytest.raises(ReportError, match="sum to 1"):
        replace(found, ways=(replace(found.ways[0], probability=0.5), *found.ways[1:]))


def test_a_method_without_alignment_has_no_maps():
    found = _example(costs=None)
    assert all(way.costs_TT is None and way.path_TT is None for way in found.ways)
    frames = np.zeros((1, 4, 6, 8, 3), np.uint8)
    ways = tuple(WayExample(name, frames, 1.0, 0.5) for name in "ab")
    assert Example(0, "v", "a", "b", frames[0], ways).right is False
