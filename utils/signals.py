"""Answer SIGINT (Ctrl-C), SIGTERM (Slurm, docker stop), SIGHUP (a closed terminal): end at once, or after the work
under way."""

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAUNCHER = "CLIP_FSAR_LAUNCHER"  # variable with the process number of a run that starts ranks
_PR_SET_PDEATHSIG = 1
_DROPPING = ("__del__", "_acquireLock", "_releaseLock")  # logging's, which a fork calls
AGAIN_SECONDS = 1.0  # until a stop that was lost is raised again
END_SECONDS = 1.0  # how long signals change nothing about the end of a command
WORKER_SECONDS = 60  # a shielded worker that got SIGTERM ends after this time, if its main process has not ended it


def under_launcher() -> bool:
    """Return whether torchrun, or a run with several ranks, started this process as one of its ranks."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def end_with_launcher() -> None:
    """Ask the kernel for a SIGTERM when this rank's launcher ends, however it ends (Linux); end now if it has ended.

    To be called before anything is imported that takes its time.
    """
    if sys.platform == "linux" and under_launcher():
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
            os.kill(os.getpid(), signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM came. `number` is the signal, the text says what the same command does next."""

    def __init__(self, number: int, text: str = "what was saved before is untouched"):
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}; {text}")


def number_of(stop: KeyboardInterrupt) -> int:
    """Return the signal behind a stop: Python's own KeyboardInterrupt is SIGINT."""
    return stop.number if isinstance(stop, Stopped) else signal.SIGINT


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, FrameType | None], Any] | signal.Handlers
             ) -> Iterator[None]:
    """Handle signals until the block ends. One that is ignored (nohup) stays ignored; outside the main thread, where
    Python allows no handlers, nothing changes."""
    main = threading.current_thread() is threading.main_thread()
    before = {n: signal.getsignal(n) for n in numbers if main and signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        if isinstance(handler, Interruption) and handler.raised:
            signal.setitimer(signal.ITIMER_REAL, 0)  # a timer that it has set
        for number, old in before.items():
            signal.signal(number, old)


class Interruption:
    """Note the first signal and raise Stopped on the second, or at once where work may be cut short.

    Forked DataLoader workers inherit it and do nothing: Ctrl-C reaches them, too, but the main process ends them.
    A launcher's rank may get a signal twice, from the system and from the launcher, and anyone a SIGHUP, from the shell
    and from the kernel: the first is heeded.
    """

    def __init__(self, immediate: bool = False):
        self.number: int | None = None
        self._immediate, self._process, self.raised = immediate, os.getpid(), False
        self._once = under_launcher()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        again = self.raised or self.number and not self._immediate
        if os.getpid() != self._process or again and (self._once or number == signal.SIGHUP):
            return
        noted, self.number = self.number, number
        if self._immediate or noted is not None:
            self.raised = True
            # The process ends. The signal may have reached its workers first: torch must not report their end.
            # Not SIG_DFL: Python reports a SIGCHLD already under way that finds no handler ("race condition").
            signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.signal(signal.SIGALRM, partial(self._raise, number))
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)  # `handling` ends it
            self._raise(number, number, frame)
            return
        name = signal.Signals(number).name  # no logging here: the signal may have come in the middle of a log line
        if not self._once or os.environ["RANK"] == "0":
            second = "" if self._once else "; a second signal stops at once"
            with suppress(OSError):  # the screen may be what has gone
                os.write(2, f"\n{name}: stopping after this iteration{second}\n".encode())

    def _raise(self, number: int, came: int, frame: FrameType | None) -> None:
        """Raise Stopped, at each alarm once more: Python drops what is raised while it forks or frees objects.

        At an alarm not while an error is handled: it may be this one, and what it ends is being cleaned up.
        """
        while frame is not None and frame.f_code.co_name not in _DROPPING:
            frame = frame.f_back
        if os.getpid() == self._process and frame is None and (came == number or sys.exc_info()[1] is None):
            raise Stopped(number)

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.number is not None:
            raise Stopped(self.number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """End the work where it stands, in this block, on a signal, also on one noted before."""
        self._immediate = True
        try:
            self.check()
            yield
        finally:
            self._immediate = False


def stop_at_once() -> AbstractContextManager[None]:
    """Raise Stopped on SIGINT, SIGTERM and SIGHUP in this block."""
    return handling(STOPPING, Interruption(immediate=True))


@contextmanager
def ended_once() -> Iterator[None]:
    """Let a command's exit status, with which the block ends this process, stand, whatever signals follow.

    A terminal or a launcher may send one twice, and people press Ctrl-C again: it would come in the middle of what
    Python does at its end. One that comes when that has taken END_SECONDS ends the process at once.
    """
    atexit.register(deaf)  # the first to be registered is the last to be called: nothing is waited for any more
    try:
        yield
    except SystemExit as end:
        status, late = end.code if isinstance(end.code, int) else 1, time.monotonic() + END_SECONDS

        def leave(number: int, _: FrameType | None) -> None:
            if number != signal.SIGHUP and time.monotonic() > late:
                os._exit(status)

        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, leave)
        raise


def deaf() -> None:
    """Ignore signals from here to the end of this process, which nothing holds up any more."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def shielded(init: Callable[[int], None]) -> Callable[[int], None]:
    """Return a DataLoader's worker_init_fn that also lets the worker outlive a signal sent to the whole process group,
    so that the main process can finish its iteration."""
    return partial(_shield, init)


def _shield(init: Callable[[int], None], worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))
    init(worker)
