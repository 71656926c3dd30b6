"""Settings on real clips, where they are at hand: a published one on 150 clips of Something-Something V2, methods
trained on words of a sign language, and frozen ImageNet features on actions."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, called, run_command

pytestmark = pytest.mark.slow

TOY = Path(REPOSITORY).parent / "shared" / "ssv2_toy"
CLIPS = Path(REPOSITORY).parent / "shared" / "real_clips"
PROJECTS = REPOSITORY / "configs" / "projects" / "real_clips"


def results_of(directory: Path) -> dict:
    """The results.json of a run."""
    return json.loads((directory / "results.json").read_text())


@pytest.mark.shared("ssv2_toy")
def test_published_setting_on_real_clips(tmp_path):
    done = run_command(
        "--cfg", "configs/projects/CLIPFSAR/ssv2_full/CLIPFSAR_SSv2_Full_1shot_v1.yaml",
        "DATA.DATA_ROOT_DIR", TOY / "frames", "DATA.ANNO_DIR", TOY / "lists", "OUTPUT_DIR", tmp_path / "out",
        "NUM_GPUS", "0", "VIDEO.HEAD.BACKBONE_WEIGHTS", "random", "TRAIN.NUM_TRAIN_TASKS", "2",
        "TRAIN.NUM_VAL_TASKS", "1", "TRAIN.NUM_TEST_TASKS", "1", "TRAIN.VAL_FRE_ITER", "2", "TRAIN.WAY", "2",
        "TRAIN.WAY_TEST", "5", "TRAIN.QUERY_PER_CLASS", "1", "DATA_LOADER.NUM_WORKERS", "1")
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "out")
    assert results["episodes"] == 1 and set(results["per_class"]) == {
        "Approaching [something] with your camera", "Digging [something] out of [something]",
        "Dropping [something] next to [something]", "Dropping [something] onto [something]",
        "Failing to put [something] into [something] because [something] does not fit"}
    assert (tmp_path / "out" / "checkpoints" / "checkpoint_epoch_00001.pyth").is_file()


@pytest.mark.shared("real_clips")
def test_methods_trained_on_signs_end_in_a_leaderboard(tmp_path, capsys, monkeypatch):
    """An easy set: both clips of a word show one signer in the same clothes. Chance is 20 %."""
    monkeypatch.chdir(REPOSITORY)  # the towers' files are named from there
    names = ("OTAM_PSL80_1shot", "HyRSM_PSL80_1shot")
    assert called("sweep")([
        *(part for name in names for part in ("--cfg", PROJECTS / "psl80" / f"{name}.yaml")), "--out", tmp_path,
        "--jobs", "2", "DATA.DATA_ROOT_DIR", CLIPS / "psl80" / "clips", "DATA.ANNO_DIR", CLIPS / "psl80" / "lists",
        "TRAIN.NUM_TRAIN_TASKS", "12", "TRAIN.VAL_FRE_ITER", "12", "SOLVER.STEPS_ITER", "3",
        "TRAIN.NUM_VAL_TASKS", "20", "TRAIN.NUM_TEST_TASKS", "100", "DATA_LOADER.NUM_WORKERS", "1"]) == 0
    text = (tmp_path / "leaderboard.md").read_text()
    assert "psl80, 5-way 1-shot, inductive; 100 test episodes, protocol clean:" in text
    assert text in capsys.readouterr().out
    assert [results_of(tmp_path / name)["accuracy"] > 0.4 for name in names] == [True, True]


@pytest.mark.shared("real_clips")
def test_frozen_imagenet_features_tell_actions_apart(tmp_path):
    """Measured on 600 episodes: 78.5 % by mean prototypes; random weights give about 31 %."""
    (tmp_path / "lists").mkdir()
    shutil.copyfile(CLIPS / "weizmann10" / "lists" / "all_few_shot.txt", tmp_path / "lists" / "test_few_shot.txt")
    done = run_command(
        "--cfg", PROJECTS / "frozen" / "Frozen_Weizmann10_5shot.yaml", "DATA.ANNO_DIR", tmp_path / "lists",
        "DATA.DATA_ROOT_DIR", CLIPS / "weizmann10" / "frames", "OUTPUT_DIR", tmp_path / "out",
        "VIDEO.HEAD.BACKBONE_WEIGHTS", next((CLIPS / "mobilenet_v2_imagenet").glob("*.pt")),
        "TRAIN.NUM_TEST_TASKS", "100")
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "out")
    assert (results["data_set"], results["pretraining"]) == ("weizmann10", "ImageNet classification")
    assert results["accuracy"] > 0.7 and results["scorings"]["linear_probe"]["accuracy"] > 0.7
