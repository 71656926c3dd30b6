"""The report of a real test: its examples follow a rule, and show what was scored."""

import numpy as np
import pytest
import torch

from datasets.builder import build_split
from models.builder import build_model
from models.heads.base import Scoring
from runs.evaluation.evaluate import Evaluation, Evaluator
from runs.evaluation.explain import choose, explain
from runs.session.session import run
from utils.config import load_config, resolve_config

pytestmark = pytest.mark.slow


def _evaluation(right: list[list[bool]], classes: list[list[int]]) -> Evaluation:
    """Two ways; query q of an episode is of label q."""
    correct = np.array(right)
    labels = np.tile(np.arange(correct.shape[1]), (len(correct), 1))
    scores = np.zeros((*correct.shape, 2), np.float32)
    best = np.where(correct, labels, 1 - labels)
    np.put_along_axis(scores, best[..., None], 1.0, axis=-1)
    empty = np.zeros_like(labels)
    return Evaluation({"mine": scores}, {"mine": Scoring("mine", "mine", "logits")}, "mine", labels, np.array(classes),
                      empty, empty)


def test_the_first_right_and_wrong_queries_of_distinct_classes():
    found = _evaluation([[True, True], [True, False], [True, False], [True, True], [False, False]],
                        [[0, 1], [0, 2], [3, 2], [3, 4], [5, 6]])
    assert choose(found, 3) == [(0, 0), (0, 1), (2, 0), (1, 1), (4, 0), (4, 1)]
    found.scores["mine"][0, 0] = np.nan
    assert choose(found, 1) == [(0, 1), (1, 1)]  # no number: neither right nor shown


@pytest.mark.parametrize("pairs", [[], ["TRAIN.COMBINE", "true", "TRAIN.SHOT_TEST", "2"], ["TRAIN.EVAL_TEXT", "true"],
                                   ["TRAIN.SHOT_TEST", "2", "TRAIN.MERGE_BEFORE", "true"]])
def test_examples_have_the_scores_of_the_test(tiny_project, pairs):
    cfg = load_config(tiny_project(), pairs)
    torch.manual_seed(2)
    model = build_model(cfg)
    evaluator = Evaluator(cfg, build_split(cfg, "test"), torch.device("cpu"))
    evaluation = evaluator.run(model, "test")
    examples = explain(model, evaluator, evaluation)
    assert len(examples) == len(choose(evaluation)) > 0
    for (number, query), example in zip(choose(evaluation), examples, strict=True):
        spec = evaluator.specs[number]
        assert example.query_video == evaluator.split.records[spec.query_M[query]].path
        scores = evaluation.scores[evaluation.scoring][number, query]
        sign = -1 if evaluation.scorings[evaluation.scoring].kind == "distance" else 1
        np.testing.assert_allclose([way.value for way in example.ways], sign * scores, atol=1e-6)
        if evaluation.scoring == "prototypes":  # what is drawn is what was scored
            costs = torch.tensor(np.stack([way.costs_TT for way in example.ways]))
            np.testing.assert_allclose(-model.head.distance(costs), scores, atol=1e-4)
        assert example.right == evaluation.correct()[number, query]
        assert len(example.ways[0].support_frames_STHWC) == (cfg.TRAIN.SHOT_TEST or 1)
        assert example.query_frames_THWC.std() > 5  # a picture


def test_every_test_writes_its_report(tiny_project):
    project = tiny_project("reported", NUM_TRAIN_TASKS=2)
    found = run(resolve_config(project))
    page = (project.parent / "reported" / "report.html").read_text(encoding="utf-8")
    assert f"{found['accuracy']:.2%}" in page and "data:image/jpeg;base64" in page
    assert found["list_sha256"] in page and '<article class="example' in page
