"""The contract of a head (models/heads/base.py), held by every head that is registered."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.builder import FewShotModel
from models.heads import HEADS
from models.heads.base import FeatureBatch, Head
from runs.session.session import run
from tests.conftest import called
from tests.models.heads.small import OF_VIT, episode_of, head_of, texts
from utils.checkpoint import atomic_save, load_weights
from utils.config import resolve_config
from utils.episode import Episode
from utils.errors import ConfigError

compare, table = called("compare"), called("table")


@pytest.fixture(params=sorted(HEADS))
def head(request) -> Head:
    return head_of(request.param).eval()


def stored(head: Head, episodes: list[Episode]) -> FeatureBatch:
    """Episodes of one size as a feature store gives them: each clip encoded alone, put in its role alone."""
    text, batches = texts(head), []
    for one in episodes:
        parts = {}
        for role, clips, classes in (("support", one.support_NTCHW, one.support_classes_N),
                                     ("query", one.query_MTCHW, one.query_classes_M)):
            found = []
            for clip, own in zip(clips, classes, strict=True):
                kept = head.clip_features(head.encode(clip.unsqueeze(0)))
                own_text = text[own].unsqueeze(0) if role == "support" and text is not None else None
                found.append(head.in_role(kept, own_text, role))
            parts[role] = {name: torch.cat([f[name] for f in found]) for name in found[0]}
        order = one.support_labels_N.argsort(stable=True).view(one.way, -1)
        batches.append(({n: v[order] for n, v in parts["support"].items()}, parts["query"],
                        None if text is None else text[one.classes_K]))
    supports, queries, of_ways = zip(*batches, strict=True)
    return FeatureBatch({n: torch.stack([s[n] for s in supports]) for n in supports[0]},
                        {n: torch.stack([q[n] for q in queries]) for n in queries[0]},
                        None if text is None else torch.stack(of_ways))


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], hint: str = "") -> None:
    assert sorted(found) == sorted(expected)
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-10, msg=lambda text: f"{text}\n{hint}")


@torch.no_grad()
@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("queries", [(1, 1, 1), (2, 0, 3)])
def test_forward_equals_the_stores_path(head, shots, queries):
    if not head.episode_free:
        pytest.skip(f"{type(head).__name__} says episode_free = False: it is evaluated episode by episode")
    one = episode_of((shots,) * 3, queries)
    found = head(one, texts(head))
    close(dict(found.scores), {n: s[0] for n, s in head.match(stored(head, [one])).items()})
    torch.testing.assert_close(found.logits_MK, found.scores[head.headline])


@torch.no_grad()
def test_declared_scorings_are_what_comes(head):
    found = head(episode_of((2, 2, 2), (1, 1, 1)), texts(head)).scores
    assert sorted(found) == sorted(s.name for s in head.scorings) and head.headline in found
    for scoring in head.scorings:
        values = found[scoring.name]
        assert values.shape == (3, 3) and values.isfinite().all() and scoring.title
        assert scoring.kind in ("distance", "logits", "probabilities")
        assert scoring.kind != "probabilities" or (values >= 0).all()


@torch.no_grad()
def test_order_of_classes_and_of_queries_is_free(head):
    one = episode_of((2, 2, 2), (1, 2, 1))
    expected = head(one, texts(head)).scores
    ways, queries = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    label = ways.argsort()
    other = Episode(one.support_NTCHW, label[one.support_labels_N], one.support_classes_N, one.query_MTCHW[queries],
                    label[one.query_labels_M[queries]], one.query_classes_M[queries], one.classes_K[ways])
    close(dict(head(other, texts(head)).scores), {n: v[queries][:, ways] for n, v in expected.items()})


@torch.no_grad()
def test_what_fills_up_missing_supports_never_matters(head):
    one = episode_of((3, 1, 2), (1, 1, 1))
    batch = head.batch(one, texts(head))
    assert batch.given_BKS is not None and batch.given_BKS.sum() == 6
    expected = head.match(batch)
    spoilt = {n: torch.where(batch.given_BKS.reshape(*batch.given_BKS.shape, *[1] * (v.ndim - 3)), v,
                             torch.full_like(v, 7.5)) for n, v in batch.support.items()}
    close(head.match(replace(batch, support=spoilt)), expected,
          "match() used a shot that is not there: mask with batch.given_BKS, or average with batch.prototypes(name)")


@torch.no_grad()
def test_episodes_at_once_equal_episodes_one_by_one(head):
    episodes = [episode_of((2, 2, 2), (1, 1, 2), seed) for seed in range(4)]
    alone = [head(one, texts(head)).scores for one in episodes]
    together = [output.scores for output in head.outputs(episodes, texts(head))]
    for found, expected in zip(together, alone, strict=True):
        close(dict(found), dict(expected))
    if head.episode_free:
        scores = head.match(stored(head, episodes))
        close(scores, {n: torch.stack([one[n] for one in alone]) for n in scores})


@torch.no_grad()
def test_a_query_is_scored_alone_unless_the_head_says_otherwise(head):
    if head.transductive:
        pytest.skip(f"{type(head).__name__} says that it is transductive")
    one = episode_of((1, 1, 1), (1, 1, 1))
    alone = Episode(one.support_NTCHW, one.support_labels_N, one.support_classes_N, one.query_MTCHW[:1],
                    one.query_labels_M[:1], one.query_classes_M[:1], one.classes_K)
    close({n: v[:1] for n, v in head(one, texts(head)).scores.items()}, dict(head(alone, texts(head)).scores))


def test_every_trained_parameter_gets_a_gradient(head):
    head.train()
    one = episode_of((2, 2, 2), (2, 2, 2))
    output = next(head.outputs([one], texts(head)))
    losses = head.losses(output, one)
    assert losses and all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    parameters = {name: p for name, p in head.named_parameters() if p.requires_grad}
    without = {name for name, p in parameters.items() if p.grad is None or not p.grad.abs().sum()}
    assert without == head.untrained() & set(parameters)


def test_a_state_comes_back(head, tmp_path):
    path = tmp_path / "checkpoint_epoch_00001.pyth"
    atomic_save({"epoch": 1, "model_state": FewShotModel(head).state_dict()}, path)
    other = head_of(next(name for name in HEADS if HEADS[name] is type(head)), seed=1).eval()
    load_weights(FewShotModel(other), path)
    one = episode_of((1, 1, 1), (1, 1, 1))
    with torch.no_grad():
        close(dict(other(one, texts(other)).scores), dict(head(one, texts(head)).scores))


@torch.no_grad()
def test_an_alignment_is_finite_and_of_every_way(head):
    one = episode_of((2, 2, 2), (1, 0, 0))
    found = head.explain(head.batch(one, texts(head)))
    if found is not None:
        assert found.costs_KTT.shape == found.path_KTT.shape and len(found.costs_KTT) == 3
        assert found.costs_KTT.isfinite().all() and (found.path_KTT >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_run_with_results_report_table_and_comparison(name, tiny_project, tmp_path, capsys):
    project, kind, tower = tiny_project("run", NUM_TRAIN_TASKS=2, VAL_FRE_ITER=2), HEADS[name], []
    if kind.tower_output == "map":
        tower = ["VIDEO.HEAD.BACKBONE_NAME", "resnet18"]
    if name in OF_VIT:
        patches = json.loads((tmp_path / "tower.json").read_text())
        patches["vision_cfg"] |= {"patch_size": 4, "head_width": 16}
        (tmp_path / "tower.json").write_text(json.dumps(patches))
    found = run(resolve_config(project, ["VIDEO.HEAD.NAME", name, *tower]))
    assert found["method"] == kind.title and found["scoring"] in found["scorings"]
    assert all(row["kind"] in ("distance", "logits", "probabilities") and 0 <= row["ece"] <= 1
               for row in found["scorings"].values())
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == found
    assert found["scorings"][found["scoring"]]["title"] in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert table([str(tmp_path / "run")]) == 0 and kind.title in capsys.readouterr().out
    for scoring in found["scorings"]:
        assert compare([str(tmp_path / "run"), str(tmp_path / "run"), "--scoring", scoring]) == 0
    assert np.isfinite(found["accuracy"])


@pytest.mark.slow
def test_a_head_without_text_needs_no_class_names(tiny_project, tmp_path):
    """Classes then go by their index in the list."""
    null = [part for key in ("TRAIN.CLASS_NAME", "TRAIN.VAL_CLASS_NAME", "TEST.CLASS_NAME") for part in (key, "null")]
    project = tiny_project("nameless", NUM_TRAIN_TASKS=2, VAL_FRE_ITER=2)
    found = run(resolve_config(project, ["VIDEO.HEAD.NAME", "MEAN_POOL", *null]))
    assert set(found["per_class"]) <= {f"class {index}" for index in range(5)}
    with pytest.raises(ConfigError, match="TEST.CLASS_NAME: no class names: set it"):
        run(resolve_config(project, [*null, "OUTPUT_DIR", str(tmp_path / "other")]))


class Calibrated(HEADS["MEAN_POOL"]):
    """Mean pooling whose temperature comes from validation episodes."""

    calibrates = True

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.register_buffer("strength", torch.tensor(float("nan")))

    def match(self, batch):
        return {"cosine": super().match(batch)["cosine"] * self.strength}

    def calibrate(self, batches):
        right = [(super(Calibrated, self).match(batch)["cosine"].argmax(-1) == labels).double().mean()
                 for batch, labels in batches]
        self.strength.fill_(1 + float(sum(right) / len(right)))
        return {"strength": float(self.strength)}


@pytest.mark.slow
def test_a_head_that_calibrates_sees_validation_episodes_once_before_the_test(tiny_project, monkeypatch):
    monkeypatch.setitem(HEADS._entries, "MEAN_POOL", Calibrated)
    project = tiny_project("calibrated", NUM_TRAIN_TASKS=2, VAL_FRE_ITER=2, ON_NONFINITE="skip")
    found = run(resolve_config(project, ["VIDEO.HEAD.NAME", "MEAN_POOL"]))
    assert 1 <= found["calibration"]["strength"] <= 2 and found["nonfinite_queries"] == 0
