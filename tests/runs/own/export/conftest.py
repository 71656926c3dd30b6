"""Bundles of tiny models, exported once: a ViT with a modulator, and a ResNet of fixed sizes that merges before."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.builder import build_model
from runs.own.export.exporting import Forms, export_bundle
from runs.own.recognizer import Recognizer
from runs.session.preflight import check_names
from tests.runs.own.colours import pictures, write_support, write_video
from utils.checkpoint import atomic_save
from utils.config import resolve_config
from utils.config.show import to_dict

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1}
TINY_RESNET = {"embed_dim": 32, "quick_gelu": True, "text_cfg": TEXT,
               "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
TINY_VIT = {"embed_dim": 32, "quick_gelu": True, "text_cfg": TEXT,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 32, "patch_size": 8}}


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """Three actions of four clips, two of none, and two to ask about, one of which is no video."""
    root = tmp_path_factory.mktemp("clips")
    write_support(root / "mine", clips=4, none=2)
    write_video(root / "new.mp4", pictures("green", 30, 5, (60, 130)))
    (root / "broken.mp4").write_bytes(b"no video" * 100)
    return root


def _checkpoint(directory: Path, project: Path, tower: dict, *pairs: str) -> Path:
    """Random weights in a file as a training leaves it."""
    (directory / "tower.json").write_text(json.dumps(tower))
    cfg = check_names(resolve_config(project, pairs)).config
    torch.manual_seed(0)
    state = {"model_state": build_model(cfg).state_dict(), "epoch": 1, "cfg": json.dumps(to_dict(cfg)),
             "optimizer_state": {"state": {}, "param_groups": []}}
    atomic_save(state, directory / "random.pyth")
    return directory / "random.pyth"


@pytest.fixture(scope="session")
def vit_checkpoint(tmp_path_factory, write_tiny_project, tiny_videos) -> Path:
    """A tiny ViT, most of whose weights are in matrix products, and a modulator."""
    directory = tmp_path_factory.mktemp("vit")
    return _checkpoint(directory, write_tiny_project(directory, tiny_videos), TINY_VIT)


@pytest.fixture(scope="session")
def resnet_checkpoint(tmp_path_factory, write_tiny_project, tiny_videos) -> Path:
    """A tiny ResNet; supports are averaged before the modulator, and OTAM goes one way."""
    directory = tmp_path_factory.mktemp("resnet")
    return _checkpoint(directory, write_tiny_project(directory, tiny_videos), TINY_RESNET, "TRAIN.MERGE_BEFORE", "true",
                       "TRAIN.SINGLE_DIRECT", "true")


def _bundle(root: Path, clips: Path, checkpoint: Path, forms: Forms) -> SimpleNamespace:
    support = shutil.copytree(clips / "mine", root / "mine")
    actions = Recognizer(checkpoint=checkpoint, device="cpu").learn(support)
    proof, change = export_bundle(actions, root / "bundle", forms=forms, support=(support, "none", None))
    return SimpleNamespace(path=root / "bundle", actions=actions, proof=proof, change=change, support=support)


@pytest.fixture(scope="session")
def vit(tmp_path_factory, clips, vit_checkpoint):
    """A bundle with every form but fixed sizes."""
    return _bundle(tmp_path_factory.mktemp("vit"), clips, vit_checkpoint, Forms(int8=True, pt2=True))


@pytest.fixture(scope="session")
def resnet(tmp_path_factory, clips, resnet_checkpoint):
    """A bundle of fixed sizes."""
    return _bundle(tmp_path_factory.mktemp("resnet_bundle"), clips, resnet_checkpoint, Forms(static=True))


@pytest.fixture()
def recognise(tmp_path):
    """Runs a bundle's recognise.py in a process in which torch, and all of this project, cannot be imported."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "models", "runs", "datasets", "utils"):
        (blocked / f"{name}.py").write_text(f"raise ImportError('{name} is not to be imported')")

    def call(bundle: Path, *arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess:
        return subprocess.run([python, str(bundle / "recognise.py"), *map(str, arguments)], cwd=tmp_path, text=True,
                              capture_output=True, env={"PYTHONPATH": str(blocked), "PATH": "/usr/bin:/bin"},
                              timeout=120)

    return call
