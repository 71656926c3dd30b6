"""What keys affect is declared at each key, and whoever compares two runs asks the declaration."""

import dataclasses

import pytest

from utils.config import Config, load_config
from utils.config.effects import effect_of, flat, may_change, settings
from utils.config.fields import NUMBERS, PLACE, SCORING, SPEED, TRAINING, Effect, key, keys_of, section
from utils.config.inert import inert_keys
from utils.config.layers import REPOSITORY
from utils.config.show import to_dict

HMDB = REPOSITORY / "configs" / "projects" / "CLIPFSAR" / "hmdb51" / "CLIPFSAR_HMDB51_1shot_v1.yaml"


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys that a head declares for itself."""

    MIX: float = key("share of the text", affects=SCORING)
    FAST: bool = key("in one pass", affects=SPEED, may_change=True)


MORE = keys_of(Options, "VIDEO.HEAD.OPTIONS.")


def test_every_key_says_what_it_affects():
    assert all(isinstance(found.affects, Effect) for found in keys_of(Config).values())


def test_a_key_without_the_word_cannot_be_declared():
    with pytest.raises(TypeError, match="affects"):
        key("a number")


@pytest.mark.parametrize(("declared", "found"), [
    (section("a section, which 5 is not"), "no affects"), (key("a number", affects="numbers"), "numbers"),
])
def test_a_key_with_another_word_is_refused_by_name(declared, found):
    kind = dataclasses.make_dataclass("Kind", [("DEPTH", int, declared)])
    with pytest.raises(TypeError, match=rf"^A\.DEPTH: expected key\(..., affects=NUMBERS, TRAINING, SCORING, SPEED or "
                                        rf"PLACE\), found {found}$"):
        keys_of(kind, "A.")


@pytest.mark.parametrize(("dotted", "word"), [
    ("TRAIN.SHOT", NUMBERS), ("VIDEO.HEAD.BACKBONE_NAME", NUMBERS), ("DATA.FRAME_CACHE", NUMBERS),
    ("SOLVER.BASE_LR", TRAINING), ("NUM_GPUS", TRAINING), ("TRAIN.EVAL_SPLIT", TRAINING),
    ("TRAIN.SHOT_TEST", SCORING), ("DATA.TEST_SCALE", SCORING),
    ("DATA.DECODER", SPEED), ("TRAIN.COMPILE", SPEED), ("DATA_LOADER.NUM_WORKERS", SPEED),
    ("DATA.DATA_ROOT_DIR", PLACE), ("OUTPUT_DIR", PLACE), ("LOG_PERIOD", PLACE),
    ("VIDEO.HEAD.OPTIONS.MIX", NUMBERS), ("A.KEY.OF.NOBODY", NUMBERS),
])
def test_what_a_key_affects(dotted, word):
    assert effect_of(dotted) is word


def test_a_head_declares_keys_of_its_own():
    assert effect_of("VIDEO.HEAD.OPTIONS.MIX", MORE) is SCORING
    assert (may_change("VIDEO.HEAD.OPTIONS.FAST", MORE), may_change("VIDEO.HEAD.OPTIONS.FAST")) == (True, False)
    values = {"VIDEO": {"HEAD": {"OPTIONS": {"MIX": 0.5, "FAST": True, "DEPTH": 2}}}}
    assert settings(values, SPEED, SCORING, more=MORE) == {"VIDEO.HEAD.OPTIONS.DEPTH": 2}
    assert len(settings(values, SPEED, SCORING)) == 3


def test_settings_leave_out_what_they_are_asked_to():
    values = to_dict(load_config(HMDB))
    assert {key for key in settings(values) if not key.startswith("VIDEO.HEAD.OPTIONS.")} == set(keys_of(Config))
    assert settings(flat(values), PLACE) == settings(values, PLACE)
    left = settings(values, NUMBERS, TRAINING, SCORING, SPEED)
    assert "OUTPUT_DIR" in left and all(effect_of(dotted) is PLACE for dotted in left)


def test_inert_keys_of_an_earlier_version_are_no_settings():
    assert settings({"TRAIN": {"NUM_FOLDS": 3, "SHOT": 1}, "MODEL": {"EMA": {"DECAY": 0.9}}}) == {"TRAIN.SHOT": 1}
    assert all(found.why for found in inert_keys().values())
