"""What a run finds in its OUTPUT_DIR: damaged or lost checkpoints, other settings, another process."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from runs.session.session import run
from runs.training.state import training_differences
from tests.runs.processes import run_until
from utils import checkpoint, lock
from utils.config import resolve_config
from utils.config.show import to_dict
from utils.errors import CheckpointError, ConfigError, OutputDirError
from utils.signals import handling

pytestmark = pytest.mark.slow

TEST_ONLY = ("TRAIN.ENABLE", "false", "TEST.ENABLE", "true")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_videos, write_tiny_project) -> Path:
    """Project of a finished run: validations after iterations 1 to 3, the last two kept."""
    project = write_tiny_project(tmp_path_factory.mktemp("resume"), tiny_videos, "done", NUM_TRAIN_TASKS=3,
                                 VAL_FRE_ITER=1)
    status, text = run_until(project)
    assert status == 0, text
    return project


@pytest.fixture()
def trained(finished, tmp_path) -> tuple[Path, Path]:
    """(project, checkpoints) of a copy of it."""
    project, old, new = tmp_path / "done.yaml", finished.parent / "done", tmp_path / "done"
    shutil.copytree(old, new)
    project.write_text(finished.read_text().replace(str(old), str(new)))
    return project, new / "checkpoints"


def _change(path: Path, **parts) -> None:
    """Change parts of a checkpoint's `resume`."""
    state = checkpoint.read(path)
    state["resume"].update(parts)
    checkpoint.atomic_save(state, path)


def _same_weights(first: Path, second: Path) -> bool:
    a, b = checkpoint.read(first)["model_state"], checkpoint.read(second)["model_state"]
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("content, said", [
    (b"damaged", "damaged, or no checkpoint: expected a file of torch.save with tensors, numbers and text"),
    ({"model_state": {"a": 1}}, "model_state: a: expected a tensor, found 1"),
    ("cfg", "cfg: expected a configuration as JSON text, found text of 3 characters"),
    ("resume", "resume: expected named parts, found text of 6 characters"),
])
def test_an_odd_state_falls_back_to_the_one_before(trained, content, said):
    project, saved = trained
    path = saved / "checkpoint_epoch_00003.pyth"
    expected = path.with_name("expected.pyth")
    expected.write_bytes(path.read_bytes())
    if isinstance(content, str):
        content = {**checkpoint.read(path), content: content}
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    status, text = run_until(project, *TEST_ONLY, "TEST.CHECKPOINT_FILE_PATH", str(path))
    assert status == 1 and text.endswith(f"CheckpointError: {path}: {said}\n") and "Traceback" not in text, text
    status, text = run_until(project)
    assert status == 0 and f"{path}: {said}; falling back to the state before it" in text, text
    assert "checkpoint_epoch_00002.pyth (iteration 2)" in text and _same_weights(path, expected)


def test_a_damaged_state_between_validations_falls_back(trained):
    project, saved = trained
    (saved / "checkpoint_last.pyth").write_bytes(b"damaged")
    status, text = run_until(project, "TRAIN.NUM_TRAIN_TASKS", "4")
    assert status == 0 and "checkpoint_last.pyth: damaged" in text, text
    assert "checkpoint_epoch_00003.pyth (iteration 3)" in text and not (saved / "checkpoint_last.pyth").exists()


def test_states_are_tried_from_the_furthest_along(tmp_path):
    store = checkpoint.CheckpointStore(tmp_path, keep=9)
    for epoch in (2, 99_999, 100_000):
        store.save({"epoch": epoch, "model_state": {}})
    for epoch, place in ((100_000, 0), (99_999, 1), (3, 2), (1, 3)):
        store.save_between({"epoch": epoch, "model_state": {}})
        assert [p for p, _ in store.readable()].index(store.last) == place
    store.save({"epoch": 100_001, "model_state": {}})
    assert not store.last.exists()


