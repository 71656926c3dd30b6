"""Runs that are killed, stopped and started again: nothing is lost, and the end is the same."""

import json
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.runs.processes import run_until
from tests.runs.training.trouble import screens
from utils import checkpoint

pytestmark = pytest.mark.slow

TIMES = ("seconds_an_iteration", "share_waiting_for_data")

ITERATIONS = 13  # validations after 3, 6, 9, 12 and 13; gradients of two episodes add up to a step


def records(directory: Path) -> list[dict]:
    """log.jsonl without times."""
    lines = (directory / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def board(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's figures without times, as it shows them."""
    events = EventAccumulator(str(directory / "tensorboard"), {"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]
            if tag.split("/")[1] not in TIMES}


def assert_same_end(first: Path, second: Path) -> None:
    """Weights and optimizer bit for bit, the best, the records, the results."""
    for name in ("checkpoint_epoch_00005.pyth", "checkpoint_best.pyth"):
        a, b = (checkpoint.read(directory / "checkpoints" / name) for directory in (first, second))
        assert a["model_state"].keys() == b["model_state"].keys()
        assert all(torch.equal(value, b["model_state"][key]) for key, value in a["model_state"].items())
        for number, moments in a["optimizer_state"]["state"].items():
            assert all(torch.equal(value, b["optimizer_state"]["state"][number][key])
                       for key, value in moments.items())
        for key in ("iteration", "best", "best_iteration", "window", "validated"):
            assert a["resume"][key] == b["resume"][key]
    a, b = (json.loads((d / "results.json").read_text()) for d in (first, second))
    paths = {"checkpoint": "", "backbone": "", "test_id": "", "checksum": ""}
    assert {**a, **paths} == {**b, **paths}
    assert records(first) == records(second)
    assert board(first) == board(second) and board(first)["validation/accuracy"][-1][0] == ITERATIONS
    assert len(list((second / "tensorboard").iterdir())) == 1
    assert {p.name for p in second.iterdir()} == {p.name for p in first.iterdir()}
    assert (first / "curves.png").read_bytes() == (second / "curves.png").read_bytes()
    assert {p.name for p in (second / "checkpoints").iterdir()} == {p.name for p in (first / "checkpoints").iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_videos, write_tiny_project) -> Path:
    """OUTPUT_DIR of a run without interruption."""
    project = write_tiny_project(tmp_path_factory.mktemp("whole"), tiny_videos, "whole", NUM_TRAIN_TASKS=ITERATIONS)
    status, text = run_until(project)
    assert status == 0, text
    return project.parent / "whole"


def test_killed_at_any_moment_ends_the_same(whole, tiny_project):
    project = tiny_project("killed", NUM_TRAIN_TASKS=ITERATIONS)
    saved = project.parent / "killed" / "checkpoints"
    for moment, names in (
            ("iteration:3", []), ("validation:1", ["last"]), ("best:1", ["epoch_00001"]),
            ("iteration:2", ["best", "epoch_00001"]), ("numbered:1", ["best", "epoch_00001", "last"]),
            ("curves:2", None), ("validation:2", None), (".log.jsonl:1", None), (".curves.png:1", None)):
        status, text = run_until(project, moment=moment)
        assert status == -signal.SIGKILL, text
        found = sorted(p.stem.removeprefix("checkpoint_") for p in saved.iterdir() if p.suffix == ".pyth") \
            if saved.is_dir() else []
        assert names is None or found == names, (moment, found)
    status, text = run_until(project)
    assert status == 0, text
    assert_same_end(whole, project.parent / "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_running_iteration(whole, tiny_project, number):
    """In the middle of an accumulation of gradients, before any validation; in a validation; before the last test."""
    project = tiny_project("stopped", NUM_TRAIN_TASKS=ITERATIONS)
    directory = project.parent / "stopped"
    last, name = directory / "checkpoints" / "checkpoint_last.pyth", signal.Signals(number).name
    status, text = run_until(project, moment="iteration:1", number=number)
    assert status == 128 + number and "Traceback" not in text, text
    assert f"{name}: stopping after this iteration; a second signal stops at once" in text
    assert f"iteration 1 is saved in {last}" in text
    assert text.endswith(f"\nstopped by {name}; the same command goes on from {last}\n")
    assert checkpoint.read(last)["resume"]["gradients"] and len(records(directory)) == 1
    status, text = run_until(project, moment="validation:1", number=number)
    assert status == 128 + number and f"going on from {last} (iteration 1)" in text, text
    assert "iteration 3: validating on 4 episodes of val" in text and text.endswith(f"goes on from {last}\n")
    status, text = run_until(project, moment="validation:6", number=number)  # the sixth one is the test
    assert status == 128 + number and not last.is_file() and f"going on from {last} (iteration 3)" in text, text
    assert text.endswith("checkpoint_epoch_00005.pyth\n") and "on 6 episodes of test" in text
    status, text = run_until(project)
    assert status == 0 and "training is complete (iteration 13)" in text, text
    assert_same_end(whole, directory)


def test_where_pixels_are_made_may_change_on_the_way(whole, tiny_project):
    project, signalled = tiny_project("moved", NUM_TRAIN_TASKS=ITERATIONS), {"number": signal.SIGTERM}
    there = ("AUGMENTATION.USE_GPU", "true", "DATA_LOADER.NUM_WORKERS", "2")
    status, text = run_until(project, *there, moment="iteration:4", **signalled)
    assert status == 143 and "AUGMENTATION.USE_GPU: there is no GPU (NUM_GPUS 0)" in text, text
    status, text = run_until(project, moment="iteration:3", **signalled)
    assert status == 143 and "(iteration 4)" in text, text
    status, text = run_until(project, *there)
    assert status == 0 and "(iteration 7)" in text, text
    assert_same_end(whole, project.parent / "moved")


def test_a_second_signal_stops_at_once(tiny_project):
    project = tiny_project("twice")
    status, text = run_until(project, moment="iteration:1 and losses:1", number=signal.SIGTERM)
    assert status == 143, text
    assert text.endswith("\nstopped by SIGTERM; nothing saved yet: the same command starts anew\n")
    assert "a second signal stops at once" in text and not (project.parent / "twice" / "checkpoints").exists()


def test_a_closed_terminal_saves_and_its_second_signal_is_heeded_not(tiny_project):
    """The shell sends SIGHUP, and the kernel once more."""
    project = tiny_project("hung_up")
    status, text = run_until(project, moment="iteration:1 and losses:1", number=signal.SIGHUP)
    last = project.parent / "hung_up" / "checkpoints" / "checkpoint_last.pyth"
    assert status == 129 and text.endswith(f"\nstopped by SIGHUP; the same command goes on from {last}\n"), text


@pytest.mark.parametrize("stdout, stderr, number", [
    ("/dev/full", "/dev/full", 0), (None, None, 0), ("gone", "gone", signal.SIGTERM)])
def test_the_screen_is_not_the_work(tiny_project, stdout, stderr, number):
    """Full, closed, or a pipe that nobody reads; class names that ASCII lacks, and one that would clear the screen."""
    project = tiny_project("screen", NUM_TRAIN_TASKS=4)
    names = json.dumps(["跑步", "a\x1b[2Jb", "c", "d", "e"])
    moment = {"moment": "iteration:2", "number": number} if number else {}
    status, _ = run_until(project, "TEST.CLASS_NAME", names, **moment, prepare=partial(screens, stdout, stderr))
    out = project.parent / "screen"
    if number:
        assert status == 128 + number and (out / "checkpoints" / "checkpoint_last.pyth").is_file()
        status, text = run_until(project, "TEST.CLASS_NAME", names, prepare=partial(screens, "ascii", "ascii"))
        assert "\\u8dd1\\u6b65" in text and "\x1b[2J" not in text, text
    log = (out / "training_log.log").read_text()
    assert status == 0 and (out / "report.html").is_file() and "iteration 4/4: loss" in log and "\x1b" not in log


def test_a_signal_before_the_training_and_in_a_test_alone(tiny_project):
    project = tiny_project("early", NUM_TRAIN_TASKS=1)
    status, text = run_until(project, moment="board:1", number=signal.SIGTERM)
    assert status == 143 and text.endswith("nothing saved yet: the same command starts anew\n"), text
    assert run_until(project)[0] == 0
    status, text = run_until(project, "TRAIN.ENABLE", "false", "TEST.ENABLE", "true", moment="validation:1",
                             number=signal.SIGINT)
    assert status == 130 and text.endswith("\nstopped by SIGINT; the same command starts the test anew\n"), text


@pytest.mark.parametrize("moment, number", [("worker:4", signal.SIGINT), ("worker:4", signal.SIGTERM),
                                            ("group iteration:4", signal.SIGTERM),
                                            ("worker:50", signal.SIGTERM)])
def test_a_signal_to_the_whole_process_group_spares_the_workers(tiny_project, moment, number):
    """Ctrl-C in a terminal and scancel reach the workers, too. Only a validation has an episode 50."""
    project = tiny_project("group", NUM_TRAIN_TASKS=ITERATIONS, NUM_VAL_TASKS=100)
    status, text = run_until(project, "DATA_LOADER.NUM_WORKERS", "2", "TEST.FEATURE_STORE", "false", moment=moment,
                             number=number)
    assert status == 128 + number and "Traceback" not in text, text
    assert "checkpoint_last.pyth" in text.splitlines()[-1] and "Error" not in text
