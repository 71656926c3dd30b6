"""Ten real actions by frozen ImageNet features, where clips and weights are at hand: five clips of each teach."""

import json
import shutil
import sys

import numpy as np
import pytest

from runs.recognizer import Recognizer
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.shared("real_clips")]

CLIPS = REPOSITORY.parent / "shared" / "real_clips"
WEIGHTS = CLIPS / "mobilenet_v2_imagenet" / "mobilenet_v2_tf_int8_dequantised_fp16.pt"
SHOTS = 5


@pytest.fixture(scope="module")
def model():
    """The network was trained on values from -1 to 1."""
    return Recognizer(str(WEIGHTS), overrides=["DATA.MEAN", "[0.5,0.5,0.5]", "DATA.STD", "[0.5,0.5,0.5]"])


@pytest.fixture(scope="module")
def videos() -> dict[str, list[str]]:
    """Action to its videos, folders of frames."""
    lists = CLIPS / "weizmann10" / "lists"
    names = json.loads((lists / "class_names.json").read_text())["all"]
    found: dict[str, list[str]] = {}
    for line in (lists / "all_few_shot.txt").read_text().split():
        index, video = line.removeprefix("test").split("/", 1)
        found.setdefault(names[int(index)].replace(" ", "_"), []).append(video)
    return found


def shares(model, videos, known, foreign, root, seed=0) -> dict[str, float]:
    """Learn from five clips an action; what share of the others is right, kept, and of foreign ones accepted."""
    rng = np.random.default_rng(seed)
    shuffled = {name: list(rng.permutation(videos[name])) for name in known}
    for name, own in shuffled.items():
        for video in own[:SHOTS]:
            shutil.copytree(CLIPS / "weizmann10" / "frames" / video, root / name / video)
    actions = model.learn(root)
    asked = [(name, CLIPS / "weizmann10" / "frames" / video) for name, own in shuffled.items() for video in own[SHOTS:]]
    answers = actions.predict([path for _, path in asked])
    strangers = [CLIPS / "weizmann10" / "frames" / video for name in foreign for video in videos[name]]
    others = actions.predict(strangers) if strangers else []
    found = {"accuracy": np.mean([one.ranked[0] == name for one, (name, _) in zip(answers, asked, strict=True)]),
             "kept": np.mean([not one.unknown for one in answers]), "queries": len(answers),
             "leave_one_out": actions.check().right / actions.check().total}
    return {name: float(value) for name, value in found.items()} | (
        {"accepted": float(np.mean([not one.unknown for one in others])), "foreign": len(others)} if others else {})


def test_five_actions(model, videos, tmp_path):
    names = list(videos)
    found = shares(model, videos, names[:5], names[5:7], tmp_path)
    sys.stdout.write(f"\nfive of weizmann10, two foreign: {found}\n")
    assert found["accuracy"] > 0.65 and found["kept"] > 0.7, found


def test_ten_actions(model, videos, tmp_path):
    names = list(videos)
    every = shares(model, videos, names, [], tmp_path / "ten")
    eight = shares(model, videos, names[:8], names[8:], tmp_path / "eight")
    sys.stdout.write(f"\nall of weizmann10: {every}; eight, two foreign: {eight}\n")
    assert every["accuracy"] > 0.4 and every["kept"] > 0.7 and eight["kept"] > 0.7, (every, eight)
