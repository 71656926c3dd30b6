"""Every way a configuration can be wrong, and what the user is told."""

import shutil

import pytest

from utils.config import layers, load_config
from utils.config.class_names import pool_names
from utils.config.layers import REPOSITORY
from utils.errors import ConfigError

HMDB = REPOSITORY / "configs" / "projects" / "CLIPFSAR" / "hmdb51" / "CLIPFSAR_HMDB51_1shot_v1.yaml"


def problems_of(path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value.problems


@pytest.fixture
def project(tmp_path):
    """Writes a project file on top of a published one."""
    def write(text: str):
        path = tmp_path / "mine.yaml"
        path.write_text(f"_BASE: {HMDB}\n{text}", encoding="utf-8")
        return path
    return write


@pytest.mark.parametrize(("key", "text", "message"), [
    ("TRAIN.SHTO", "5", "unknown key; did you mean TRAIN.SHOT?"),
    ("TRIAN.SHOT", "5", "unknown key; did you mean TRAIN.SHOT?"),
    ("train.shot", "5", "unknown key; did you mean TRAIN.SHOT?"),
    ("TRAIN.NUM_INPUT_FRAMES", "5", "unknown key; did you mean DATA.NUM_INPUT_FRAMES?"),
    ("SHOT", "5", "unknown key; did you mean TRAIN.SHOT?"),
    ("TRAIN.NUM_FODLS", "5", "unknown key; did you mean TRAIN.NUM_FOLDS?"),
    ("MODEL.EMA", "5", "expected a section (with ENABLE, DECAY, ...), found 5"),
    ("QQQ.WWW", "5", "unknown key; configs/pool/base.yaml lists every key"),
    ("TRAIN", "5", "expected a section (with ENABLE, DATASET, DATASET_FEW, ...), found 5"),
    ("TRAIN.SHOT", "{A: 5}", "expected integer, found a section (with A)"),
    ("TRAIN.SHOT", "x", "expected integer, found 'x'"),
    ("TRAIN.SHOT", "1.5", "expected integer, found 1.5"),
    ("TRAIN.SHOT", "true", "expected integer, found true"),
    ("TRAIN.SHOT", "null", "expected integer, found null"),
    ("TRAIN.SHOT", "0", "expected 1 or more, found 0"),
    ("TRAIN.SHOT_TEST", "x", "expected integer or null, found 'x'"),
    ("TEST.ENABLE", "1", "expected true or false, found 1"),
    ("SOLVER.BASE_LR", "fast", "expected number, found 'fast'"),
    ("SOLVER.BASE_LR", "-1e-5", "expected 0 or more, found -1e-05"),
    ("SOLVER.BASE_LR", ".nan", "expected a finite number, found nan"),
    ("SOLVER.BASE_LR", "inf", "expected a finite number, found 'inf'"),
    ("SOLVER.STEPS", "4", "expected list of numbers, found 4"),
    ("DATA.TEST_SCALE", "big", "expected integer or list of integers, found 'big'"),
    ("OUTPUT_DIR", "null", "expected text, found null"),
    ("TEST.CLASS_NAME", "[a, on, b]", "expected list of texts or null, found true as item 2; put it in quotes"),
    ("TEST.CLASS_NAME", "[a", "not valid YAML: "),
    ("TRAIN.NUM_TRAIN_TASKS", "2024-02-31", "not valid YAML: "),
    ("PROTOCOL", "clear", "expected upstream or clean, found 'clear'; did you mean clean?"),
    ("PROTOCOL", "null", "expected text, found null"),
    ("TRAIN.EVAL_SPLIT", "train", "expected val or test, found 'train'"),
    ("DATA.CLASSES", "hmbd51", "no class file 'hmbd51'; did you mean hmdb51?"),
    ("DATA.CLASSES", "zzz", f"no class file 'zzz'; known: {', '.join(pool_names())}, or a path to a .yaml file"),
    ("DATA.CLASSES", "no/such.yaml", "no such file: no/such.yaml or "),
    ("SOLVER.STEPS", "[0, 4]", "2 steps, but SOLVER.LRS has 3 factors; each step needs one"),
    ("SOLVER.LRS", "[1, 0.1, -0.1]", "expected 0 or more, found [1.0, 0.1, -0.1]"),
    ("SOLVER.STEPS", "[0, 6, 4]", "expected increasing steps, found [0.0, 6.0, 4.0]"),
    ("SOLVER.STEPS", "[1, 4, 6]", "expected 0 as the first step, found [1.0, 4.0, 6.0]"),
    ("DATA.TRAIN_CROP_SIZE", "300", "a crop of 300 pixels does not fit into DATA.TRAIN_JITTER_SCALES 256 x 256"),
    ("DATA.TEST_CROP_SIZE", "300", "a crop of 300 pixels does not fit into DATA.TEST_SCALE 256 x 256"),
    ("DATA.TRAIN_JITTER_SCALES", "[256]", "expected a list of 2 numbers, found [256]"),
    ("DATA.TEST_SCALE", "[1, 2, 3]", "expected a list of 2 numbers, found [1, 2, 3]"),
    ("DATA.MEAN", "[0.5]", "expected a list of 3 numbers, found [0.5]"),
    ("DATA.STD", "[0.5, 0, 0.5]", "expected more than 0, found [0.5, 0.0, 0.5]"),
    ("AUGMENTATION.HUE", "0.6", "expected 0.5 or less, found 0.6"),
    ("AUGMENTATION.GRAYSCALE", "1.5", "expected 1 or less, found 1.5"),
    ("AUGMENTATION.RANDOM_ERASING.PROB", "2", "expected 1 or less, found 2"),
    ("AUGMENTATION.RANDOM_ERASING.AREA_RANGE", "[0.4, 0.3]", "expected the least share first, found [0.4, 0.3]"),
    ("AUGMENTATION.RANDOM_ERASING.MIN_ASPECT", "3", "expected 1 or less, found 3"),
    ("TEST.PROMPT", "a photo", "expected a sentence with {} where the class name goes, found 'a photo'"),
    ("TEST.PROMPT", "a {name}", "expected a sentence with {} where the class name goes, found 'a {name}'"),
    *(("TEST.PROMPT", text, "expected a sentence with {} where the class name goes, found ") for text in (
        "a {:.1}", "{0[0]}", "{:>1000000000}", "{0} {0.__class__}", "{!r}", "{} {}")),
    ("TEST.PROMPT", '"\\0 {}"', "expected text, found '\\x00 {}', which holds a NUL or half a character"),
    ("TRAIN.BATCH_SIZE", "99999999999", "expected 10000 or less, found 99999999999"),
    ("TEST.ENABLE", "false", "false has no effect beside TRAIN.ENABLE true: a training ends with one test of its best"),
    ("TEST.PROMPT", "a {} {", "expected a sentence with {} where the class name goes, found 'a {} {'"),
    ("TEST.CLASS_NAME", "[a, b, c, d, e, a]", "class named twice: 'a'"),
    ("TRAIN.WAY_TEST", "11", "an episode takes 11 classes, TEST.CLASS_NAME has 10"),
    ("TRAIN.WAY", "40", "an episode takes 40 classes, TRAIN.CLASS_NAME has 31"),
    ("TRAIN.ENABLE", "false", "nothing to do: set TRAIN.ENABLE or TEST.ENABLE to true"),
    ("TRAIN.CLIP_GRAD_NORM", "0", "expected more than 0, found 0"),
])
def test_one_wrong_value(key, text, message):
    found = problems_of(HMDB, key, text)
    assert any(line.startswith(f"command line: {key}: {message}") for line in found), found


@pytest.mark.parametrize(("overrides", "message"), [
    (("SOLVER.LR_POLICY", "cosine", "SOLVER.MAX_EPOCH", "1"),
     "command line: SOLVER.MAX_EPOCH: expected more than SOLVER.WARMUP_EPOCHS (1), found 1"),
    (("OPTIMIZER.OPTIM_METHOD", "sgd", "OPTIMIZER.MOMENTUM", "0"), "Nesterov momentum needs OPTIMIZER.MOMENTUM over 0"),
    (("PROTOCOL", "clean", "SOLVER.MEAN", "[0.5, 0.5, 0.5]"), "expected SOLVER.MEAN and SOLVER.STD together"),
    (("TRAIN.SHOT", "5", "TRAIN.WAY"),
     "command line: TRAIN.WAY: expected KEY VALUE pairs, found 3 items, so the last has no value"),
    (("TRAIN.SHOT=5",), "command line: TRAIN.SHOT=5: expected KEY VALUE pairs, found 1 item, so it has no "
                        "value; write TRAIN.SHOT 5, without '='"),
])
def test_one_wrong_combination(overrides, message):
    [found] = problems_of(HMDB, *overrides)
    assert message in found


@pytest.mark.parametrize("overrides", [
    ("SOLVER.LR_POLICY", "cosine", "SOLVER.STEPS", "[0]"),
    ("DATA.CLASSES", "null", "TRAIN.ENABLE", "false", "TEST.ENABLE", "true", "TEST.CLASS_NAME", "[a, b, c, d, e]"),
    ("DATA.CLASSES", "null", "TRAIN.EVAL_SPLIT", "test", "TRAIN.CLASS_NAME", "[a, b, c, d, e]",
     "TEST.CLASS_NAME", "[f, g, h, i, j]"),
    ("OPTIMIZER.OPTIM_METHOD", "sgd"),
])
def test_possible_combinations(overrides):
    load_config(HMDB, overrides)


def test_all_problems_come_at_once_each_with_its_file(project):
    path = project("TRAIN:\n  SHTO: 5\n  WAY: two\nMIXUP:\n  ENABLE: true\nBN: 3\nSOLVER: {STEPS: [0, 4], LRS: [1]}\n")
    found = problems_of(path, "TRAIN.QUERY_PER_CLASS", "0", "DATA.TRAIN_CROP_SIZE", "300", "DATA.CLASSES", "nothing")
    assert found == [
        f"{path}: TRAIN.SHTO: unknown key; did you mean TRAIN.SHOT?",
        f"{path}: MIXUP: unknown section; did you mean AUGMENTATION.MIXUP?",
        f"{path}: BN: expected a section (with FREEZE, WEIGHT_DECAY, SYNC, ...), found 3",
        f"{path}: TRAIN.WAY: expected integer, found 'two'",
        "command line: TRAIN.QUERY_PER_CLASS: expected 1 or more, found 0",
        f"command line: DATA.CLASSES: no class file 'nothing'; known: {', '.join(pool_names())}, or a path to a .yaml "
        "file",
        f"{path}: SOLVER.STEPS: 2 steps, but SOLVER.LRS has 1 factors; each step needs one",
        "command line: DATA.TRAIN_CROP_SIZE: a crop of 300 pixels does not fit into DATA.TRAIN_JITTER_SCALES 256 x 256",
    ]
    with pytest.raises(ConfigError, match="8 problems in the configuration:\n  - "):
        load_config(path, ["TRAIN.QUERY_PER_CLASS", "0", "DATA.TRAIN_CROP_SIZE", "300", "DATA.CLASSES", "nothing"])


@pytest.mark.parametrize(("text", "message"), [
    ("OUTPUT_DIR: a\nOUTPUT_DIR: b\n", "not valid YAML: key 'OUTPUT_DIR' written twice"),
    ("TRAIN:\n  SHOT: 1\n  WAY: 5\n  SHOT: 5\n", "not valid YAML: key 'SHOT' written twice"),
    ("TRAIN: [\n", "not valid YAML: "),
    ("? [a]\n: 1\n", "not valid YAML: "),
    ("TRAIN.SHOT: 5\n", "TRAIN.SHOT: unknown key; in a file a key stands indented under its section: TRAIN: SHOT"),
    ("TRAIN.NUM_FOLDS: 5\n", "TRAIN.NUM_FOLDS: unknown key; in a file a key stands indented under its section: TRAIN"),
    ("OUTPUT_DIR: 5\n", "OUTPUT_DIR: expected text, found 5"),
    ("5: 5\n", "5: unknown key; "),
    ("_BASE_RUN: 5\n", "_BASE_RUN: expected a file name, found 5"),
    ("_BASE_MODEL: no.yaml\n", "_BASE_MODEL: no such file: "),
])
def test_wrong_files(project, text, message):
    path = project(text)
    [found] = problems_of(path)
    assert found.startswith(f"{path}: {message}")


def test_a_file_that_is_no_mapping_or_is_missing(tmp_path):
    path = tmp_path / "mine.yaml"
    assert problems_of(path) == [f"{path}: no such file"]
    assert "expected a file, found a directory" in problems_of(tmp_path)[0]
    path.write_text("- TRAIN\n", encoding="utf-8")
    assert problems_of(path) == [f"{path}: expected sections and keys, found a list"]
    path.write_bytes(b"OUTPUT_DIR: \xff\n")
    assert "cannot be read" in problems_of(path)[0]


def test_a_circle_of_bases(tmp_path):
    (tmp_path / "a.yaml").write_text("_BASE: b.yaml\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("_BASE: a.yaml\n", encoding="utf-8")
    assert problems_of(tmp_path / "a.yaml") == [
        f"{tmp_path / 'a.yaml'}: _BASE goes in a circle: a.yaml -> b.yaml -> a.yaml"]


@pytest.mark.parametrize(("text", "message"), [
    ("a: {train: [x]}\nb: {train: [y]}\n",
     "expected one data set with the lists train, val and test, found 2 entries (a, b)"),
    ("a: [x, y]\n", "expected one data set with the lists train, val and test, found 1 entries (a)"),
    ("a: {training: [x]}\n", "training: expected train, val or test"),
    ("a: {train: x}\n", "train: expected a list of class names, found 'x'"),
    ("a: {train: [x, 5, on]}\n", "train: class 1 is 5, not text; put it in quotes"),
])
def test_wrong_class_files(project, tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    path = project("DATA: {CLASSES: own.yaml}\n")
    assert problems_of(path)[0] == f"{tmp_path / 'own.yaml'}: {message}"


def test_a_foreign_base_file_in_place_of_ours_is_one_problem(tmp_path, monkeypatch):
    shutil.copytree(REPOSITORY / "configs" / "pool", tmp_path / "pool")
    (tmp_path / "pool" / "base.yaml").write_text("TRAIN:\n  ENABLE: true\n  UNHEARD_OF: 3\nOTHER:\n  A: 1\n",
                                                 encoding="utf-8")
    monkeypatch.setattr(layers, "POOL", tmp_path / "pool")
    [found] = problems_of(HMDB)
    assert "base.yaml: sets no default for" in found
    assert "must be this project's own file" in found
    assert "git checkout configs/pool/base.yaml" in found


def test_a_wrong_default_is_reported(tmp_path, monkeypatch):
    shutil.copytree(REPOSITORY / "configs" / "pool", tmp_path / "pool")
    base = tmp_path / "pool" / "base.yaml"
    base.write_text(base.read_text(encoding="utf-8").replace("  WAY: 5", "  WAY: five"), encoding="utf-8")
    monkeypatch.setattr(layers, "POOL", tmp_path / "pool")
    assert problems_of(HMDB) == [f"{base}: TRAIN.WAY: expected integer, found 'five'"]
