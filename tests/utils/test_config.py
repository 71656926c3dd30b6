"""Project files load, mean what was published, and obey protocols and KEY VALUE pairs."""

import json
from pathlib import Path

import pytest

from utils.config import Config, load_config, resolve_config
from utils.config.effects import flat
from utils.config.fields import keys_of
from utils.config.inert import inert_keys
from utils.config.layers import REPOSITORY
from utils.config.reading import OPTIONS, aliases
from utils.config.show import to_dict
from utils.errors import ConfigError

PROJECTS = REPOSITORY / "configs" / "projects"
CLIPFSAR = PROJECTS / "CLIPFSAR"
PUBLISHED = json.loads((REPOSITORY / "tests" / "golden" / "published_settings.json").read_text(encoding="utf-8"))
HMDB = CLIPFSAR / "hmdb51" / "CLIPFSAR_HMDB51_1shot_v1.yaml"
UCF_5SHOT = CLIPFSAR / "ucf101" / "CLIPFSAR_UCF101_5shot_v1.yaml"


def at(config: Config, dotted: str):
    """The value of a dotted key."""
    value = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def relative(path: Path) -> str:
    return str(path.relative_to(PROJECTS))


@pytest.mark.parametrize("path", sorted(PROJECTS.rglob("*.yaml")), ids=relative)
def test_every_project_file_loads(path):
    resolved = resolve_config(path)
    assert resolved.ignored == ()
    assert {key for key in resolved.sources if not key.startswith(OPTIONS)} == set(keys_of(Config))
    assert resolved.config.OUTPUT_DIR != load_config(HMDB).OUTPUT_DIR or path == HMDB


def test_no_two_project_files_write_to_the_same_place():
    places = [load_config(path).OUTPUT_DIR for path in sorted(PROJECTS.rglob("*.yaml"))]
    assert len(places) == len(set(places))


def test_there_are_ten_published_settings():
    assert len(PUBLISHED) == 10


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
    [path] = CLIPFSAR.glob(f"*/{name}.yaml")
    resolved, wanted = resolve_config(path), flat(PUBLISHED[name])
    wanted |= {"TRAIN.DATASET": "few_shot", "TEST.DATASET": "few_shot",  # the plain names of what was published
               "TRAIN.DATASET_FEW": "ids" if "SSv2" in name else "paths"}
    defaults = {key: found.default for key, found in inert_keys().items()}
    assert not [note for note in resolved.notes for key in defaults if f" {key}: " in note]  # none set otherwise
    found = flat(to_dict(resolved.config)) | defaults
    wanted = {aliases().get(key, key): value for key, value in wanted.items()}
    del wanted["DATA.DATA_ROOT_DIR"]  # a path of the authors' machines
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", PUBLISHED)
def test_vit_sibling_differs_in_backbone_and_output_only(name):
    [path] = CLIPFSAR.glob(f"*/{name}.yaml")
    resnet, vit = flat(to_dict(load_config(path))), flat(to_dict(load_config(path.with_stem(f"{name}_vitb16"))))
    assert {key for key in resnet if resnet[key] != vit[key]} == {"VIDEO.HEAD.BACKBONE_NAME", "OUTPUT_DIR"}
    assert vit["VIDEO.HEAD.BACKBONE_NAME"] == "ViT-B/16"


@pytest.mark.parametrize(("overrides", "quirky"), [
    ((), True), (("PROTOCOL", "upstream"), True), (("PROTOCOL", "clean"), False),
    (("PROTOCOL", "clean", "PROTOCOL", "upstream"), True),
])
def test_protocols(overrides, quirky):
    config = load_config(HMDB, overrides)
    found = (config.SOLVER.PROGRESS, config.SOLVER.WEIGHT_DECAY_FROM, config.DATA.TEST_SAMPLING,
             config.DATA.INTERVAL_TAIL, config.DATA.MEAN_FROM, config.VIDEO.HEAD.OPTIONS["COMBINE_FRAMES"])
    upstream = ("double", "OPTIMIZER", "random", "drop", "DATA", 8)
    assert found == (upstream if quirky else ("single", "SOLVER", "center", "keep", "SOLVER", None))


