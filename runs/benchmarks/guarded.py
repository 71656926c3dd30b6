"""Runs works in a process of their own: one that fails, hangs, or spoils the GPU leaves the others as they were."""

import gc
import logging
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from runs.benchmarks.ending import deaf_to_interrupts, end_family
from runs.benchmarks.suite import quiet
from utils.command import out_of_memory
from utils.errors import BenchmarkError, FewShotError, described

NO_TIME = "no time left"
LONGEST_REASON = 300  # letters
PATIENCE = 10.0  # seconds until a process that has nothing to do is ended by force
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds what a work returned, or why it failed, and whether that may have left the process in any state."""

    found: Any = None
    reason: str | None = None
    spoilt: bool = False


def outcome(work: Callable[[], Any]) -> Outcome:
    """Return what came of a work; an error that nobody expected is logged as a whole."""
    spoilt = False
    try:
        found = work()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # the next work, or a process that it starts, finds the memory free
        return Outcome(found)
    except BenchmarkError as error:
        reason = str(error)
    except (FewShotError, OSError) as error:
        reason = described(error)
    except Exception as error:
        if not (isinstance(error, (MemoryError, RuntimeError)) and out_of_memory(error)):
            _LOGGER.exception("what follows could not be measured")
        reason, spoilt = f"{type(error).__name__}: {error}", True
    return Outcome(None, " ".join(reason.split())[:LONGEST_REASON], spoilt)


def _serve(pipe: Connection) -> None:
    """Do the works that come, until none can come any more."""
    quiet()
    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome(work))


class Guarded:
    """Does works one after the other in one process, and in a new one after an error that nobody expected."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def __enter__(self) -> "Guarded":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.end(PATIENCE if kind is None else 0)

    def end(self, patience: float = PATIENCE) -> None:
        """End the process, and all that it has started; where it works on after `patience` seconds, by force."""
        if self._process is not None:
            self._pipe.close()
            self._process.join(patience)
            end_family(self._process.pid)
            self._process.join()
            self._process = None

    def call(self, work: Callable[[], Any], seconds: float) -> Any:
        """Return what `work`, which can be pickled, returns.

        Raises BenchmarkError with the reason: it raised something, its process ended, or `seconds` were over.
        """
        if seconds <= 0:
            raise BenchmarkError(NO_TIME)
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,))
            with deaf_to_interrupts():
                self._process.start()
            theirs.close()  # else nobody would notice that the process has ended
        self._pipe.send(work)
        if not self._pipe.poll(seconds):
            self.end(patience=0)
            raise BenchmarkError(f"{NO_TIME}: ended after {seconds:.0f} s")
        try:
            came: Outcome = self._pipe.recv()
        except EOFError:
            code = self._status()
            raise BenchmarkError(f"its process ended with {code}, as the system does where memory runs out") from None
        if came.spoilt:
            self.end()
        if came.reason is not None:
            raise BenchmarkError(came.reason)
        return came.found

    def _status(self) -> int | None:
        """Return the exit status of a process that has ended of itself."""
        self._process.join()
        code = self._process.exitcode
        self.end()
        return code
