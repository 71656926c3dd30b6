"""What a test leaves behind, two tests against each other, and several seeds together."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from runs.evaluation import paired as compare
from runs.evaluation.predictions import FILE, read_predictions, scores_of, scorings_of
from runs.session.session import run
from tests.conftest import called
from utils.config import resolve_config
from utils.errors import ConfigError, ResultsError

pytestmark = pytest.mark.slow

main = called("compare")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_videos, write_tiny_project):
    """Directory and results of: a run, the same tested with other training, the same with other episodes."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for name, pairs in (("a", []), ("b", ["RANDOM_SEED", "3"]), ("other", ["TEST.EPISODE_SEED", "1"]),
                        ("shots", ["TRAIN.SHOT_TEST", "2"])):
        project = write_tiny_project(root, tiny_videos, name, NUM_TRAIN_TASKS=2, NUM_TEST_TASKS=30)
        found[name] = root / name, run(resolve_config(project, pairs))
    return found


def test_results_hold_three_rows_and_what_they_mean(runs):
    directory, results = runs["a"]
    assert results == json.loads((directory / "results.json").read_text())
    assert set(results["scorings"]) == {"prototypes", "fused", "text"} and results["scoring"] == "prototypes"
    for row in results["scorings"].values():
        low, high = row["interval95_videos"]
        assert 0 <= low <= row["accuracy"] <= high <= 1 and 0 <= row["ece"] <= 1
    assert results["accuracy"] == results["scorings"]["prototypes"]["accuracy"]
    assert results["temporal_draws"] == 4 and results["episode_seed"] == 0 and results["seed"] == 0
    assert set(results["lists"]) == {"train", "val", "test"} and results["list_id"].startswith("custom-")
    assert results["data_set"] == "custom" and results["method"] == "CLIP-FSAR"
    for row in results["per_class"].values():
        assert row["wilson95"][0] <= row["accuracy"] <= row["wilson95"][1]
    counts = pd.read_csv(directory / "confusion.csv", index_col=0)
    assert counts.to_numpy().sum() == 90 and list(counts.columns) == list(counts.index)
    worst = results["top_confusions"][0]
    assert counts.loc[worst["true"], worst["predicted"]] == worst["count"] and 0 < worst["rate"] <= 1


def test_predictions_give_the_results_again(runs):
    directory, results = runs["a"]
    table, facts = read_predictions(directory / FILE)
    assert len(table) == 90 and facts["episodes_sha256"] == results["episodes_sha256"]
    assert (table["predicted_class"] == table["true_class"]).mean() == pytest.approx(results["accuracy"])
    first = table.iloc[0]
    assert first["true_class"] in first["classes"] and len(first["share_text"]) == 3
    assert first["predicted_class"] == first["classes"][np.argmin(first["distance_prototypes"])]
    older = table.rename(columns={f"{prefix}_{name}": f"logits_{name}" for prefix, name in (
        ("distance", "prototypes"), ("share", "fused"), ("share", "text"))})
    older["logits_prototypes"] = -older["logits_prototypes"]
    assert scorings_of(table) == scorings_of(older) == ["prototypes", "fused", "text"]
    for name in ("prototypes", "fused", "text"):
        np.testing.assert_array_equal(scores_of(table, name), scores_of(older, name))
    assert scores_of(table, "cosine") is None
    assert first["query_video"].startswith("videos/")


def test_two_tests_of_the_same_episodes(runs, capsys):
    (a, results_a), (b, results_b) = runs["a"], runs["b"]
    found = compare.compare(a, b)
    assert found.difference == pytest.approx(results_b["accuracy"] - results_a["accuracy"])
    assert (found.episodes, found.queries) == (30, 90) and found.interval > 0
    assert (found.only_b - found.only_a) / 90 == pytest.approx(found.difference)
    assert compare.compare(b, a).difference == pytest.approx(-found.difference)
    assert main([str(a), str(b), "--scoring", "text"]) == 0
    text = capsys.readouterr().out
    assert "Both: inductive; class texts: names; tower from random weights" in text
    assert "95 % interval over 30 paired episodes, 90 queries" in text and "McNemar's exact test" in text


def test_a_run_against_itself_is_equal(runs):
    found = compare.compare(runs["a"][0], runs["a"][0])
    assert (found.difference, found.interval, found.only_a, found.only_b, found.p) == (0, 0, 0, 0, 1)
    assert compare.in_words(found, runs["a"][0], runs["a"][0]).endswith("No class moved.\n")


def test_what_two_methods_rest_on_is_told(runs):
    a, b = runs["a"][0], runs["b"][0]
    other = replace(compare.compare(a, b), rests_on_b="transductive: queries; reads no text; tower from random weights")
    text = compare.in_words(other, a, b)
    assert "A is inductive; class texts: names; tower from random weights\nB is transductive: queries" in text
    assert "One of the two is transductive: the difference is not one between methods of the same kind." in text
    assert "B is not recorded\nClasses" in compare.in_words(replace(other, rests_on_b=""), a, b)


def test_other_episodes_are_refused(runs, capsys, tmp_path):
    for other in ("other", "shots"):
        with pytest.raises(ResultsError, match="expected two tests of the same episodes, found"):
            compare.compare(runs["a"][0], runs[other][0])
    assert main([str(runs["a"][0]), str(tmp_path)]) == 1
    assert f"{tmp_path / FILE}: no such file" in capsys.readouterr().err
    (tmp_path / FILE).write_bytes(b"PAR1 and no more")
    with pytest.raises(ResultsError, match="expected the predictions of a test, found a file that cannot be read"):
        compare.compare(runs["a"][0], tmp_path)


def test_several_seeds_are_run_and_joined(tiny_project, capsys):
    project = tiny_project("seeds", NUM_TRAIN_TASKS=2)
    assert called("run")(["--cfg", str(project), "RANDOM_SEEDS", "[1, 2]"]) == 0
    out = project.parent / "seeds"
    joint = json.loads((out / "results.json").read_text())
    each = [json.loads((out / f"seed_{seed}" / "results.json").read_text()) for seed in (1, 2)]
    assert joint["per_seed"] == [one["accuracy"] for one in each] and joint["seeds"] == [1, 2]
    assert joint["accuracy"] == pytest.approx(np.mean(joint["per_seed"]))
    assert joint["spread"] == pytest.approx(np.std(joint["per_seed"], ddof=1))
    assert [one["seed"] for one in each] == [1, 2]
    assert each[0]["episodes_sha256"] == each[1]["episodes_sha256"] == joint["episodes_sha256"]
    assert "sample standard deviation over 2 seeds" in capsys.readouterr().out
    for wrong, text in (("[1]", "expected two or more different seeds"), ("[1, 1]", "expected two or more different")):
        with pytest.raises(ConfigError, match=text):
            resolve_config(project, ["RANDOM_SEEDS", wrong])
    with pytest.raises(ConfigError, match="a checkpoint has one seed"):
        resolve_config(project, ["RANDOM_SEEDS", "[1, 2]", "TRAIN.ENABLE", "false", "TEST.ENABLE", "true",
                                 "TEST.CHECKPOINT_FILE_PATH", "x.pyth"])
