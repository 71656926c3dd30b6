"""A head's options: typed by its own dataclass, under their published names too; what is wrong is told before anything
is built."""

import dataclasses
import json

import pytest
import yaml

from models.heads import HEADS
from runs.session.preflight import check_names
from runs.training.state import training_differences
from utils.config import resolve_config
from utils.config.effects import effect_of
from utils.config.fields import SCORING
from utils.config.layers import POOL, REPOSITORY
from utils.config.options import head_options, option_keys
from utils.config.reading import aliases
from utils.config.show import format_config, to_dict
from utils.errors import ConfigError

HMDB = REPOSITORY / "configs" / "projects" / "CLIPFSAR" / "hmdb51" / "CLIPFSAR_HMDB51_1shot_v1.yaml"
NAME = "CNN_OTAM_CLIPFSAR"


def options_of(*overrides: str) -> dict:
    return check_names(resolve_config(HMDB, overrides)).config.VIDEO.HEAD.OPTIONS


def problems_of(*overrides: str, path=HMDB) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_names(resolve_config(path, overrides))
    return caught.value.problems


@pytest.mark.parametrize("name", sorted(HEADS))
def test_the_pool_lists_the_defaults_of_every_option(name):
    """The pool's file is what --print-config shows, without importing the head."""
    kind, path = HEADS[name].Options, POOL / "model" / f"{name}.yaml"
    if not path.exists():
        pytest.skip(f"the pool has no file of {name}: its options have the defaults of their class")
    listed = yaml.safe_load(path.read_text(encoding="utf-8"))["VIDEO"]["HEAD"]["OPTIONS"]
    assert listed == {field.name: getattr(kind(), field.name) for field in dataclasses.fields(kind)}


def test_every_published_name_is_an_option_of_a_head():
    known = {name for head in HEADS for name in option_keys(HEADS[head].Options)}
    assert {target for target in aliases().values() if target.startswith("VIDEO.HEAD.OPTIONS.")} <= known


@pytest.mark.parametrize(("spelled", "text", "value"), [
    ("TRAIN.USE_CLASSIFICATION", "False", False), ("TRAIN.TEXT_COFF", "0.5", 0.5), ("TRAIN.TEXT_COFF", "null", None),
    ("VIDEO.HEAD.OPTIONS.TEXT_COFF", "1", 1.0), ("VIDEO.HEAD.ALIGNMENT", "otam_triton", "otam_triton"),
    ("VIDEO.HEAD.OPTIONS.MODULATOR", "'transformer'", "transformer"), ("TRAIN.TRANSFORMER_DEPTH", "2.0", 2),
])
def test_an_option_has_its_type_under_each_name(spelled, text, value):
    found = options_of(spelled, text)[spelled.rsplit(".", 1)[1]]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("spelled", "text", "message"), [
    ("TRAIN.TEXT_COFF", "1.1", "expected 1 or less, found 1.1"),
    ("VIDEO.HEAD.OPTIONS.SMOOTHING", "0", "expected more than 0, found 0"),
    ("TRAIN.COMBINE", "5", "expected true or false, found 5"), ("TRAIN.TRANSFORMER_DEPTH", "0", "expected 1 or more"),
    ("VIDEO.HEAD.ALIGNMENT", "otm", "unknown alignment 'otm', did you mean 'otam'?"),
    ("VIDEO.HEAD.OPTIONS.COMBIEN", "true", "unknown option of this head; did you mean COMBINE?"),
    ("VIDEO.HEAD.OPTIONS.QQQ", "1", "unknown option of this head; it has MERGE_BEFORE, "),
])
def test_a_wrong_option_is_told_as_it_was_written(spelled, text, message):
    [found] = problems_of(spelled, text)
    assert found.startswith(f"command line: {spelled}: {message}")


def test_what_is_not_trained_is_refused_for_a_training_only():
    [found] = problems_of("VIDEO.HEAD.MODULATOR", "identity")
    assert found == ("command line: VIDEO.HEAD.OPTIONS.MODULATOR: identity is CLIP without training; expected "
                     "transformer for a training, or TRAIN.ENABLE false")
    assert options_of("VIDEO.HEAD.MODULATOR", "identity", "TRAIN.ENABLE", "false",
                      "TEST.ENABLE", "true")["MODULATOR"] == "identity"


