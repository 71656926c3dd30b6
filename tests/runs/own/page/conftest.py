"""A tiny model, and rendered clips of three actions."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch

from runs.recognizer import Recognizer
from tests.conftest import TINY_TOWER
from tests.runs.own.page.served import SPECS, overrides, render, served


@pytest.fixture(scope="session")
def tower(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tower") / "tower.json"
    path.write_text(json.dumps(TINY_TOWER))
    return path


@pytest.fixture(scope="session")
def model(tower) -> Recognizer:
    torch.manual_seed(0)  # of the tower's random weights
    return Recognizer(overrides=overrides(tower), text=False)


@pytest.fixture(scope="session")
def clips(tmp_path_factory, model) -> Path:
    """support/: three actions of four clips, encoded; query/: a clip of each and one of none; long.mp4: 61 seconds."""
    root = tmp_path_factory.mktemp("clips")
    for name, spec in SPECS.items():
        for number in range(4):
            render(root / "support" / name / f"{number}.mp4", spec, number)
        render(root / "query" / f"{name}.mp4", spec, 9)
    render(root / "query" / "other.mp4", ("green", "square", "falling"), 9)
    render(root / "long.mp4", SPECS["spin"], 5, frames=305, rate=5)
    model.learn(root / "support")
    return root


@pytest.fixture()
def root(clips, tmp_path) -> Path:
    return copytree(clips / "support", tmp_path / "my_actions")


@pytest.fixture()
def page(root, model):
    """A client of a page on three actions of four clips."""
    with served(root, model) as client:
        client.settled()
        yield client
