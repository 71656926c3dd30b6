"""Say in words, between two items, that a loader worker has ended early or found no room in shared memory."""

import dataclasses
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import psutil
from torch import Tensor
from torch.utils.data import get_worker_info

from utils.errors import WorkerError
from utils.files import free_text

SHARED_MEMORY = Path("/dev/shm")
NEWS_SECONDS = 2  # how long a silent worker gets to turn out dead
_FEWER = "DATA_LOADER.NUM_WORKERS (here {}; 0 decodes in the main process)"
_Item = TypeVar("_Item")


def _no_room(reason: str, workers: int) -> WorkerError:
    """Return the error of workers that get no shared memory to hand their items over in."""
    return WorkerError(f"a loader worker found no room for its clips in shared memory ({reason}; {SHARED_MEMORY}"
                       f"{free_text(SHARED_MEMORY)}). Give it more (docker run --shm-size 8g), or take fewer workers: "
                       + _FEWER.format(workers))


def worker_error(error: Exception, workers: Sequence[BaseProcess]) -> WorkerError:
    """Explain an error that a worker's end led to: what happened, most likely why, what to do."""
    fewer = _FEWER.format(len(workers))
    ended = next((worker for worker in workers if worker.exitcode), None)
    status = ended.exitcode or 0 if ended else 0
    if ended is None or status > 0:
        said = f"exit status {status}" if ended else str(error).splitlines()[0]
        return WorkerError(f"a loader worker ended before its time ({said}); without workers the cause may show: "
                           f"{fewer}")
    name = signal.Signals(-status).name
    text = f"loader worker {ended.pid} was killed by {name}"
    if name == "SIGBUS":
        return _no_room(text, len(workers))
    if name == "SIGKILL":
        free = psutil.virtual_memory().available / 2**30
        return WorkerError(f"{text}: by hand, or as memory ran out ({free:.1f} GiB are free now). Fewer workers take "
                           f"less memory: {fewer}")
    return WorkerError(f"{text}: perhaps by a damaged video, which `python runs/prepare.py check --cfg X.yaml "
                       f"--every-frame` would find; without workers: {fewer}")


def into_shared_memory(item: _Item) -> _Item:
    """Move the tensors of a dataclass, in a worker, to where the main process can map them.

    torch would do it in a thread of its own, whose errors nobody hears: the main process would wait forever. Raises
    WorkerError where there is no room.
    """
    worker = get_worker_info()
    if worker is None or not dataclasses.is_dataclass(item):
        return item
    try:
        for part in dataclasses.fields(item):
            value = getattr(item, part.name)
            if isinstance(value, Tensor):
                value.share_memory_()  # type: ignore[no-untyped-call]  # torch
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        if "Too many open files" in reason:
            raise WorkerError(f"a loader worker cannot open another file ({reason}): `ulimit -n 4096` before the run, "
                              f"or fewer workers: {_FEWER.format(worker.num_workers)}") from error
        raise _no_room(reason, worker.num_workers) from error
    return item


def untold_where_lost(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of a worker's thread, but where the main process has broken off what it was fetching: it does so
    where it ends or another worker has ended, and says so itself."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


class _Watch:
    """Keep torch's error about a killed worker until an item is waited for. Raised by the handler of SIGCHLD in the
    middle of a step, it would leave no state to save."""

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGCHLD)  # torch's, which raises
        self._ended: RuntimeError | None = None
        self._waiting = False
        signal.signal(signal.SIGCHLD, self)

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        try:
            if callable(self._before):
                self._before(number, frame)
        except RuntimeError as error:
            self._ended = error
            self._tell()

    def _tell(self) -> None:
        if self._ended and self._waiting:
            raise self._ended

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the error come in this block."""
        self._waiting = True
        try:
            self._tell()
            yield
        except Exception:
            self._ended = None
            raise
        finally:
            self._waiting = False


_watch = cache(_Watch)


def watched(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield a DataLoader's items; raise WorkerError, where the next one is asked for, when a worker has ended."""
    workers = getattr(items, "_workers", ())  # private to torch, which reports their exit status only now and then
    main = threading.current_thread() is threading.main_thread()
    waiting = _watch().waiting if workers and main else nullcontext
    while True:
        try:
            with waiting():
                item = next(items)
        except StopIteration:
            return
        except (RuntimeError, EOFError, OSError) as error:
            if not workers or not _is_of_worker(error, workers):
                raise
            told = worker_error(error, workers)
            for worker in workers:  # left alone, the others would delay the end of the process
                worker.kill()
            raise told from error
        yield item


def _is_of_worker(error: Exception, workers: Sequence[BaseProcess]) -> bool:
    """Return whether an error tells of a worker's end, not of its data set. Shared tensors are fetched from their
    worker, so a dead worker can first show up as a connection error, before torch reports it."""
    if str(error).startswith("DataLoader worker"):
        return True
    broken = isinstance(error, (EOFError, ConnectionError, FileNotFoundError)) and "Caught " not in str(error)
    gone = wait([worker.sentinel for worker in workers], NEWS_SECONDS) if broken else []
    for worker in workers:
        if worker.sentinel in gone:
            worker.join(NEWS_SECONDS)  # its pipes close a moment before its exit status is known
    return bool(gone)
