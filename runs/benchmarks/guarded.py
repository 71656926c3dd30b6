"""Runs works in a process of their own: one that fails, hangs, or spoils the GPU leaves the others as they were."""

import gc
import logging
import multiprocessing
from collections.abc import Callable
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


def _outcome(work: Callable[[], Any]) -> tuple[bool, Any]:
    """Return (True, what a work returns), or (False, why it failed); what nobody expected is logged as a whole."""
    try:
        found = work()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # the next work, or a process that it starts, finds the memory free
        return True, found
    except BenchmarkError as error:
        reason = str(error)
    except (FewShotError, OSError) as error:
        reason = described(error)
    except Exception as error:
        if not (isinstance(error, (MemoryError, RuntimeError)) and out_of_memory(error)):
            _LOGGER.exception("what follows could not be measured")
        reason = f"{type(error).__name__}: {error}"
    return False, " ".join(reason.split())[:LONGEST_REASON]


def _serve(pipe: Connection) -> None:
    """Do the works that come, until none can come any more."""
    quiet()
    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(work))


class Guarded:
    """Does works one after the other in one process; after one that fails, in a new one."""

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
            done, found = self._pipe.recv()
        except EOFError:
            code = self._status()
            raise BenchmarkError(f"its process ended with {code}, as the system does where memory runs out") from None
        if not done:
            self.end()
            raise BenchmarkError(found)
        return found

    def _status(self) -> int | None:
        """Return the exit status of a process that has ended of itself."""
        self._process.join()
        code = self._process.exitcode
        self.end()
        return code
