"""The identity of a test: another one for whatever its numbers depend on, the same one for all else."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from runs.evaluation.score_checkpoint import identity_of_test as id_of
from runs.evaluation.score_checkpoint import results_dir
from tests.conftest import REPOSITORY
from utils.config import load_config

DEMO = REPOSITORY / "configs" / "projects" / "demo" / "CLIPFSAR_Demo_1shot.yaml"
BEST = Path("output/CLIPFSAR_Demo_1shot/checkpoints/checkpoint_best.pyth")


def identity(*overrides: str, path: Path = BEST, episodes: str = "e", listed: str = "l",
             cache: dict | None = None) -> str:
    """The id of a test of the demo with some settings of its own."""
    split = SimpleNamespace(list_hash=listed, pixels={"decoder": "decord", "frame_cache": cache})
    return id_of(load_config(DEMO, overrides), SimpleNamespace(split=split, episodes_hash=episodes), path)


@pytest.mark.parametrize(("key", "value"), [
    ("VIDEO.HEAD.ALIGNMENT", "bi_mhm"), ("VIDEO.HEAD.MODULATOR", "mamba"), ("VIDEO.HEAD.ENCODER", "image"),
    ("VIDEO.HEAD.SMOOTHING", "0.1"), ("VIDEO.HEAD.BACKBONE_NAME", "RN50"),
    ("VIDEO.HEAD.BACKBONE_WEIGHTS", "openai"), ("RANDOM_SEED", "1"),  # of random weights
    ("TEST.PROMPT", "{}"), ("TRAIN.EVAL_TEXT", "true"), ("TRAIN.COMBINE", "true"), ("TRAIN.MERGE_BEFORE", "true"),
    ("TRAIN.SINGLE_DIRECT", "true"), ("TRAIN.TRANSFORMER_DEPTH", "2"), ("TRAIN.SHOT_TEST", "2"),
    ("DATA.ON_BAD_VIDEO", "replace"), ("DATA.MEAN", "[0, 0, 0]"), ("TRAIN.DATASET_FEW", "ids"),
])
def test_two_tests_of_one_checkpoint_never_share_an_id_or_a_directory(tmp_path, key, value):
    first, second = identity(), identity(key, value)
    assert first != second
    (tmp_path / "results.json").write_text(json.dumps({"test_id": first}))
    assert results_dir(tmp_path, first, "x") == tmp_path != results_dir(tmp_path, second, "x")


@pytest.mark.parametrize("overrides", [
    ("DATA.DATA_ROOT_DIR", "/mnt/videos", "DATA.ANNO_DIR", "/lists", "LOG_PERIOD", "7"), ("DATA.DECODER", "pyav"),
    ("TRAIN.COMPILE", "true", "DATA_LOADER.NUM_WORKERS", "9", "TEST.ENCODE_BATCH", "3"),
    ("TRAIN.ENABLE", "false", "TEST.ENABLE", "true", "TEST.CHECKPOINT_FILE_PATH", str(BEST)),
    ("SOLVER.BASE_LR", "1", "TRAIN.NUM_TRAIN_TASKS", "9", "AUGMENTATION.COLOR_AUG", "true"),  # the checkpoint has them
    ("NUM_GPUS", "1"), ("TRAIN.DATASET_FEW", "HMDB_few_shot"), ("DATA.FRAME_CACHE", "/elsewhere"),
    ("TRAIN.NUM_FOLDS", "9"),
])
def test_speed_place_and_what_a_checkpoint_holds_leave_the_id(overrides):
    assert identity(*overrides) == identity()


def test_what_was_found_counts_too():
    found = [identity(), identity(episodes="f"), identity(listed="m"), identity(cache={"codec": "jpeg"}),
             identity(path=BEST.with_name("checkpoint_epoch_00003.pyth"))]
    assert len(set(found)) == len(found)


def test_a_run_may_be_moved():
    moved = Path("elsewhere/checkpoints/checkpoint_best.pyth")
    assert identity("OUTPUT_DIR", "elsewhere", path=moved) == identity() == identity(path=BEST.absolute())
    assert identity(path=moved) != identity()
