"""What --print-config shows, and what run.json records."""

import json

import pytest
import yaml

from utils.config import resolve_config
from utils.config.layers import REPOSITORY
from utils.config.show import describe_notes, format_config, to_dict

PROJECTS = REPOSITORY / "configs" / "projects"
HMDB = PROJECTS / "CLIPFSAR" / "hmdb51" / "CLIPFSAR_HMDB51_1shot_v1.yaml"


@pytest.mark.parametrize("overrides", [
    (), ("SOLVER.BASE_LR", "1e-7"), ("OUTPUT_DIR", "a: 'b' # \"c\""), ("OUTPUT_DIR", "two\nlines\u2028"),
    ("OUTPUT_DIR", "ünï \U0001f600"), ("OUTPUT_DIR", "'null'"), ("OUTPUT_DIR", "1e-3"), ("OUTPUT_DIR", "'x '"),
    ("TEST.CLASS_NAME", "['yes', '5', 'a, b', '[c]', ': d']"),
    ("TEST.PROMPT", "{}"),
])
def test_the_text_loads_back(overrides):
    resolved = resolve_config(HMDB, overrides)
    assert yaml.safe_load(format_config(resolved)) == to_dict(resolved.config)


def test_every_project_file_loads_back():
    for path in sorted(PROJECTS.rglob("*.yaml")):
        resolved = resolve_config(path)
        assert yaml.safe_load(format_config(resolved)) == to_dict(resolved.config)


def test_the_text_is_itself_a_project_file(tmp_path):
    resolved = resolve_config(HMDB, ["TRAIN.SHOT", "5", "PROTOCOL", "clean"])
    path = tmp_path / "shown.yaml"
    path.write_text(format_config(resolved), encoding="utf-8")
    assert resolve_config(path).config == resolved.config


def test_each_line_names_its_layer():
    lines = format_config(resolve_config(HMDB, ["TRAIN.SHOT", "3"])).splitlines()
    assert "  SHOT: 3   # command line" in lines
    assert not any("NUM_FOLDS" in line for line in lines)  # nothing reads it
    assert "  VAL_FRE_ITER: 300   # configs/projects/CLIPFSAR/hmdb51/CLIPFSAR_HMDB51_1shot_v1.yaml" in lines
    assert lines[0] == "PROTOCOL: upstream   # configs/pool/base.yaml"


def test_to_dict_survives_json():
    values = to_dict(resolve_config(HMDB).config)
    assert json.loads(json.dumps(values)) == values
    assert isinstance(values["TRAIN"]["CLASS_NAME"], list)


def test_notes_in_words():
    assert describe_notes(resolve_config(HMDB)) == ""
    told = describe_notes(resolve_config(HMDB, ["TRAIN.NUM_FOLDS", "3", "PRETRAIN.ENABLE", "true",
                                                "MODEL.VARIANT", "x"]))
    assert told == (
        "note: command line: TRAIN.NUM_FOLDS: 3 has no effect: the few-shot loop of the published code never reads it\n"
        "ignored, used by other tasks of the public project only: PRETRAIN, MODEL.VARIANT\n")


def test_precision_without_effect_is_told():
    told = describe_notes(resolve_config(HMDB, ["TRAIN.PRECISION", "tf32", "NUM_GPUS", "0"]))
    assert "TRAIN.PRECISION: tf32 has no effect on a CPU (NUM_GPUS 0): it computes in float32" in told
    assert "PRECISION" not in describe_notes(resolve_config(HMDB, ["TRAIN.PRECISION", "tf32", "NUM_GPUS", "1"]))
