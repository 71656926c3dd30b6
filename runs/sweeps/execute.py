"""Runs combinations as processes, some at a time; a killed sweep goes on where it stopped."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from tqdm import tqdm

from runs.sweeps.grid import Combination
from utils.command import printable
from utils.cores import cores
from utils.files import whole_file
from utils.json_files import read_json
from utils.lock import lock_file
from utils.signals import handling

MARKER = "sweep_done.json"
LOG = "output.log"
LOCK = ".sweep.lock"
LAST_LINES = 15
_POLL_SECONDS = 0.1
_STOP = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))  # signal, seconds it is given to work


def is_done(combination: Combination) -> bool:
    """Tell whether a combination ended well with these settings, and its results are still there."""
    marker = read_json(combination.directory / MARKER) or {}
    return (marker.get("config_sha256") == combination.config_sha256
            and (combination.directory / "results.json").is_file())


def marker_text(combination: Combination, seconds: float | None = None) -> str:
    """Return the content of the file that marks a combination as done, with the seconds of its last attempt."""
    took = {} if seconds is None else {"seconds": round(seconds, 1)}
    return json.dumps({"config_sha256": combination.config_sha256, "command": combination.command(), **took})


def environment(jobs: int) -> dict[str, str]:
    """Return the environment of a run: with several at once, each computes with its share of the cores."""
    share = {"OMP_NUM_THREADS": str(max(1, cores() // jobs))} if jobs > 1 else {}
    return {**os.environ, **share}


def last_lines(log: Path, start: int = 0) -> list[str]:
    """Return the last lines of a log from a position on."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(start, file.tell() - 20_000))
        return file.read().decode("utf-8", "replace").splitlines()[-LAST_LINES:]


@dataclass(frozen=True, slots=True)
class Failure:
    """Says which combination did not end well, and why: the last lines of its log."""

    combination: Combination
    reason: str
    lines: list[str]

    def __str__(self) -> str:
        """Write the failure as shown on the screen."""
        lines = "".join(f"    {line}\n" for line in self.lines)
        return f"failed: {self.combination.name} ({self.reason})\n{lines}  directory: {self.combination.directory}"


@dataclass(slots=True)
class _Running:
    """Holds a process, its log, where this attempt starts in the log, the lock on its directory, and when it began."""

    combination: Combination
    process: subprocess.Popen
    log: Path
    start: int
    lock: IO[bytes]
    began: float


@dataclass(slots=True)
class Outcome:
    """Says what became of a sweep."""

    done: list[Combination] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    stopped_by: int | None = None  # the signal that came before the end


def _launch(combination: Combination, jobs: int, lock: IO[bytes]) -> _Running:
    """Start the process of one run, which writes at the end of its log.

    It has a session of its own, so that Ctrl-C reaches it and its workers through `_stop` alone. It inherits the lock,
    which so outlives a sweep that is killed.
    """
    log, command = combination.directory / LOG, combination.command()
    with log.open("ab") as file:
        file.write(f"--- {datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC {shlex.join(command)}\n".encode())
        file.flush()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env=environment(jobs), start_new_session=True, pass_fds=(lock.fileno(),))
        return _Running(combination, process, log, file.tell(), lock, time.monotonic())


def _start(combination: Combination, jobs: int) -> _Running | Failure | Combination | None:
    """Start one run. None: another process, such as the run of a sweep that was killed, is at work in its directory.
    The combination itself: another sweep has done it by now."""
    directory = combination.directory
    lock = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = lock_file(directory / LOCK)
        if is_done(combination):
            lock.close()
            return combination
        (directory / MARKER).unlink(missing_ok=True)
        return _launch(combination, jobs, lock)
    except OSError as error:
        if lock:
            lock.close()
        busy = isinstance(error, BlockingIOError)
        return None if busy else Failure(combination, f"cannot be started: {error}", [])


def _finish(running: _Running) -> Failure | None:
    """Write the marker after the end of a process, or return what went wrong."""
    status = running.process.returncode
    running.lock.close()
    if status == 0:
        with whole_file(running.combination.directory / MARKER) as part:
            text = marker_text(running.combination, time.monotonic() - running.began)
            part.write_text(text + "\n", encoding="utf-8")
        return None
    reason = f"exit status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
    return Failure(running.combination, reason, last_lines(running.log, running.start))


def _stop(runs: Sequence[_Running]) -> None:
    """End processes and their workers: as Ctrl-C does first, then by force."""
    for number, seconds in _STOP:
        alive = [run for run in runs if run.process.poll() is None]
        for run in alive:
            os.killpg(run.process.pid, number)  # not reaped yet, so the group exists
        deadline = time.monotonic() + seconds
        for run in alive:
            try:
                run.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
    for run in runs:
        run.lock.close()


def _show(bar: tqdm, outcome: Outcome, running: int) -> None:
    """Redraw the bar; in a log file only where something has changed."""
    text = f"done {len(outcome.done)}, failed {len(outcome.failed)}, running {running}"
    bar.n = len(outcome.done) + len(outcome.failed)
    if text != bar.postfix:
        bar.set_postfix_str(text)
    elif sys.stderr.isatty():
        bar.refresh()


def _collect(running: list[_Running], outcome: Outcome, bar: tqdm) -> None:
    """Move the processes that have ended from `running` to the outcome."""
    for run in [run for run in running if run.process.poll() is not None]:
        running.remove(run)
        failure = _finish(run)
        if failure:
            outcome.failed.append(failure)
            bar.write(printable(str(failure)), file=sys.stderr)
        else:
            outcome.done.append(run.combination)


def _begin(combination: Combination, jobs: int, running: list[_Running], outcome: Outcome, bar: tqdm) -> bool:
    """Start a run and put it where it belongs; return whether its directory is busy, so that it has to wait."""
    started = _start(combination, jobs)
    if isinstance(started, _Running):
        running.append(started)
    elif isinstance(started, Failure):
        outcome.failed.append(started)
        bar.write(printable(str(started)), file=sys.stderr)
    elif started:
        outcome.done.append(started)
    return started is None


def execute(combinations: Sequence[Combination], jobs: int) -> Outcome:
    """Run what is not done, at most `jobs` at once. A failure does not stop the others.

    A run that a killed sweep has left at work counts as one of the `jobs`: its end is waited for, then it goes on here.
    After Ctrl-C, SIGTERM or a closed terminal the processes are ended, and the outcome names the signal.
    """
    outcome = Outcome(done=[c for c in combinations if is_done(c)])
    pending = [c for c in combinations if c not in outcome.done]
    running: list[_Running] = []
    busy: list[Combination] = []
    said: set[str] = set()
    bar = tqdm(total=len(combinations), initial=len(outcome.done), desc="sweep", unit="run", smoothing=0.0)
    came: list[int] = []  # asked for between two steps, so that no process is started and forgotten
    with handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), lambda number, frame: came.append(number)):
        try:
            while (pending or running or busy) and not came:
                pending, busy = [*busy, *pending], []
                while pending and len(running) + len(busy) < jobs:
                    if _begin(combination := pending.pop(0), jobs, running, outcome, bar):
                        busy.append(combination)
                for name in {combination.name for combination in busy} - said:
                    bar.write(f"{name}: another process is running it; waiting for its end", file=sys.stderr)
                    said.add(name)
                _show(bar, outcome, len(running))
                time.sleep(_POLL_SECONDS)
                _collect(running, outcome, bar)
            outcome.stopped_by = came[0] if came and (pending or running or busy) else None
        finally:
            _stop(running)
            _show(bar, outcome, 0)
            bar.close()
    outcome.done.sort(key=combinations.index)
    return outcome
