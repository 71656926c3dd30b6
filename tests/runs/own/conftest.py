"""A checkpoint of a tiny CLIP-FSAR that was not trained, and its own clips."""

import json

import pytest
import torch

from models.builder import build_model
from runs.session.preflight import check_names
from tests.conftest import called
from utils.checkpoint import atomic_save
from utils.config import resolve_config
from utils.config.show import to_dict


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, write_tiny_project, tiny_videos):
    """Random weights of a tiny tower and a modulator, in a file as a training leaves it."""
    directory = tmp_path_factory.mktemp("checkpoint")
    cfg = check_names(resolve_config(write_tiny_project(directory, tiny_videos))).config
    torch.manual_seed(0)
    path = directory / "tiny.pyth"
    atomic_save({"epoch": 1, "model_state": build_model(cfg).state_dict(), "optimizer_state": {
        "state": {}, "param_groups": []}, "cfg": json.dumps(to_dict(cfg))}, path)
    return path


@pytest.fixture()
def predict():
    """The command predict in this process."""
    return called("predict")
