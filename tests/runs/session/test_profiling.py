"""--profile: the phases of a step, timed and traced, without a trace in the run."""

import gzip
import json
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import called, run_command
from utils import phases
from utils.phases import Recorder, phase, recording

PHASES = ("data wait", "encoder", "modulator", "alignment", "backward", "optimizer")

main = called("run")


@pytest.mark.slow
def test_phases_are_timed_and_traced_and_nothing_else_is_written(tiny_project, tmp_path):
    project = tiny_project(BATCH_SIZE_PER_TASK=2)
    done = run_command("--cfg", project, "--profile", "3", "TRAIN.EPISODES_PER_STEP", "2")
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "run"
    assert [path.name for path in directory.iterdir()] == ["profile"]
    assert {path.name for path in (directory / "profile").iterdir()} == {
        "profile.json", "profile.png", "profile.log", "trace.json.gz"}
    found = json.loads((directory / "profile" / "profile.json").read_text())
    assert (found["steps"], found["iterations"], found["device"]) == (3, 6, "cpu")
    assert list(found["phases"]) == [*PHASES, "the rest"]
    assert all(seconds > 0 for seconds in found["phases"].values())
    assert sum(found["phases"].values()) == pytest.approx(found["seconds"])
    with gzip.open(directory / "profile" / "trace.json.gz", "rt") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    marks = {name: names.count(name) for name in PHASES}
    assert marks == {"data wait": 3, "encoder": 3, "modulator": 12, "alignment": 6, "backward": 3, "optimizer": 3}
    words = done.stdout
    assert "steps 3, iterations 6, in one process on cpu: " in words and "  data wait " in words and "aten::" in words
    assert "gpuGetDeviceCount" not in done.stderr


def test_a_test_alone_has_no_steps(tiny_project, capsys):
    assert main(["--cfg", str(tiny_project()), "--profile", "1", "TRAIN.ENABLE", "false", "TEST.ENABLE", "true"]) == 1
    assert "--profile: expected TRAIN.ENABLE true" in capsys.readouterr().err


@pytest.mark.parametrize("steps, environment, said", [
    ("0", {}, "LaunchError: --profile: expected one step or more, found 0"),
    ("2", {"RANK": "0", "WORLD_SIZE": "1"}, "LaunchError: --profile looks at one process: start it without torchrun")])
def test_what_cannot_be_profiled_is_told(tiny_project, capsys, monkeypatch, steps, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["--cfg", str(tiny_project()), "--profile", steps]) == 1
    assert said in capsys.readouterr().err


def test_phases_are_recorded_in_the_block_only(monkeypatch):
    clock = iter((1.0, 3.0, 10.0, 15.0))  # seconds of the two phases in the block: 2 and 5
    monkeypatch.setattr(phases, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    recorder = Recorder(torch.device("cpu"))
    with phase("encoder"):
        pass
    assert not recorder.seconds
    with recording(recorder):
        for _ in range(2):
            with phase("encoder"):
                pass
    with phase("encoder"):
        pass
    assert recorder.seconds == {"encoder": 7.0}