def test_a_lost_best_is_restored_from_its_numbered_checkpoint(trained):
    project, saved = trained
    best, numbered = saved / "checkpoint_best.pyth", saved / "checkpoint_epoch_00002.pyth"
    for path in saved.glob("checkpoint_epoch*"):
        _change(path, best_iteration=2)
    for damage in (best.unlink, lambda: best.write_bytes(b"damaged"),
                   lambda: best.write_bytes((saved / "checkpoint_epoch_00003.pyth").read_bytes())):
        damage()
        status, text = run_until(project)
        assert status == 0 and "restored from checkpoint_epoch_00002.pyth" in text, text
        assert _same_weights(best, numbered) and "validating" not in text
    best.unlink()
    status, text = run_until(project, *TEST_ONLY)
    assert status == 0 and "restored from checkpoint_epoch_00002.pyth" in text, text


def test_a_best_that_is_lost_for_good_is_decided_anew(trained):
    project, saved = trained
    best = saved / "checkpoint_best.pyth"
    for path in saved.glob("checkpoint_epoch*"):
        _change(path, best=1.0, best_iteration=1)
    best.unlink()
    status, text = run_until(project, *TEST_ONLY)
    assert status == 1 and f"CheckpointError: {best}: no such checkpoint, and the numbered checkpoint it was a copy " \
        "of is gone, too: TRAIN.ENABLE true makes the last state the best, or name a file in" in text, text
    status, text = run_until(project)
    assert status == 0 and f"{best} of iteration 1 is lost" in text and "iteration 3: validating" in text, text
    assert checkpoint.read(best)["resume"]["best_iteration"] == 3
    assert not (saved / "checkpoint_epoch_00004.pyth").exists()
    for path in saved.glob("checkpoint_epoch*"):
        _change(path, best=1.0, best_iteration=1)
    best.unlink()
    status, text = run_until(project, "TRAIN.NUM_TRAIN_TASKS", "4")
    assert status == 0 and checkpoint.read(best)["resume"]["best_iteration"] == 4, text
    (saved / "checkpoint_epoch_00003.pyth").unlink()
    (saved / "checkpoint_epoch_00004.pyth").unlink()
    best.unlink()
    with pytest.raises(CheckpointError, match="nothing was trained in this OUTPUT_DIR; name a file in TEST.CHECKPOINT"):
        run(resolve_config(project, TEST_ONLY))


def test_another_run_in_the_same_directory_is_refused(trained):
    project, _ = trained
    with pytest.raises(ConfigError, match="TRAIN.QUERY_PER_CLASS: 1 there, 2 here"):
        run(resolve_config(project, ["TRAIN.QUERY_PER_CLASS", "2"]))


def test_what_validation_measures_may_change_only_for_a_finished_run(trained):
    project, saved = trained
    fused = ("TRAIN.COMBINE", "true", "TRAIN.TEXT_COFF", "0.5", "TRAIN.COMBINE_FRAMES", "4")
    with pytest.raises(ConfigError, match="OPTIONS.COMBINE: False there, True here; VIDEO.HEAD.OPTIONS.TEXT_COFF: "
                                          "None there, 0.5 here; VIDEO.HEAD.OPTIONS.COMBINE_FRAMES: 8 there, 4 here"):
        run(resolve_config(project, [*fused, "TRAIN.NUM_TRAIN_TASKS", "4"]))
    with pytest.raises(ConfigError, match="OPTIONS.EVAL_TEXT: False there, True here"):
        run(resolve_config(project, ["TRAIN.EVAL_TEXT", "true", "TRAIN.NUM_TRAIN_TASKS", "4"]))
    assert run(resolve_config(project, fused))["scoring"] == "fused"
    _change(saved / "checkpoint_epoch_00003.pyth", validated=2)  # stopped in its last validation
    with pytest.raises(ConfigError, match="OPTIONS.COMBINE: False there, True here"):
        run(resolve_config(project, fused))


