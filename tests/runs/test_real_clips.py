"""A published setting itself on 150 real Something-Something V2 clips, where they are at hand."""

import json
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, run_command

pytestmark = pytest.mark.slow

TOY = Path(REPOSITORY).parent / "shared" / "ssv2_toy"


@pytest.mark.shared("ssv2_toy")
def test_published_setting_on_real_clips(tmp_path):
    done = run_command(
        "--cfg", "configs/projects/CLIPFSAR/ssv2_full/CLIPFSAR_SSv2_Full_1shot_v1.yaml",
        "DATA.DATA_ROOT_DIR", TOY / "frames", "DATA.ANNO_DIR", TOY / "lists", "OUTPUT_DIR", tmp_path / "out",
        "NUM_GPUS", "0", "VIDEO.HEAD.BACKBONE_WEIGHTS", "random", "TRAIN.NUM_TRAIN_TASKS", "2",
        "TRAIN.NUM_VAL_TASKS", "1", "TRAIN.NUM_TEST_TASKS", "1", "TRAIN.VAL_FRE_ITER", "2", "TRAIN.WAY", "2",
        "TRAIN.WAY_TEST", "5", "TRAIN.QUERY_PER_CLASS", "1", "DATA_LOADER.NUM_WORKERS", "1")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["episodes"] == 1 and set(results["per_class"]) == {
        "Approaching [something] with your camera", "Digging [something] out of [something]",
        "Dropping [something] next to [something]", "Dropping [something] onto [something]",
        "Failing to put [something] into [something] because [something] does not fit"}
    assert (tmp_path / "out" / "checkpoints" / "checkpoint_epoch_00001.pyth").is_file()
