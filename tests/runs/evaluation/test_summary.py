"""What a test writes: the same for any number of workers, never over another test, and honest about what is broken."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from runs.evaluation.evaluate import Evaluator
from runs.evaluation.paired import compare
from runs.evaluation.score_checkpoint import _pretraining
from runs.evaluation.summary import top_confusions
from runs.session.session import run
from tests.conftest import called
from utils import checkpoint
from utils.config import resolve_config
from utils.errors import NonFiniteLossError

pytestmark = pytest.mark.slow

TEST_ONLY = ["TRAIN.ENABLE", "false", "TEST.ENABLE", "true"]


@pytest.fixture
def trained(tiny_project):
    """(project file, its OUTPUT_DIR, results)."""
    project = tiny_project("trained", NUM_TRAIN_TASKS=2, NUM_TEST_TASKS=8)
    return project, project.parent / "trained", run(resolve_config(project))


def test_results_are_the_same_bytes_for_any_number_of_workers(trained):
    project, out, _ = trained
    first = (out / "results.json").read_bytes()
    for workers in ("2", "1"):
        run(resolve_config(project, [*TEST_ONLY, "DATA_LOADER.NUM_WORKERS", workers]))
        assert (out / "results.json").read_bytes() == first


def test_another_test_gets_a_directory_of_its_own(trained, capsys):
    project, out, results = trained
    kept = {name: (out / name).read_bytes() for name in ("results.json", "run.json", "predictions.parquet")}
    other = run(resolve_config(project, [*TEST_ONLY, "TRAIN.SHOT_TEST", "2"]))
    text = run(resolve_config(project, ["TRAIN.EVAL_TEXT", "true"]))  # a finished training: a test, too
    assert {name: (out / name).read_bytes() for name in kept} == kept
    assert (other["shot"], text["scoring"], results["shot"]) == (2, "text", 1)
    places = sorted((out / "tests").iterdir())
    assert [place.name.rsplit("_", 1)[0] for place in places] == ["3way_1shot_checkpoint_best",
                                                                 "3way_2shot_checkpoint_best"]
    for place, expected in zip(places, (text, other), strict=True):
        assert json.loads((place / "results.json").read_text()) == expected
        assert {"run.json", "report.html", "predictions.parquet"} <= {p.name for p in place.iterdir()}
        assert f"Written to {place}/results.json" in capsys.readouterr().out or place == places[1]


def test_results_say_what_the_method_rests_on(trained):
    """A tower that a test builds from other weights than training does has the pretraining of neither."""
    project, out, results = trained
    assert (results["transductive"], results["texts"], results["pretraining"]) == (False, "names", "random")
    told = ["VIDEO.HEAD.PRETRAINING", "Kinetics-400 labels"]
    assert run(resolve_config(project, [*TEST_ONLY, *told]))["pretraining"] == "Kinetics-400 labels"
    assert json.loads((out / "run.json").read_text())["trained_parameters"] > 0
    free = run(resolve_config(project, [*TEST_ONLY, "VIDEO.HEAD.NAME", "FROZEN", "OUTPUT_DIR", str(out / "free")]))
    assert (free["selected_on"], free["texts"], free["pretraining"]) == ("nothing", None, "random")
    assert _pretraining(resolve_config(project).config, SimpleNamespace(pretraining="random"), {
        "cfg": json.dumps({"VIDEO": {"HEAD": {"BACKBONE_WEIGHTS": "openai"}}})}) == (
            "not known (training began from openai)")


def test_a_run_that_goes_on_replaces_its_own_results(trained):
    project, out, results = trained
    longer = run(resolve_config(project, ["TRAIN.NUM_TRAIN_TASKS", "4"]))
    assert json.loads((out / "results.json").read_text()) == longer
    assert (results["trained_to"], longer["trained_to"]) == (2, 4)


def test_a_broken_model_gets_no_accuracy(trained, capsys):
    project, out, _ = trained
    state = checkpoint.read(out / "checkpoints" / "checkpoint_best.pyth")
    state["model_state"] = {name: value * torch.nan if value.is_floating_point() else value
                            for name, value in state["model_state"].items()}
    path = out / "nan.pyth"
    checkpoint.atomic_save(state, path)
    pairs = [*TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH", str(path)]
    for stored in ("true", "false"):
        with pytest.raises(NonFiniteLossError, match="test: 24 of 24 queries have scores that are no numbers: the"):
            run(resolve_config(project, [*pairs, "TEST.FEATURE_STORE", stored]))
    found = run(resolve_config(project, [*pairs, "TRAIN.ON_NONFINITE", "skip"]))
    assert found["accuracy"] == 0 and found["nonfinite_queries"] == 24 and found["scorings"]["fused"]["ece"] is None
    assert "24 queries have scores that are no numbers and count as wrong." in capsys.readouterr().out


def test_a_query_without_a_finite_score_is_wrong_everywhere(trained, monkeypatch, capsys):
    """NaN for the true class, which NumPy's argmax takes for the best, in 1 of 24 queries; explain() is broken, too."""
    project, out, before = trained
    spoilt, original = [], Evaluator._evaluation

    def spoil(evaluator, model, scores, *rest):
        evaluation = original(evaluator, model, scores, *rest)
        query = int(evaluation.correct()[0].argmax())
        for values in scores.values():
            values[0, query, evaluation.labels_EM[0, query]] = np.nan
        spoilt.append(query)
        return original(evaluator, model, scores, *rest)

    monkeypatch.setattr(Evaluator, "_evaluation", spoil)
    monkeypatch.setattr("models.heads.base.Head.explain", lambda *_: 1 / 0)
    monkeypatch.setattr("models.heads.clip_fsar.ClipFsar.explain", lambda *_: 1 / 0)
    found = run(resolve_config(project, [*TEST_ONLY, "TRAIN.ON_NONFINITE", "skip", "TEST.PROMPT", "a {}"]))
    place = next((out / "tests").iterdir())
    table = pd.read_parquet(place / "predictions.parquet")
    row = table[(table["episode"] == 0) & (table["query"] == spoilt[0])].iloc[0]
    assert found["nonfinite_queries"] == 1 and pd.isna(row["predicted_class"])
    right = (table["predicted_class"] == table["true_class"]).sum()
    assert found["accuracy"] == pytest.approx(right / 24)
    counts = pd.read_csv(place / "confusion.csv", index_col=0)
    assert counts.loc[row["true_class"], "no finite score"] == 1 and counts.to_numpy().sum() == 24
    assert np.trace(counts.to_numpy()) == right == sum(one["correct"] for one in found["per_class"].values())
    assert compare(place, place).accuracy_a == pytest.approx(right / 24)
    page = (place / "report.html").read_text()
    assert "queries without a finite score, all wrong" in page and "No examples were recorded." in page
    assert "report.html has no examples, as they could not be made: division by zero" in capsys.readouterr().err
    assert "no finite score" not in (out / "confusion.csv").read_text()


