"""Runs work that may hang or crash in processes of its own, with a time limit an item that really ends what hangs.

`guarded(work, items, ...)` yields (item, result or Failure) as they are done. Each process has a few items waiting, so
it is never idle between two; when it dies or overruns, the item it was at is blamed and the rest go to a new process.

Why not a library: multiprocessing and concurrent.futures cannot end one item that hangs, and pebble, which can, forks
from a thread while this process goes on. Here a process is forked by the thread that does everything else, so that it
inherits no lock that is held.
"""

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

AHEAD = 4  # items a process holds
STARTUP = 300.0  # seconds a new process may take to import what it needs; then it says so
LIFETIME = 2000  # items after which a process is replaced: leaks of decoders stay small


@dataclass(frozen=True, slots=True)
class Failure:
    """Says why an item has no result: it took too long, or the process died of it."""

    reason: str


@dataclass
class _Worker:
    """Holds a process, its items (it is at the first), and when that one is overdue (monotonic)."""

    process: BaseProcess
    pipe: Connection
    items: deque = field(default_factory=deque)
    deadline: float = 0.0
    given: int = 0
    ready: bool = False


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
    os._exit(1)


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """Be a process: send results for items until the other side closes."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send(None)  # ready
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return


def _context() -> Any:  # a BaseContext; typeshed's has no Process
    """Return how processes start: forked on Linux, as the loader's workers are. Elsewhere each pays the imports."""
    return multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")


class _Pool:
    """Holds the processes of `guarded`."""

    def __init__(self, work: Callable[[Any], Any], items: Iterable[Any], workers: int, limit: float):
        self.work, self.limit, self.context = work, limit, _context()
        self.waiting = iter(items)
        self.returned: deque = deque()  # items of processes that ended before their turn came
        self.workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(self.work, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _next(self) -> Any:
        return self.returned.popleft() if self.returned else next(self.waiting, None)

    def feed(self, worker: _Worker) -> None:
        """Fill a process's queue."""
        while len(worker.items) < AHEAD and worker.given < LIFETIME:
            item = self._next()
            if item is None:
                return
            try:
                worker.pipe.send(item)
            except (BrokenPipeError, ConnectionResetError):  # it is dead; `collect` sees why, if an item is to blame
                self.returned.append(item)
                if not worker.items:
                    self.replace(worker)
                return
            if not worker.items:
                worker.deadline = time.monotonic() + (self.limit if worker.ready else STARTUP)
            worker.items.append(item)
            worker.given += 1

    def replace(self, worker: _Worker) -> None:
        """End a process for good; what it had not begun goes back."""
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self.returned.extend(worker.items)
        self.workers[self.workers.index(worker)] = self._start()

    def _blame(self, worker: _Worker, reason: str) -> list[tuple[Any, Any]]:
        blamed = [(worker.items.popleft(), Failure(reason))] if worker.items else []
        self.replace(worker)
        return blamed

    def collect(self, worker: _Worker) -> list[tuple[Any, Any]]:
        """Return the results that a process has sent, or the Failure of the item that it died of or hangs at."""
        if worker.pipe.poll():
            try:
                result = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join(5)
                code = worker.process.exitcode or 0
                return self._blame(worker, f"the decoder crashed ({f'signal {-code}' if code < 0 else f'exit {code}'})")
            worker.deadline = time.monotonic() + self.limit
            if not worker.ready:
                worker.ready = True
                return []
            done = [(worker.items.popleft(), result)]
            if not worker.items and worker.given >= LIFETIME:
                self.replace(worker)
            return done
        if worker.items and time.monotonic() > worker.deadline:
            return self._blame(worker, f"no end of decoding within {self.limit:g} s")
        return []

    def run(self) -> Iterator[tuple[Any, Any]]:
        """Yield what `guarded` yields."""
        while True:
            for worker in self.workers:
                self.feed(worker)
            busy = [worker for worker in self.workers if worker.items]
            if not busy and not self.returned:
                return
            patience = min((worker.deadline for worker in busy), default=0.0) - time.monotonic()
            wait([worker.pipe for worker in busy], timeout=max(patience, 0.0) + 0.01)
            for worker in busy:
                yield from self.collect(worker)

    def close(self) -> None:
        """End every process."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()


def guarded(work: Callable[[Any], Any], items: Iterable[Any], *, workers: int, limit: float
            ) -> Iterator[tuple[Any, Any]]:
    """Yield `work(item)` of every item, done in `workers` processes, as soon as each is done.

    Args:
        work: a module's function; it returns errors that are expected, an unexpected one ends its process.
        items: taken when there is room for them; none may be None.
        limit: seconds an item.

    Yields:
        (item, what work returned, or Failure).
    """
    pool = _Pool(work, items, workers, limit)
    try:
        yield from pool.run()
    finally:
        pool.close()
