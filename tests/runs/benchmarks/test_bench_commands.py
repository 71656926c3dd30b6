"""How the benchmarks' commands end: by a signal, by an error."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runs.benchmarks import run, suite
from runs.benchmarks.record import Finding, Record, write_record
from runs.benchmarks.rows import Row
from tests.conftest import REPOSITORY, TINY_TOWER, called
from tests.runs.benchmarks.parts import part
from utils.command import command
from utils.errors import BenchmarkError
from utils.signals import Stopped

benchmark = called("benchmark")


def _until(what, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def _stopped(scratch: Path, number: int, *arguments: str, begun: str) -> tuple[int, str]:
    """(exit status, stderr) of a command that gets a signal when a process whose command line holds `begun` runs below
    it, as Ctrl-C: SIGINT goes to all of them. Asserts that none of its processes and none of its files are left."""
    scratch.mkdir()
    started = subprocess.Popen(
        [sys.executable, "runs/benchmarks/run.py", *arguments], cwd=REPOSITORY, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True, env={
            **os.environ, "TMPDIR": str(scratch), "TORCHINDUCTOR_CACHE_DIR": str(scratch.parent / "kept by torch")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # noqa: PLW1509
    family: dict[int, psutil.Process] = {}

    def began() -> bool:
        assert started.poll() is None, started.stderr.read()
        for one in psutil.Process(started.pid).children(recursive=True):
            family[one.pid] = one
        return any(begun in " ".join(one.cmdline()) for one in family.values()
                   if one.is_running() and one.status() != psutil.STATUS_ZOMBIE)

    try:
        _until(began)
        time.sleep(1)
        (os.killpg if number == signal.SIGINT else os.kill)(started.pid, number)
        _, told = started.communicate(timeout=60)
    finally:
        started.kill()
    _, left = psutil.wait_procs(family.values(), timeout=10)
    assert not left
    assert not list(scratch.iterdir())
    return started.returncode, told


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_step_that_is_stopped_leaves_nothing(tmp_path, number, status):
    (tmp_path / "tower.json").write_text(json.dumps(TINY_TOWER))
    found, told = _stopped(tmp_path / "scratch", number, "step", "--device", "cpu", "--backbone",
                           str(tmp_path / "tower.json"), "--way", "2", "--repeats", "1000", begun="spawn_main")
    assert found == status, told
    assert f"stopped by {signal.Signals(number).name}" in told and "Traceback" not in told


@pytest.mark.slow
def test_ranks_that_are_stopped_leave_nothing(tmp_path):
    found, told = _stopped(tmp_path / "scratch", signal.SIGTERM, "ranks", "--data", str(tmp_path / "data"),
                           "--iterations", "1000", begun="runs/run.py")
    assert found == 143, told
    assert "stopped by SIGTERM" in told and "Traceback" not in told


@pytest.mark.parametrize("raised, status, message", [
    (BenchmarkError("no clips"), 1, "\nBenchmarkError: no clips\n"),
    (PermissionError(13, "Permission denied", "data"), 1, "\ndata: cannot be read or written: Permission denied\n"),
    (Stopped(signal.SIGTERM, "so it is"), 143, "\nstopped by SIGTERM; so it is\n"),
    (KeyboardInterrupt(), 130, "\nstopped by SIGINT; what was saved before is untouched\n"),
    (None, 0, ""),
])
def test_ends_of_a_command(capsys, raised, status, message):
    def main():
        if raised is not None:
            raise raised

    assert command(main) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("arguments, message", [
    (["ranks", "--turns", "0"], "--turns: expected a whole number above 0, found '0'"),
    (["ranks", "--iterations", "1.5"], "--iterations: expected a whole number above 0, found '1.5'"),
    (["ranks", "--counts", "1", "two"], "--counts: expected a whole number above 0, found 'two'"),
    (["loader", "--data", "x", "--epsodes", "1"], "unrecognized arguments: --epsodes"),
    (["step", "--least", "nan"], "--least: expected a finite number above 0, found 'nan'"),
    (["step", "--least", "0"], "--least: expected a finite number above 0, found '0'"),
    (["step", "--episodes", "0"], "--episodes: expected a whole number above 0, found '0'"),
    (["step", "--size", "x"], "--size: expected a whole number of at least 0, found 'x'"),
    (["--threshold", "inf"], "--threshold: expected a finite number of at least 0, found 'inf'"),
    (["--threshold", "five"], "--threshold: expected a finite number of at least 0, found 'five'"),
    (["steps"], "unrecognized arguments: steps"),
    (["--only", "steps"], "expected some of decode, loader, alignment, step, encode, evaluation, ranks, found 'steps'"),
])
def test_wrong_values_of_options(capsys, arguments, message):
    with pytest.raises(SystemExit):
        benchmark(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", suite.BENCHMARKS)
def test_every_benchmark_has_a_command(name, capsys):
    """Its help shows its settings; the example that the list of commands gives is one that it takes."""
    with pytest.raises(SystemExit, match="0"):
        benchmark([name, "--help"])
    text, options = capsys.readouterr().out, suite.BENCHMARKS[name].load().settings(False)
    assert all(f"--{option.replace('_', '-')} " in text for option in options) and run.COMMANDS[name][1] in text
    parser = argparse.ArgumentParser()
    run.load(name).add_arguments(parser)
    parser.parse_args(run.COMMANDS[name][1].split()[3:])


def test_a_place_that_takes_no_videos_is_one_message(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert benchmark(["ranks", "--data", tmp_path / "file" / "videos"]) == 1
    assert "file/videos" in capsys.readouterr().err


def test_more_threads_than_cores_are_refused(capsys):
    assert benchmark(["step", "--cpu-threads", "99999"]) == 1
    assert ", the cores of this machine, found 99999" in capsys.readouterr().err


@pytest.mark.parametrize("place, message", [
    ("", "expected the name of a file, found a directory"), ("file/a.json", "cannot be written: ")])
def test_out_is_tried_before_anything_is_measured(tmp_path, monkeypatch, capsys, place, message):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(suite, "run_suite", lambda *_: pytest.fail("measured"))
    assert benchmark(["--out", tmp_path / place]) == 1
    assert message in capsys.readouterr().err


def test_strict_needs_something_that_can_be_judged(tmp_path, capsys):
    for name, cpu in (("old", "A"), ("new", "B")):
        found = {"decode": Finding({}, [Row("frames", "clips/s", [1.0])], 1)}
        write_record(tmp_path / f"{name}.json", Record({"cpu": cpu}, {}, None, found))
    both = ["--read", str(tmp_path / "new.json"), "--compare", str(tmp_path / "old.json")]
    assert benchmark(both) == 0
    assert benchmark([*both, "--strict"]) == 1
    assert "--strict: nothing was compared: none of the 1 rows could be judged" in capsys.readouterr().err
    assert benchmark(["--strict"]) == 1
    assert "--strict: expected --compare OLD.json beside it, found none" in capsys.readouterr().err


def test_what_a_stopped_suite_says_of_its_file(tmp_path, monkeypatch):
    def stop(done):
        raise KeyboardInterrupt

    parts = {"one": lambda done: [Row("a", "ms", [1.0])], "stopped": stop}
    monkeypatch.setattr(suite, "SUITE", {name: part(measure) for name, measure in parts.items()})
    for names, message in ((["stopped"], "nothing was written"), (["one", "stopped"], "had ended are in .*a.json")):
        with pytest.raises(Stopped, match=message):
            suite.run_suite(names, tmp_path, tmp_path / "a.json", True)
