"""How the benchmarks' commands end: by a signal, by an error."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from runs.benchmarks import bench_ranks, bench_step, run
from runs.benchmarks.record import Finding, Record, write_record
from runs.benchmarks.rows import Row
from tests.conftest import REPOSITORY, TINY_TOWER
from utils.command import command
from utils.errors import BenchmarkError
from utils.signals import Stopped


def _until(what, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def _stopped(scratch: Path, number: int, script: str, *arguments: str, begun: str) -> tuple[int, str]:
    """(exit status, stderr) of a command that gets a signal when a process whose command line holds `begun` runs below
    it, as Ctrl-C: SIGINT goes to all of them. Asserts that none of its processes and none of its files are left."""
    scratch.mkdir()
    started = subprocess.Popen(
        [sys.executable, f"runs/benchmarks/{script}", *arguments], cwd=REPOSITORY, text=True, stdout=subprocess.DEVNULL,
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


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_step_that_is_stopped_leaves_nothing(tmp_path, number, status):
    (tmp_path / "tower.json").write_text(json.dumps(TINY_TOWER))
    found, told = _stopped(tmp_path / "scratch", number, "bench_step.py", "--device", "cpu", "--backbone",
                           str(tmp_path / "tower.json"), "--way", "2", "--repeats", "1000", begun="spawn_main")
    assert found == status, told
    assert f"stopped by {signal.Signals(number).name}" in told and "Traceback" not in told


def test_ranks_that_are_stopped_leave_nothing(tmp_path):
    found, told = _stopped(tmp_path / "scratch", signal.SIGTERM, "bench_ranks.py", "--data", str(tmp_path / "data"),
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


@pytest.mark.parametrize("module, arguments, message", [
    (bench_ranks, ["--data", "x", "--turns", "0"], "--turns: expected a whole number above 0, found '0'"),
    (bench_ranks, ["--data", "x", "--iterations", "1.5"], "--iterations: expected a whole number above 0, found '1.5'"),
    (bench_ranks, ["--data", "x", "--ranks", "1"], "--ranks: expected a whole number of at least 2, found '1'"),
    (bench_step, ["--seconds", "nan"], "--seconds: expected a finite number above 0, found 'nan'"),
    (bench_step, ["--seconds", "0"], "--seconds: expected a finite number above 0, found '0'"),
    (bench_step, ["--threads", "99999"], ", the cores of this machine, found '99999'"),
    (run, ["--threshold", "inf"], "--threshold: expected a finite number of at least 0, found 'inf'"),
    (run, ["--threshold", "five"], "--threshold: expected a finite number of at least 0, found 'five'"),
])
def test_wrong_values_of_options(monkeypatch, capsys, module, arguments, message):
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit):
        module.main()
    assert message in capsys.readouterr().err


def test_a_place_that_takes_no_videos_is_one_message(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["benchmark", "--data", str(tmp_path / "file" / "videos")])
    assert command(bench_ranks.main) == 1
    assert "file/videos" in capsys.readouterr().err


@pytest.mark.parametrize("place, message", [
    ("", "expected the name of a file, found a directory"), ("file/a.json", "cannot be written: ")])
def test_out_is_tried_before_anything_is_measured(tmp_path, monkeypatch, place, message):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run, "run_suite", lambda *_: pytest.fail("measured"))
    with pytest.raises(BenchmarkError, match=message):
        run.main(["--out", str(tmp_path / place)])


def test_strict_needs_something_that_can_be_judged(tmp_path):
    for name, cpu in (("old", "A"), ("new", "B")):
        found = {"decode": Finding({}, [Row("frames", "clips/s", [1.0])], 1)}
        write_record(tmp_path / f"{name}.json", Record({"cpu": cpu}, {}, None, found))
    both = ["--read", str(tmp_path / "new.json"), "--compare", str(tmp_path / "old.json")]
    assert run.main(both) == 0
    with pytest.raises(BenchmarkError, match="--strict: nothing was compared: none of the 1 rows could be judged"):
        run.main([*both, "--strict"])


def test_what_a_stopped_suite_says_of_its_file(tmp_path, monkeypatch):
    def stop(done):
        raise KeyboardInterrupt

    parts = {"one": lambda done: [Row("a", "ms", [1.0])], "stopped": stop}
    monkeypatch.setattr(run, "SUITE", {name: run.Benchmark(
        SimpleNamespace(settings=lambda quick: {}, measure=measure), None, (1, 1)) for name, measure in parts.items()})
    for names, message in ((["stopped"], "nothing was written"), (["one", "stopped"], "had ended are in .*a.json")):
        with pytest.raises(Stopped, match=message):
            run.run_suite(names, tmp_path, tmp_path / "a.json", True)
