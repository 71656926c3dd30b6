"""runs/run.py in processes that end in the middle of something, forked from a server that has imported it before."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from datasets.few_shot import FewShotDataset
from runs import launching, learner, results, train, trainer
from runs.evaluate import Evaluator
from runs.run import main
from utils import checkpoint

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.runs.processes"])


def _before(owner: object, name: str, when: Callable[..., bool], send: Callable[[], None]) -> None:
    """Send a signal before owner.name is called with arguments that fit."""
    original = getattr(owner, name)

    def wrapped(*arguments, **named):
        if when(*arguments):
            send()
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def _saves(start: str) -> Callable[[object, Path], bool]:
    return lambda state, path: path.name.startswith(start)


MOMENTS = {
    "iteration": (train, "set_lr", None),
    "losses": (learner, "step_losses", None),
    "validation": (Evaluator, "_evaluation", None),  # the test at the end is one, too
    "curves": (results, "plot_curves", None),
    "board": (trainer, "SummaryWriter", None),  # before the training
    "numbered": (checkpoint, "atomic_save", _saves("checkpoint_epoch")),
    "best": (checkpoint, "atomic_save", _saves("checkpoint_best")),
}


def install(moment: str, number: int) -> None:
    """Patch this process so that a signal comes at "name:count", the count-th time (from 1, in this process) that it
    comes to one of MOMENTS. "group name:count": to its workers, too; "parent name:count": to its launcher alone.
    "worker:n": to all, while the main process waits for episode n. Several moments: joined by " and "."""
    for one in moment.split(" and "):
        name, _, count = one.split(" ")[-1].partition(":")
        kill, target = (os.killpg, 0) if one.startswith("group ") or name == "worker" else (os.kill, os.getpid())
        send = partial(kill, os.getppid() if one.startswith("parent ") else target, number)
        if name == "worker":
            _before(FewShotDataset, "__getitem__", lambda dataset, index, n=int(count): index == n,
                    lambda send=send: (send(), time.sleep(0.3)))
            continue
        owner, function, fits = MOMENTS[name]
        calls = iter(range(1, 10**6))
        _before(owner, function, lambda *given, fits=fits, calls=calls, n=int(count):
                (fits is None or fits(*given)) and next(calls) == n, send)


def _run(arguments: list[str], moment: str, number: int, output: Path, rank: int | None) -> None:
    os.setsid()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the ranks, and here: other numbers of threads round otherwise
    torch.set_num_threads(1)
    launching.RUN = str(Path(__file__).with_name("one_rank.py"))
    if rank is not None:
        os.environ.update(MOMENT_RANK=str(rank), MOMENT=moment, MOMENT_SIGNAL=str(int(number)))
        moment = ""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    if moment:
        install(moment, number)
    sys.exit(main(arguments))


def run_until(project: Path, *settings: str, moment: str = "", number: int = signal.SIGKILL,
              rank: int | None = None) -> tuple[int, str]:
    """(exit status, what it wrote) of a run to which a signal comes at a moment (see install), or to a rank of it.
    Minus the signal's number: it killed the run."""
    output = project.parent / "output.txt"
    process = _CONTEXT.Process(target=_run, args=(["--cfg", str(project), *settings], moment, number, output, rank))
    process.start()
    process.join(200)
    assert process.exitcode is not None, output.read_text()
    return process.exitcode, output.read_text()