def test_all_that_is_wrong_comes_at_once():
    found = problems_of("TRAIN.COMBINE", "5", "TRAIN.TEXT_COFF", "2", "DATA.DECODER", "decrod", "DATA.CLASSES", "null",
                        "TRAIN.CLASS_NAME", "[a, b, c, d, e]", "TEST.CLASS_NAME", "[f, g, h, i, j]")
    assert [line.split(": ")[1] for line in found] == ["DATA.DECODER", "TRAIN.COMBINE", "TRAIN.TEXT_COFF",
                                                       "TRAIN.VAL_CLASS_NAME"]


def test_a_file_may_spell_an_option_in_one_way_only(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE: {HMDB}\nTRAIN: {{COMBINE: true}}\nVIDEO: {{HEAD: {{OPTIONS: {{COMBINE: false}}}}}}\n")
    with pytest.raises(ConfigError, match="VIDEO.HEAD.OPTIONS.COMBINE: another spelling of TRAIN.COMBINE, which is set "
                                          "to true; found false"):
        resolve_config(path)


@pytest.mark.parametrize(("overrides", "notes"), [
    (["TRAIN.EVAL_TEXT", "true", "TRAIN.COMBINE", "true"], ["TRAIN.COMBINE: has no effect: EVAL_TEXT is on, and wins"]),
    (["TRAIN.TEXT_COFF", "0.5"], ["TRAIN.TEXT_COFF: has no effect: COMBINE is off"]),
    (["TRAIN.USE_CLASSIFICATION", "false", "TRAIN.USE_CLASSIFICATION_ONLY", "true"],
     ["TRAIN.USE_CLASSIFICATION_ONLY: has no effect: USE_CLASSIFICATION is off"]),
    ([], []),
])
def test_options_without_effect_are_told(overrides, notes):
    found = check_names(resolve_config(HMDB, overrides)).notes
    assert list(found) == [f"command line: {note}" for note in notes]


def test_options_are_shown_with_the_file_that_set_them():
    shown = format_config(resolve_config(HMDB, ["PROTOCOL", "clean", "TRAIN.COMBINE", "true"]))
    assert "      COMBINE: true   # command line\n" in shown
    assert "      COMBINE_FRAMES: null   # configs/pool/protocol/clean.yaml\n" in shown
    assert f"      SMOOTHING: 0.5   # configs/pool/model/{NAME}.yaml\n" in shown


def test_a_head_takes_what_it_has_an_option_for():
    kind = HEADS[NAME].Options
    assert head_options(kind, {"COMBINE": True, "OF_ANOTHER_HEAD": 3}) == kind(COMBINE=True)
    with pytest.raises(ConfigError, match=r"\n  - VIDEO.HEAD.OPTIONS.COMBINE: expected true or false, found 5$"):
        head_options(kind, {"COMBINE": 5})


def test_a_checkpoint_from_before_options_is_compared_by_the_published_names():
    """Its settings stood under TRAIN."""
    cfg = check_names(resolve_config(HMDB, ["TRAIN.MERGE_BEFORE", "true"])).config
    then = to_dict(cfg)
    del then["VIDEO"]["HEAD"]["OPTIONS"]
    then["TRAIN"]["MERGE_BEFORE"] = False
    state = {"cfg": json.dumps(then)}
    assert training_differences(state, cfg) == ["VIDEO.HEAD.OPTIONS.MERGE_BEFORE: False there, True here"]
    assert effect_of("VIDEO.HEAD.OPTIONS.COMBINE", option_keys(HEADS[NAME].Options)) is SCORING


def test_an_empty_encoder_is_the_one_it_means():
    """So a checkpoint from before ENCODER could be empty is compared well."""
    head = check_names(resolve_config(HMDB)).config.VIDEO.HEAD
    assert (head.ENCODER, head.BACKBONE_WEIGHTS) == ("clip", "openai")
    head = check_names(resolve_config(HMDB, ["VIDEO.HEAD.NAME", "MEAN_POOL", "VIDEO.HEAD.BACKBONE_NAME", "resnet50",
                                             "VIDEO.HEAD.BACKBONE_WEIGHTS", "null"])).config.VIDEO.HEAD
    assert (head.ENCODER, head.BACKBONE_WEIGHTS) == ("image", "imagenet")