def test_the_last_lines_say_what_was_scored(trained, capsys):
    project, _, _ = trained
    capsys.readouterr()
    run(resolve_config(project, [*TEST_ONLY, "TRAIN.COMBINE", "true"]))
    told = capsys.readouterr().out
    assert "Scored by prototypes fused with text; all scorings: prototypes " in told and "text only " in told
    assert "as episodes share videos" in told and "test list custom-" in told


def test_a_checkpoint_of_the_published_layout(trained, capsys, tmp_path):
    """epoch, model_state, optimizer_state and cfg alone: tested, tabled, and honest about what it does not say."""
    project, out, results = trained
    state = checkpoint.read(out / "checkpoints" / "checkpoint_best.pyth")
    path = tmp_path / "checkpoint_epoch_00001.pyth"
    checkpoint.atomic_save({key: state[key] for key in ("epoch", "model_state", "optimizer_state", "cfg")}, path)
    found = run(resolve_config(project, [*TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH", str(path), "OUTPUT_DIR",
                                         str(tmp_path / "foreign"), "TRAIN.WAT_TEST", "3"]))
    assert found["accuracy"] == results["accuracy"] and found["selected_on"] == "not recorded in the checkpoint"
    assert f"checkpoint {path} (it does not say how it was selected)" in capsys.readouterr().out
    assert called("table")([str(tmp_path / "foreign"), "--format", "markdown"]) == 0
    told = capsys.readouterr().out
    assert f"{100 * found['accuracy']:.1f}" in told and "not recorded in the checkpoint" in told


def test_a_confusion_is_a_share_of_the_queries_that_met_the_other_class():
    """Class a was a query beside b twice and beside c four times, and was once taken for each."""
    episodes = SimpleNamespace(true_EM=np.zeros((6, 1), int), classes_EK=np.array([[0, 1]] * 2 + [[0, 2]] * 4))
    assert top_confusions(episodes, np.array([[4, 1, 1], [0, 0, 0], [0, 0, 0]]), ["a", "b", "c"]) == [
        {"true": "a", "predicted": "b", "count": 1, "rate": 0.5},
        {"true": "a", "predicted": "c", "count": 1, "rate": 0.25}]
