"""Examples: costs and path are those of the alignment; parts that do not fit together are refused."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from models.heads.clip_fsar import ClipFsar
from models.layers.alignment import otam_distance
from runs.reporting.examples import Example, WayExample, alignment_path, make_example, pixels
from utils.errors import ReportError


def _every_path(rows: int, columns: int):
    """Every path of OTAM through the real cells, from the recursion of alignment/otam.py, walked backwards.

    Cells are (row, padded column); columns 0 and columns + 1 are padding. Paths end at the last row's last column.
    """
    def walk(row, column):
        if column == 0:
            yield []
            return
        if row == 0:
            before = [(0, column - 1)]
        else:
            before = [(row - 1, column - 1), (row, column - 1)]
            if column in (1, columns + 1):
                before.append((row - 1, column))
        for cell in before:
            for path in walk(*cell):
                yield [*path, (row, column)]

    for path in walk(rows - 1, columns + 1):
        yield [(row, column - 1) for row, column in path if 1 <= column <= columns]


def _visits(costs: np.ndarray, smoothing: float) -> np.ndarray:
    """Visiting probabilities by listing all paths with weight exp(-cost / smoothing)."""
    visits, total = np.zeros_like(costs), 0.0
    for path in _every_path(*costs.shape):
        weight = math.exp(-sum(costs[cell] for cell in path) / smoothing)
        total += weight
        for cell in path:
            visits[cell] += weight
    return visits / total


def _parts(way: int = 3, shot: int = 2, frames: int = 4, **changes) -> dict:
    generator = torch.Generator().manual_seed(0)
    pictures = np.random.default_rng(0).integers(0, 256, (way * shot + 1, frames, 6, 8, 3), dtype=np.uint8)
    labels = np.tile(np.arange(way), shot)
    return {"query_TD": torch.randn(frames, 16, generator=generator),
            "prototypes_KTD": torch.randn(way, frames, 16, generator=generator), "distance": otam_distance,
            "class_names": [f"class {k}" for k in range(way)], "true_label": 1, "query_frames_THWC": pictures[0],
            "support_frames_NTHWC": pictures[1:], "support_labels_N": labels, "episode": 7,
            "query_video": "a/b.mp4", **changes}


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (2, 5), (1, 4), (4, 1)])
def test_the_path_is_the_share_of_all_alignments_through_a_cell(shape, smoothing):
    costs = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))) * 2
    found = alignment_path(costs, partial(otam_distance, smoothing=smoothing)).numpy()
    for k in range(2):
        np.testing.assert_allclose(found[k], _visits(costs[k].numpy(), smoothing), atol=1e-12)


def test_an_example_shows_what_the_head_scored():
    parts = _parts(distance=partial(otam_distance, smoothing=0.3))
    head = ClipFsar(backbone=torch.nn.Identity(), modulator=torch.nn.Identity(), text_features={},
                    distance=parts["distance"])
    with torch.inference_mode():  # evaluation runs in it
        scored = head.distances(parts["query_TD"][None], parts["prototypes_KTD"])[0]
        found = make_example(**parts)
    assert [way.distance for way in found.ways] == scored.tolist()
    assert [way.probability for way in found.ways] == pytest.approx((-scored).softmax(0).tolist())
    assert found.predicted_class == f"class {scored.argmin()}" and found.true_class == "class 1"
    assert found.right == (int(scored.argmin()) == 1)
    for label, way in enumerate(found.ways):
        np.testing.assert_allclose(way.path_TT, _visits(way.costs_TT.astype(float), 0.3), atol=1e-9)
        assert way.path_TT[:, 1:].sum(axis=0) == pytest.approx(np.ones(3))  # each later support frame meets one
        np.testing.assert_array_equal(way.support_frames_STHWC, parts["support_frames_NTHWC"][[label, label + 3]])


def test_a_fused_scoring_brings_its_own_probabilities():
    found = make_example(**_parts(probabilities_K=torch.tensor([0.2, 0.1, 0.7])))
    assert found.predicted_class == "class 2" and found.way("class 2").probability == pytest.approx(0.7)


def test_pixels_undo_the_normalisation():
    frames = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    normal = (torch.tensor(frames).permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1))
    np.testing.assert_array_equal(pixels(normal / torch.tensor(std).view(3, 1, 1), mean, std), frames)


@pytest.mark.parametrize(("change", "message"), [
    ({"true_label": 3}, "true label 3"),
    ({"class_names": ["a", "b"]}, "2 class names, 3 prototypes"),
    ({"class_names": ["a", "a", "b"]}, "ways of different names"),
    ({"support_labels_N": [0, 1, 2]}, "3 labels of 6 supports"),
    ({"support_labels_N": [0, 1, 1, 0, 1, 1]}, r"class 'class 2': expected frames"),
    ({"distance": lambda costs: costs.sum(dim=(-1, -2))}, "takes single_direction"),
    ({"query_frames_THWC": np.zeros((4, 6, 8, 3))}, "expected frames of uint8"),
    ({"query_frames_THWC": np.zeros((5, 6, 8, 3), np.uint8)}, "5 query frames, but costs of 4"),
    ({"probabilities_K": torch.tensor([0.5, 0.1, 0.1])}, "sum to 1"),
])
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ReportError, match=message):
        make_example(**_parts(**change))


@pytest.mark.parametrize(("change", "message"), [
    ({"distance": math.nan}, "finite distance"), ({"probability": 1.1}, "probability from 0 to 1"),
    ({"costs_TT": None}, "of the shape of its costs"), ({"path_TT": np.ones((4, 3))}, "of the shape of its costs"),
    ({"path_TT": np.full((4, 4), 2.0)}, "visiting probabilities from 0 to 1"),
    ({"costs_TT": np.full((4, 4), np.nan)}, "finite numbers"),
    ({"costs_TT": np.ones((4, 5)), "path_TT": None}, "costs of 5 support frames"),
    ({"support_frames_STHWC": np.zeros((4, 6, 8, 3), np.uint8)}, r"\[S, T, H, W, 3\]"),
])
def test_a_way_checks_itself(change, message):
    with pytest.raises(ReportError, match=message):
        replace(make_example(**_parts()).ways[0], **change)


@pytest.mark.parametrize(("change", "message"), [
    ({"true_class": "x"}, "'x' is none of its ways"), ({"ways": ()}, "two or more ways"),
])
def test_an_example_checks_itself(change, message):
    with pytest.raises(ReportError, match=message):
        replace(make_example(**_parts()), **change)


def test_the_predicted_class_is_the_most_probable():
    found = make_example(**_parts())
    other = next(way.class_name for way in found.ways if way.class_name != found.predicted_class)
    with pytest.raises(ReportError, match="not the most probable"):
        replace(found, predicted_class=other)


def test_a_method_without_alignment_has_no_maps():
    frames = np.zeros((1, 4, 6, 8, 3), np.uint8)
    ways = tuple(WayExample(name, frames, 1.0, 0.5) for name in "ab")
    assert Example(0, "v", "a", "b", frames[0], ways).right is False
