"""How the benchmarks' commands end: by a signal, by an error."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runs.benchmarks.ending import command
from tests.conftest import REPOSITORY, TINY_TOWER
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
        return any(begun in " ".join(one.cmdline()) for one in family.values() if one.is_running())

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
