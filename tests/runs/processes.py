"""runs/run.py in processes that end in the middle of something, forked from a server that has imported it before, as
are its ranks."""

import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler

from datasets.few_shot import FewShotDataset
from runs.evaluation.evaluate import Evaluator
from runs.training import loop as train
from runs.training import records
from runs.training import step as learner
from tests.conftest import called
from utils import checkpoint
from utils.errors import VideoDecodeError

main = called("run")

_CONTEXT = multiprocessing.get_context("forkserver")
# With what a run imports on its way, which takes longer than a tiny run itself.
_CONTEXT.set_forkserver_preload([
    "tests.runs.processes", "runs.session.session", "open_clip", "torchvision.transforms.v2", "scipy.stats", "pandas",
    "pyarrow.parquet", "matplotlib.backends.backend_agg", "jinja2", "fvcore.nn"])


def before(owner: object, name: str, when: Callable[..., bool], send: Callable[[], None]) -> None:
    """Send a signal before owner.name is called with arguments that fit."""
    original = getattr(owner, name)

    def wrapped(*arguments, **named):
        if when(*arguments):
            send()
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def _saves(start: str) -> Callable[[object, Path], bool]:
    return lambda state, path: path.name.startswith(start)


def _send_to_launcher(number: int) -> None:
    """A signal to the launcher of this rank; comes back when the launcher has passed it on to this rank."""
    arrived, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    os.kill(os.getppid(), number)
    select.select([arrived], [], [], 60)
    signal.set_wakeup_fd(-1)


MOMENTS = {
    "iteration": (train, "set_lr", None),
    "losses": (learner, "step_losses", None),
    "validation": (Evaluator, "_evaluation", None),  # the test at the end is one, too
    "curves": (records, "plot_curves", None),
    "board": (records, "SummaryWriter", None),  # before the training
    "numbered": (checkpoint, "atomic_save", _saves("checkpoint_epoch")),
    "best": (checkpoint, "atomic_save", _saves("checkpoint_best")),
}


def _note(moment: str) -> None:
    """Write down that a moment has come, for run_until."""
    if path := os.environ.get("MOMENTS_CAME"):
        with open(path, "a") as file:
            file.write(f"{moment}\n")


def install(moment: str, number: int) -> None:
    """Patch this process so that a signal comes at "name:count", the count-th time (from 1, in this process) that it
    comes to one of MOMENTS. "group name:count": to its workers, too; "parent name:count": to its launcher.
    ".file:count": before a whole file gets its name.
    "worker:n": to all, while the main process waits for episode n. Several moments: joined by " and "."""
    for one in moment.split(" and "):
        name, _, count = one.split(" ")[-1].partition(":")
        kill, target = (os.killpg, 0) if one.startswith("group ") or name == "worker" else (os.kill, os.getpid())
        signalled = partial(_send_to_launcher, number) if one.startswith("parent ") else partial(kill, target, number)
        send = partial(lambda one, signalled: (_note(one), signalled()), one, signalled)
        if name == "worker":
            before(FewShotDataset, "__getitem__", lambda dataset, index, n=int(count): index == n,
                    lambda send=send: (send(), time.sleep(0.3)))
            continue
        if name.startswith("."):
            owner, function, fits = os, "replace", lambda part, path, name=name: Path(path).name == name[1:]
        else:
            owner, function, fits = MOMENTS[name]
        calls = iter(range(1, 10**6))
        before(owner, function, lambda *given, fits=fits, calls=calls, n=int(count):
                (fits is None or fits(*given)) and next(calls) == n, send)


def spoil(what: str, iteration: int) -> None:
    """Make the loss of an iteration (from 1) NaN, or raise in it: "nan", "typed" or "bug"."""
    original, calls = learner.step_losses, iter(range(1, 10**6))

    def wrapped(*arguments):
        losses, correct = original(*arguments)
        if next(calls) == iteration:
            _note(f"{what}:{iteration}")
            if what == "typed":
                raise VideoDecodeError("a.mp4", "cannot be read")
            if what == "bug":
                raise ZeroDivisionError("a bug")
            losses = {name: loss * float("nan") for name, loss in losses.items()}
        return losses, correct

    learner.step_losses = wrapped


