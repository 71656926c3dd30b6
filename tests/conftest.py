"""Shared pieces of the tests: a tiny tower, tiny videos, a configuration that trains in seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

# Threads that wait spin by default, and take the cores from other processes of the tests: some take four times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402  (what it reads once is set above)

from datasets.demo.render import class_names, render_demo
from runs.clip_fsar import main
from utils import allocator

REPOSITORY = Path(__file__).resolve().parents[1]
TINY_TOWER = {
    "embed_dim": 32, "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}


FAST = "not slow and not browser"


def pytest_configure(config):
    """`pytest` alone runs what is fast; `pytest tests`, a named file or -m runs what was asked for."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr:
        config.option.markexpr = FAST


def pytest_report_header(config):
    """Say which tests are meant."""
    asked = config.option.markexpr
    return f"tests: {FAST} (make test, or pytest tests: all of them)" if asked == FAST else f"tests: {asked or 'all'}"


@pytest.fixture(autouse=True)
def memory_kept(monkeypatch):
    """Let no run change the memory of the tests' own process; gives a list that has an entry for each that would."""
    found: list[bool] = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: found.append(True))
    return found


@pytest.fixture()
def no_proxy(monkeypatch):
    """Let requests to this machine reach it."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def pytest_collection_modifyitems(items):
    """Skip what this machine cannot do, and say why; files with slow tests come first: processes end together then."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU"))
        for mark in item.iter_markers("shared"):
            if not (REPOSITORY.parent / "shared" / mark.args[0]).is_dir():
                item.add_marker(pytest.mark.skip(reason=f"../shared/{mark.args[0]} is not beside this checkout"))


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory) -> Path:
    """Four clips of five train, five val and five test classes."""
    root = tmp_path_factory.mktemp("videos")
    render_demo(root, clips_per_class=4, workers=2, max_classes={"train": 5, "val": 5, "test": 5})
    return root


def _tiny_project(directory: Path, videos: Path, name: str = "run", extra: str = "", **train) -> Path:
    """A project file in `directory` that trains in seconds; `train` are TRAIN settings."""
    tower = directory / "tower.json"
    tower.write_text(json.dumps(TINY_TOWER))
    settings = {"DATASET_FEW": "HMDB_few_shot", "WAY": 3, "QUERY_PER_CLASS": 1, "NUM_TRAIN_TASKS": 8,
                "NUM_VAL_TASKS": 4, "NUM_TEST_TASKS": 6, "VAL_FRE_ITER": 3, "BATCH_SIZE": 1,
                "BATCH_SIZE_PER_TASK": 2, **train}
    names = {"CLASS_NAME": class_names("train")[:5], "VAL_CLASS_NAME": class_names("val")[:5]}
    lines = ["NUM_GPUS: 0", f"OUTPUT_DIR: {directory / name}", "LOG_PERIOD: 1", "TRAIN:"]
    lines += [f"  {key}: {json.dumps(value)}" for key, value in {**names, **settings}.items()]
    lines += [f"TEST: {{CLASS_NAME: {json.dumps(class_names('test')[:5])}}}",
              f"DATA: {{DATA_ROOT_DIR: {videos}, ANNO_DIR: {videos}, NUM_INPUT_FRAMES: 4, "
              "TRAIN_JITTER_SCALES: [36, 36], TEST_SCALE: 36, TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}",
              "SOLVER: {BASE_LR: 1e-3, STEPS_ITER: 4, WARMUP_EPOCHS: 0}", "DATA_LOADER: {NUM_WORKERS: 0}",
              f"VIDEO: {{HEAD: {{BACKBONE_NAME: {tower}, BACKBONE_WEIGHTS: random}}}}", extra]
    path = directory / f"{name}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def write_tiny_project():
    """_tiny_project itself, for fixtures that outlive a test."""
    return _tiny_project


@pytest.fixture()
def tiny_project(tmp_path, tiny_videos):
    """_tiny_project in this test's own directory."""
    return partial(_tiny_project, tmp_path, tiny_videos)


def called(name: str) -> Callable[[Iterable[object]], int]:
    """The command `name` in this process: from its arguments to its exit status."""
    return lambda arguments: main([name, *map(str, arguments)])


def run_command(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """runs/run.py in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "2"}
    return subprocess.run([sys.executable, "runs/run.py", *map(str, arguments)], cwd=REPOSITORY, text=True,
                          capture_output=True, env=environment, timeout=500, **kwargs)


@pytest.fixture(scope="session")
def data_of_many_clips(tmp_path_factory) -> Path:
    """Six clips of three classes a split."""
    root = tmp_path_factory.mktemp("many")
    render_demo(root, clips_per_class=6, workers=2, max_classes={"train": 3, "val": 3, "test": 3})
    return root
