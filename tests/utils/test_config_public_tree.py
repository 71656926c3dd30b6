"""Project files of the public code's tree (or files shaped like them) load unchanged, to the same values."""

import json

import pytest
import yaml

from utils.config import load_config, resolve_config
from utils.config.layers import POOL, REPOSITORY
from utils.config.show import to_dict
from utils.errors import ConfigError

OURS = REPOSITORY / "configs" / "projects" / "CLIPFSAR" / "kinetics100" / "CLIPFSAR_K100_1shot_v1.yaml"
PUBLISHED = json.loads((REPOSITORY / "tests" / "golden" / "published_settings.json").read_text(encoding="utf-8"))
SETTINGS = PUBLISHED["CLIPFSAR_K100_1shot_v1"]

BASE = """
TASK_TYPE: classification
PRETRAIN:
  ENABLE: false
  GENERATOR: SomeGenerator
LOCALIZATION: {ENABLE: false, LOSS: None}
NEVER_HEARD_OF: {DEEP: {DEEPER: 1}}
TRAIN:
  ENABLE: true
  BATCH_SIZE: 32
  DATASET:
  LR_REDUCE: false
  A_KEY_OF_ANOTHER_METHOD: 3
  CHECKPOINT_PERIOD: 5
DATA:
  DATA_ROOT_DIR: /somewhere
  NUM_INPUT_CHANNELS: 3
  MEAN: [0.45, 0.45, 0.45]
  STD: [0.225, 0.225, 0.225]
  MULTI_LABEL: false
SOLVER:
  LR_POLICY: cosine
  OPTIM_METHOD: sgd
  OPTIM_METHOD: adam
AUGMENTATION:
  MIXUP: {ENABLE: true, ALPHA: 0.2, PROB: 0.9, MODE: elem, SWITCH_PROB: 0.1}
RANDOM_SEED: 0
NUM_GPUS: 1
"""
FINETUNE = """
TASK_TYPE: few_shot_action
PRETRAIN:
  ENABLE: false
TRAIN:
  ENABLE: true
  DATASET:
  FINE_TUNE: true
  NUM_FOLDS: 30
  LR_POLICY_OF_ANOTHER_METHOD: x
DATA:
  DATA_ROOT_DIR:
  ANNO_DIR:
  NUM_INPUT_CHANNELS: 2304
SOLVER:
  LR_POLICY: cosine
  MAX_EPOCH: 100
"""
BACKBONE = """
VIDEO:
  BACKBONE:
    META_ARCH: Identity
  HEAD:
    NAME: BaseTemporalClassifier
    NUM_CLASSES: 174
"""
METHOD = """
_BASE_RUN: ../../pool/run/training/finetune.yaml
_BASE_MODEL: ../../pool/backbone/localization-conv.yaml
TRAIN:
  WAT_TEST: 5
  A_KEY_OF_ANOTHER_METHOD: 4
VIDEO:
  BACKBONE: {META_ARCH: Identity}
"""


@pytest.fixture
def tree(tmp_path):
    """A tree of the public shape; returns its project file, which holds every published value."""
    files = {
        "pool/base.yaml": BASE, "pool/run/training/finetune.yaml": FINETUNE,
        "pool/backbone/localization-conv.yaml": BACKBONE, "projects/CLIPFSAR/OTAM_base.yaml": METHOD,
        "projects/CLIPFSAR/kinetics100/CLIPFSAR_K100_1shot_v1.yaml":
            yaml.safe_dump({"_BASE": "../OTAM_base.yaml", **SETTINGS}),
    }
    for name, text in files.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


def test_loads_to_the_same_values(tree):
    found, wanted = to_dict(load_config(tree)), to_dict(load_config(OURS))
    assert found["TRAIN"]["WAY_TEST"] == 5  # the published misspelling WAT_TEST
    for values in (found, wanted):
        del values["DATA"]["DATA_ROOT_DIR"], values["DATA"]["CLASSES"], values["TRAIN"]["WAY_TEST"]
    assert found == wanted


def test_what_only_other_tasks_use_is_named_once(tree):
    resolved = resolve_config(tree)
    assert set(resolved.ignored) == {
        "PRETRAIN", "LOCALIZATION", "NEVER_HEARD_OF", "TRAIN.LR_REDUCE", "TRAIN.A_KEY_OF_ANOTHER_METHOD",
        "TRAIN.CHECKPOINT_PERIOD", "TRAIN.LR_POLICY_OF_ANOTHER_METHOD", "DATA.NUM_INPUT_CHANNELS", "DATA.MULTI_LABEL",
        "VIDEO.BACKBONE"}
    assert len(set(resolved.ignored)) == len(resolved.ignored)


def test_notes_say_where_validation_classes_come_from(tree):
    resolved = resolve_config(tree)
    assert resolved.sources["TRAIN.VAL_CLASS_NAME"] == "configs/pool/classes/kinetics100.yaml"
    assert resolved.notes[0].startswith("TRAIN.VAL_CLASS_NAME: taken from configs/pool/classes/kinetics100.yaml")
    assert resolved.notes[1].endswith("key 'OPTIM_METHOD' written twice; the last one holds")
    assert len(resolved.notes) == 2


def test_protocol_lies_over_both_base_files(tree):
    base = tree.parents[3] / "pool" / "base.yaml"
    base.write_text((POOL / "base.yaml").read_text(encoding="utf-8"), encoding="utf-8")  # a copy of our own tree
    method = tree.parents[1] / "OTAM_base.yaml"
    method.write_text(METHOD.replace("  A_KEY_OF_ANOTHER_METHOD: 4\n", ""), encoding="utf-8")
    assert load_config(tree, ["PROTOCOL", "clean"]).SOLVER.PROGRESS == "single"


def test_without_the_backbone_file_that_its_own_settings_override(tree):
    wanted = load_config(tree)
    (tree.parents[3] / "pool" / "backbone" / "localization-conv.yaml").unlink()
    assert load_config(tree) == wanted


def test_without_the_base_file(tree):
    (tree.parents[3] / "pool" / "base.yaml").unlink()
    with pytest.raises(ConfigError, match="finetune.yaml: TRAIN.LR_POLICY_OF_ANOTHER_METHOD: unknown key"):
        load_config(tree)


def test_a_missing_run_file_is_named_with_the_file_that_asks_for_it(tree):
    run = tree.parents[3] / "pool" / "run" / "training" / "finetune.yaml"
    run.unlink()
    with pytest.raises(ConfigError, match=r"OTAM_base.yaml: _BASE_RUN: no such file: .*finetune.yaml"):
        load_config(tree)


def test_a_slip_in_a_project_file_is_still_an_error(tree):
    tree.write_text(tree.read_text(encoding="utf-8").replace("  SHOT: 1", "  SHTO: 1"), encoding="utf-8")
    with pytest.raises(ConfigError, match="TRAIN.SHTO: unknown key; did you mean TRAIN.SHOT?"):
        load_config(tree)
