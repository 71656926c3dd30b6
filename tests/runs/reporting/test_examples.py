"""Examples: what a head scored, and how it says that frames meet; an alignment of other frames is refused."""

import re

import numpy as np
import pytest
import torch

from models.heads.base import Alignment
from runs.reporting.examples import Example, make_ways, pixels
from runs.reporting.report import page_template, view
from utils.errors import ReportError

NAMES = ("class 0", "class 1", "class 2")
SUPPORTS = list(np.random.default_rng(0).integers(0, 256, (3, 2, 4, 6, 8, 3), dtype=np.uint8))


def _example(scores=(-3.0, -1.0, -2.0), kind="distance", alignment=None) -> Example:
    """Three ways of two supports and four frames each; the query is of class 1."""
    return Example(7, "a/b.mp4", SUPPORTS[0][0], 1,
                   make_ways(NAMES, SUPPORTS, np.array(scores, np.float32), kind, alignment), "")


def _alignment(*shape: int) -> Alignment:
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return Alignment(costs, costs.softmax(dim=-1))


def test_an_example_shows_what_was_scored():
    alignment = _alignment(3, 4, 4)
    found = _example(alignment=alignment)
    assert [way.value for way in found.ways] == [3.0, 1.0, 2.0]
    shares = np.exp([-3, -1, -2]) / np.exp([-3, -1, -2]).sum()
    assert [way.probability for way in found.ways] == pytest.approx(shares.tolist())
    assert (found.predicted.class_name, found.true.class_name, found.right) == ("class 1", "class 1", True)
    for way, supports, costs, path in zip(found.ways, SUPPORTS, alignment.costs_KTT, alignment.path_KTT, strict=True):
        np.testing.assert_array_equal(way.support_frames_STHWC, supports)
        np.testing.assert_array_equal(way.costs_TT, costs)
        np.testing.assert_array_equal(way.path_TT, path)


@pytest.mark.parametrize(("kind", "scores", "values", "shares"), [
    ("probabilities", (0.2, 0.1, 0.5), [0.2, 0.1, 0.5], [0.25, 0.125, 0.625]),
    ("logits", (1.0, 1.0, 2.0), [1.0, 1.0, 2.0], [0.2119, 0.2119, 0.5761]),
])
def test_the_kind_of_a_scoring_decides_what_is_shown(kind, scores, values, shares):
    found = _example(scores, kind)
    assert [way.value for way in found.ways] == pytest.approx(values)
    assert [way.probability for way in found.ways] == pytest.approx(shares, abs=1e-4)
    assert found.predicted.class_name == "class 2" and not found.right


def test_pixels_undo_the_normalisation():
    frames = np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    normal = (torch.tensor(frames).permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1))
    np.testing.assert_array_equal(pixels(normal / torch.tensor(std).view(3, 1, 1), mean, std), frames)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 5, 4), (3, 4, 5)])
def test_an_alignment_of_other_ways_or_frames_is_refused(shape):
    expected = f"expected costs and a path of shape [3, 4, 4] from the head's explain(), found {list(shape)}"
    with pytest.raises(ReportError, match=re.escape(expected)):
        _example(alignment=_alignment(*shape))


def test_a_method_without_alignment_has_no_maps():
    assert all(way.costs_TT is None and way.path_TT is None for way in _example().ways)


TEMPLATE = """{% import "macros.html" as parts %}<h3>{{ item.example.query_video }}</h3>
{{ parts.evidence(item, "action", "actions", figures=False) }}"""


def test_another_page_shows_a_query_whose_class_nobody_knows():
    """Its two nearest classes with pictures and maps, the others folded, and no word of a true class."""
    ways = _example(alignment=_alignment(3, 4, 4)).ways
    query = Example(None, "my <clip>.mp4", SUPPORTS[0][0], None, ways, "distance")
    shown = view(query)
    assert [part["way"].class_name for part in shown["full"]] == ["class 1", "class 2"] and query.true is None
    assert [role for _, role in shown["ranked"]] == ["nearest", "", ""]
    page = page_template("macros.html").environment.from_string(TEMPLATE).render(item=shown)
    assert "my &lt;clip&gt;.mp4" in page and page.count('<svg role="img"') == 3 and ">action</th>" in page
    assert "The other 1 action<" in page and "true class" not in page
    assert not re.search(r"\d%</|, probability", page)  # bars without figures
    alone = view(Example(None, "a.mp4", SUPPORTS[0][0], None, ways[:1], "distance"))
    assert [part["way"].class_name for part in alone["full"]] == ["class 0"]
