"""What befalls a run in tests/runs/training/test_bounded.py: `prepare` of processes.run_until, in the run's process."""

import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from datasets.few_shot import FewShotDataset
from runs.evaluation import score_checkpoint
from runs.training import loop as train
from runs.training import records
from tests.runs.processes import before
from utils import checkpoint, signals
from utils.logging import RecordLog

SHARED = Path("/dev/shm")


def patient(prepare: Callable[..., None], *arguments) -> None:
    """Do `prepare`, in a run whose workers would wait for longer than processes.run_until does."""
    signals.WORKER_SECONDS = 1000
    prepare(*arguments)


def _usage() -> dict[str, int]:
    """What this process and its workers hold."""
    process = psutil.Process()
    workers = process.children(recursive=True)
    maps = Path("/proc/self/maps").read_text()
    return {"bytes": process.memory_info().rss + sum(w.memory_full_info().uss for w in workers),
            "workers": len(workers), "files": process.num_fds(), "threads": process.num_threads(),
            "shared": sum(str(SHARED) in line for line in maps.splitlines())}


def watch(path: Path, iterations: tuple[int, ...], leak: int = 0) -> None:
    """Note what the run holds at some iterations, and what it leaves in /dev/shm; perhaps keep bytes each iteration.

    Figures are reference cycles, and Python looks for cycles the more rarely the more was imported: here, often.
    """
    calls, kept = iter(range(1, 10**6)), []

    def note() -> None:
        with path.open("a") as file:
            file.write(json.dumps({"process": os.getpid(), **_usage()}) + "\n")

    def due(*_) -> bool:
        kept.append(b"x" * leak)
        number = next(calls)
        if number % 10 == 0:
            gc.collect()
        return number in iterations

    before(train, "set_lr", due, note)


def _in_worker(index: int, act: Callable[[], None]) -> None:
    """Do something in the worker that is to make training episode `index`."""
    before(FewShotDataset, "__getitem__", lambda dataset, i: i == index and dataset.sampler.split == "train", act)


def kill(number: int) -> None:
    """Kill a worker."""
    _in_worker(4, lambda: os.kill(os.getpid(), number))


def small_shared_memory() -> None:
    """ulimit -f holds for shared memory, too."""
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    _in_worker(4, limit)


def full_disk(name: str, count: int, limit: int) -> None:
    """From the count-th call of a function on, no file may grow beyond `limit` bytes: ulimit -f for a full disk."""
    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        os.ftruncate(1, 0)  # it holds for the screen's file, too

    calls = iter(range(1, 10**6))
    owner = {"atomic_save": checkpoint, "plot_curves": records, "write": RecordLog,
             "write_predictions": score_checkpoint}[name]
    before(owner, name, lambda *_: next(calls) == count, full)


def screens(stdout: str | None, stderr: str | None) -> None:
    """Other standard streams: a file's name, "gone" (a pipe that nobody reads), "ascii", None: closed."""
    for number, name, way in ((1, "stdout", stdout), (2, "stderr", stderr)):
        if way == "ascii":
            getattr(sys, name).reconfigure(encoding="ascii", errors="strict")
        elif way is None:
            os.close(number)
            setattr(sys, name, None)
        elif way == "gone":
            reading, writing = os.pipe()
            os.dup2(writing, number)
            os.close(reading)
            os.close(writing)
        else:
            os.dup2(os.open(way, os.O_WRONLY), number)