@pytest.mark.parametrize("key, value, unfinished, finished", [
    ("DATA.DATA_ROOT_DIR", "/elsewhere", True, True), ("DATA.DECODER", "pyav", True, True),
    ("TRAIN.COMPILE", "true", True, True), ("DATA_LOADER.NUM_WORKERS", "7", True, True),
    ("DATA.CLASSES", "hmdb51", True, True), ("NUM_PROCESSES", "2", True, True),
    ("TRAIN.NUM_TEST_TASKS", "77", True, True), ("TEST.CHECKPOINT_FILE_PATH", "any.pyth", True, True),
    ("TRAIN.SHOT_TEST", "2", False, True), ("DATA.TEST_SAMPLING", "center", False, True),
    ("TRAIN.EVAL_SPLIT", "test", False, False), ("DATA.FRAME_CACHE", "/frames", False, False),
    ("SOLVER.BASE_LR", "0.5", False, False), ("VIDEO.HEAD.OPTIONS.SMOOTHING", "0.2", False, False),
    ("TRAIN.DATASET_FEW", "ids", False, False), ("TRAIN.DATASET_FEW", "Kinetics_few_shot", True, True),
])
def test_what_may_change_before_and_after_the_end_of_training(tiny_project, key, value, unfinished, finished):
    project = tiny_project("asked")
    there = resolve_config(project).config
    here = resolve_config(project, [key, value]).config
    for iteration, allowed in ((there.TRAIN.NUM_TRAIN_TASKS - 1, unfinished), (there.TRAIN.NUM_TRAIN_TASKS, finished)):
        state = {"cfg": json.dumps(to_dict(there)), "resume": {"iteration": iteration}}
        assert [line.split(":")[0] for line in training_differences(state, here)] == ([] if allowed else [key])


def test_the_checkpoint_of_an_earlier_version_goes_on(tiny_project):
    """It names the list format as published, and knows keys that nothing reads."""
    config = resolve_config(tiny_project("earlier")).config
    saved = to_dict(config)
    saved["TRAIN"] |= {"DATASET": "Ssv2_few_shot", "DATASET_FEW": "HMDB_few_shot", "NUM_FOLDS": 9}
    assert training_differences({"cfg": json.dumps(saved), "resume": {"iteration": 1}}, config) == []


def test_two_runs_in_one_directory(trained):
    """The second is refused and changes nothing, whether it trains or tests, with one seed or several."""
    project, saved = trained
    directory = saved.parent
    unfinished = saved / f".checkpoint_last.pyth.{os.getpid()}.tmp"
    unfinished.write_bytes(b"")
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    with lock.output_lock(directory):
        before[directory / lock.LOCK] = (directory / lock.LOCK).stat().st_mtime_ns
        for settings in ((), TEST_ONLY, ("RANDOM_SEEDS", "[1, 2]")):
            status, text = run_until(project, *settings)
            assert status == 1 and "Traceback" not in text, text
            assert f"OutputDirError: OUTPUT_DIR: {directory}: another run is at work there (process {os.getpid()} on " \
                in text and "Wait for its end, end it, or choose another OUTPUT_DIR" in text
    assert {p: p.stat().st_mtime_ns for p in directory.rglob("*")} == before
    with lock.lock_file(directory / ".sweep.lock"):  # a sweep holds its own for the run it started
        status, text = run_until(project)
    assert status == 0 and not unfinished.exists(), text


def test_the_lock_of_a_killed_run_is_free_at_once(tiny_project):
    """Its DataLoader workers live on for some seconds."""
    project = tiny_project("killed", NUM_TRAIN_TASKS=3)
    workers = ("DATA_LOADER.NUM_WORKERS", "2")
    assert run_until(project, *workers, moment="iteration:2")[0] == -signal.SIGKILL
    status, text = run_until(project)
    assert status == 0, text


def test_directories_that_cannot_be_locked_or_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputDirError, match=r"OUTPUT_DIR: .*/file/out: expected a directory that can be written to: "
                                             "Not a directory"), lock.output_lock(tmp_path / "file" / "out"):
        pass

    def refuse(path, wait_s=0.0):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock, "lock_file", refuse)
    with lock.output_lock(tmp_path):
        assert "cannot be locked (No locks available): see to it that no other run uses this directory" in caplog.text


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handling((signal.SIGINT,), lambda *_: None):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