def test_the_protocol_of_a_project_file_lies_under_its_other_keys(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE: {HMDB}\nPROTOCOL: clean\nSOLVER:\n  PROGRESS: double\n", encoding="utf-8")
    resolved = resolve_config(path)
    assert (resolved.config.SOLVER.PROGRESS, resolved.config.DATA.TEST_SAMPLING) == ("double", "center")
    assert resolved.sources["DATA.TEST_SAMPLING"] == "configs/pool/protocol/clean.yaml"
    assert resolve_config(path, ["PROTOCOL", "upstream"]).config.DATA.TEST_SAMPLING == "random"


@pytest.mark.parametrize(("key", "text", "value"), [
    ("TRAIN.SHOT", "5", 5),
    ("TRAIN.SHOT", "5.0", 5),
    ("TEST.ENABLE", "true", True),
    ("SOLVER.BASE_LR", "1e-5", 1e-5),
    ("SOLVER.BASE_LR", "1e-3", 1e-3),
    ("SOLVER.BASE_LR", "2.E-6", 2e-6),
    ("SOLVER.BASE_LR", "1", 1.0),
    ("SOLVER.STEPS", "[0, 3.5, 6]", (0.0, 3.5, 6.0)),
    ("DATA.TRAIN_JITTER_SCALES", "[288, 352]", (288, 352)),
    ("DATA.TEST_SCALE", "288", 288),
    ("DATA.TEST_SCALE", "[288, 352]", (288, 352)),
    ("TEST.CLASS_NAME", "['a','b', c d, e, f]", ("a", "b", "c d", "e", "f")),
    ("TRAIN.SHOT_TEST", "null", None),
    ("TRAIN.SHOT_TEST", "5", 5),
    ("TRAIN.CLIP_GRAD_NORM", "40", 40.0),
    ("OUTPUT_DIR", "5", "5"),
    ("OUTPUT_DIR", "2024-01-01", "2024-01-01"),
    ("OUTPUT_DIR", "out: put #1", "out: put #1"),
    ("OUTPUT_DIR", "'null'", "null"),
    ("DATA.DATA_ROOT_DIR", "2024", "2024"),
    ("TEST.PROMPT", "{}", "{}"),
    ("TEST.PROMPT", "{} in a video", "{} in a video"),
    ("TEST.PROMPT", '"a {} clip"', "a {} clip"),
    ("TRAIN.CHECKPOINT_FILE_PATH", "", ""),
    ("TRAIN.DATASET_FEW", "null", "ids"),
    ("TRAIN.DATASET_FEW", "Ssv2_few_shot", "ids"),
    ("TRAIN.DATASET_FEW", "HMDB_few_shot", "paths"),
    ("TRAIN.DATASET_FEW", "Kinetics_few_shot", "paths"),
    ("TRAIN.DATASET_FEW", "lines_of_mine", "lines_of_mine"),
    ("TRAIN.DATASET", "Ssv2_few_shot", "few_shot"),
    ("TEST.DATASET", "Ssv2_few_shot", "few_shot"),
    ("VIDEO.HEAD.BACKBONE_NAME", "ViT-B/16", "ViT-B/16"),
    ("AUGMENTATION.RANDOM_ERASING.ENABLE", "yes", True),
    ("TRAIN", "{WAY: 3, SHOT: 2}", None),
])
def test_command_line_values_take_the_type_of_the_key(key, text, value):
    resolved = resolve_config(HMDB, [key, text])
    if key == "TRAIN":
        assert (resolved.config.TRAIN.WAY, resolved.config.TRAIN.SHOT) == (3, 2)
        return
    found = at(resolved.config, key)
    assert (found, type(found)) == (value, type(value))
    assert resolved.sources[key] == "command line"


def test_the_last_of_two_values_wins():
    assert load_config(HMDB, ["TRAIN.SHOT", "5", "TRAIN.SHOT", "3"]).TRAIN.SHOT == 3


def test_published_misspelling_of_way_test():
    resolved = resolve_config(HMDB, ["TRAIN.WAT_TEST", "7"])
    assert resolved.config.TRAIN.WAY_TEST == 7
    assert resolved.sources["TRAIN.WAY_TEST"] == "command line"


def test_both_spellings_of_way_test_must_agree(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE: {HMDB}\nTRAIN:\n  WAY_TEST: 5\n  WAT_TEST: 7\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="WAT_TEST: another spelling of TRAIN.WAY_TEST, which is set to 5; found 7"):
        load_config(path)
    path.write_text(f"_BASE: {HMDB}\nTRAIN:\n  WAT_TEST: 7\n", encoding="utf-8")
    assert load_config(path, ["TRAIN.WAY_TEST", "6"]).TRAIN.WAY_TEST == 6  # a later layer wins, however spelt


def test_an_empty_line_of_a_file_sets_nothing(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE: {UCF_5SHOT}\nTRAIN:\n  DATASET:\n  WAY:\nDATA:\n  DATA_ROOT_DIR:\nBN:\n", encoding="utf-8")
    config, base = load_config(path), load_config(UCF_5SHOT)
    assert (config.TRAIN, config.DATA, config.BN) == (base.TRAIN, base.DATA, base.BN)
    path.write_text(f"_BASE: {UCF_5SHOT}\nTRAIN:\n  SHOT_TEST:\n", encoding="utf-8")
    assert load_config(path).TRAIN.SHOT_TEST is None


def test_class_names_come_from_the_pool_or_from_a_file(tmp_path):
    resolved = resolve_config(HMDB)
    assert resolved.sources["TRAIN.VAL_CLASS_NAME"] == "configs/pool/classes/hmdb51.yaml"
    own = tmp_path / "own.yaml"
    own.write_text("mine: {train: [a, b], val: [c, d], test: [e, f]}\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(f"_BASE: {HMDB}\nDATA: {{CLASSES: own.yaml}}\nTRAIN: {{WAY: 2}}\n",
                                        encoding="utf-8")
    resolved = resolve_config(tmp_path / "mine.yaml", ["TEST.CLASS_NAME", "[x, y, z]"])
    config = resolved.config
    assert (config.TRAIN.CLASS_NAME, config.TRAIN.VAL_CLASS_NAME) == (("a", "b"), ("c", "d"))
    assert config.TEST.CLASS_NAME == ("x", "y", "z")
    assert resolved.sources["TRAIN.CLASS_NAME"] == str(own)
    assert resolved.sources["TEST.CLASS_NAME"] == "command line"


def test_known_training_classes_bring_their_validation_classes():
    names = load_config(HMDB).TRAIN.CLASS_NAME
    resolved = resolve_config(HMDB, ["DATA.CLASSES", "null", "TRAIN.CLASS_NAME", json.dumps(names),
                                     "TEST.CLASS_NAME", "[a, b, c, d, e]"])
    assert resolved.config.TRAIN.VAL_CLASS_NAME == load_config(HMDB).TRAIN.VAL_CLASS_NAME
    assert resolved.notes == ("TRAIN.VAL_CLASS_NAME: taken from configs/pool/classes/hmdb51.yaml, which has the same "
                              "training classes",)


def test_classes_of_the_pool_are_disjoint_between_splits():
    for path in sorted(CLIPFSAR.glob("*/*_1shot_v1.yaml")):
        config = load_config(path)
        lists = [config.TRAIN.CLASS_NAME, config.TRAIN.VAL_CLASS_NAME, config.TEST.CLASS_NAME]
        assert len(set().union(*lists)) == sum(len(names) for names in lists)


@pytest.mark.parametrize(("overrides", "note"), [
    (["TRAIN.EVAL_PERIOD", "7"], "command line: TRAIN.EVAL_PERIOD: 7 has no effect: the few-shot loop of the"),
    (["MODEL.EMA.ENABLE", "true"], "command line: MODEL.EMA.ENABLE: true has no effect: the few-shot loop of the"),
    (["MODEL", "{EMA: {DECAY: 0.5, ENABLE: false}}"], "command line: MODEL.EMA.DECAY: 0.5 has no effect: the few-shot"),
    (["TEST.TEST_SET", "test"], "command line: TEST.TEST_SET: 'test' has no effect: selection is on TRAIN.EVAL_SPLIT"),
    (["TRAIN.EVAL_SPLIT", "test"], "TRAIN.EVAL_SPLIT: the checkpoint is selected on the test list"),
    (["SOLVER.WEIGHT_DECAY", "0.1"], "SOLVER.WEIGHT_DECAY: has no effect: SOLVER.WEIGHT_DECAY_FROM is OPTIMIZER"),
    (["PROTOCOL", "clean", "OPTIMIZER.WEIGHT_DECAY", "0.1"], "OPTIMIZER.WEIGHT_DECAY: has no effect"),
    (["TEST.CLASS_NAME", "[hug, eat, x, y, z]"], "1 of the test classes are training classes, too ('hug', ...)"),
])
def test_notes(overrides, note):
    [found] = resolve_config(HMDB, overrides).notes
    assert note in found


def test_inert_keys_of_files(tmp_path):
    """The last layer's word counts; an empty line sets nothing; types are not checked."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE: {HMDB}\nTRAIN: {{NUM_FOLDS: many}}\nDATA: {{FPS: }}\nBN: {{EPS: 0.001}}\n"
                    "AUGMENTATION: {MIXUP: {ALPHA: 0, MODE: elem}, RATIO: [1, 2]}\n", encoding="utf-8")
    resolved = resolve_config(path, ["AUGMENTATION.MIXUP.MODE", "batch"])
    why = "has no effect: the few-shot loop of the published code never reads it"
    assert resolved.notes == (f"{path}: TRAIN.NUM_FOLDS: 'many' {why}", f"{path}: AUGMENTATION.RATIO: [1, 2] {why}")
    assert resolved.config == load_config(HMDB)


def test_ignored_keys_are_named_once():
    resolved = resolve_config(HMDB, ["PRETRAIN.ENABLE", "true", "PRETRAIN.DECAY", "2", "TRAIN.ONLY_LINEAR", "true"])
    assert resolved.ignored == ("PRETRAIN", "TRAIN.ONLY_LINEAR")
    assert resolved.notes == ()


def test_config_is_frozen():
    config = load_config(HMDB)
    with pytest.raises(AttributeError):
        config.TRAIN.SHOT = 3