def be_rank(arguments: list[str]) -> int:
    """runs/run.py as one rank; what is to happen to one of them (see run_until), once, stands in the environment."""
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if os.environ.get("MOMENT_RANK") == os.environ["RANK"] and not again:
        what, _, iteration = os.environ["MOMENT"].partition(":")
        if what in ("nan", "typed", "bug"):
            spoil(what, int(iteration))
        else:
            install(os.environ["MOMENT"], int(os.environ["MOMENT_SIGNAL"]))
    return main(arguments)


class ForkedRank:
    """In place of the subprocess.Popen of a rank: a process that has imported everything already, forked from its
    launcher while that has no other thread, and told later what it is to run."""

    def __init__(self):
        self._pipe, its_end = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=self._wait, args=(its_end,))
        self._process.start()
        self.pid = self._process.pid
        self._pipe.recv()

    @staticmethod
    def _wait(pipe) -> None:
        os.setsid()  # as the launcher's Popen does it
        pipe.send("ready")
        arguments, environment = pipe.recv()
        os.environ.update(environment)
        sys.exit(be_rank(list(arguments)))

    def begin(self, arguments: tuple[str, ...], environment: dict[str, str]) -> "ForkedRank":
        """Run `python runs/run.py *arguments`."""
        self._pipe.send((arguments[2:], environment))
        return self

    def poll(self) -> int | None:
        """Exit status, minus the number of the signal that ended it, or None."""
        return self._process.exitcode

    def wait(self, seconds: float) -> None:
        """As subprocess.Popen.wait."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("rank", seconds)


def _fork_ranks(arguments: list[str]) -> list[ForkedRank]:
    """The ranks of a command line, for this process to launch."""
    count = int(arguments[arguments.index("NUM_PROCESSES") + 1]) if "NUM_PROCESSES" in arguments else 1
    ranks = [ForkedRank() for _ in range(count if count > 1 else 0)]
    waiting = iter(ranks)
    SubprocessHandler._popen = lambda handler, given, environment: next(waiting).begin(given, environment)
    return ranks


def _run(arguments: list[str], moment: str, number: int, output: Path, rank: int | None,
         prepare: Callable[[], None] | None) -> None:
    os.setsid()
    gc.freeze()  # what was imported is kept: to look through it at each collection takes longer than the run
    os.environ["MOMENTS_CAME"] = str(output.with_name("moments.txt"))
    os.environ["OMP_NUM_THREADS"] = "1"  # of the ranks, and here: other numbers of threads round otherwise
    torch.set_num_threads(1)
    if rank is not None:
        os.environ.update(MOMENT_RANK=str(rank), MOMENT=moment, MOMENT_SIGNAL=str(int(number)))
        moment = ""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    if moment:
        install(moment, number)
    if prepare:
        prepare()
    ranks = _fork_ranks(arguments)
    try:
        sys.exit(main(arguments))
    finally:
        for one in ranks:
            if one.poll() is None:
                os.kill(one.pid, signal.SIGKILL)


def run_until(project: Path, *settings: str, moment: str = "", number: int = signal.SIGKILL,
              rank: int | None = None, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
    """(exit status, what it wrote) of a run to which a signal comes at a moment (see install), or to a rank of it.
    Minus the signal's number: it killed the run. `prepare` is called in its process before it begins. A moment that
    did not come is an AssertionError: something else is called by then, or nothing."""
    output, came = project.parent / "output.txt", project.parent / "moments.txt"
    came.write_text("")
    process = _CONTEXT.Process(target=_run, args=(["--cfg", str(project), *settings], moment, number, output, rank,
                                                  prepare))
    process.start()
    process.join(200)
    text = output.read_text()
    assert process.exitcode is not None, text
    missed = set(filter(None, moment.split(" and "))) - set(came.read_text().splitlines())
    assert not missed, f"did not come: {', '.join(missed)}\n{text}"
    return process.exitcode, text
