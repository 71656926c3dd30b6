"""One process at a time in a directory: a lock that the kernel releases when its holder ends, however it ends."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from utils.errors import OutputDirError

LOCK = ".run.lock"
_LOGGER = logging.getLogger(__name__)
_HELD: set[IO[bytes]] = set()


def lock_file(path: Path) -> IO[bytes]:
    """The file, open and locked until it is closed. Raises BlockingIOError when another process holds it, another
    OSError where it cannot be opened or the file system knows no locks."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _close_in_child() -> None:
    """A forked DataLoader worker shares the lock; it outlives a killed run by seconds, and would keep it as long."""
    for file in _HELD:
        file.close()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_close_in_child)


def _holder(path: Path) -> str:
    """Who wrote the lock file, in words."""
    try:
        process, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # between taking the lock and writing its name
        return "process unknown"
    return f"process {process} on {host}"


@contextmanager
def output_lock(directory: Path) -> Iterator[None]:
    """Keep OUTPUT_DIR for this process while the block lasts.

    Raises OutputDirError when another process works there, or when nothing can be written there.
    """
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise OutputDirError(f"OUTPUT_DIR: {directory}: expected a directory that can be written to: "
                             f"{error.strerror}") from error
    try:
        file = lock_file(path)
    except BlockingIOError as error:
        raise OutputDirError(f"OUTPUT_DIR: {directory}: another run is at work there ({_holder(path)}). Wait for its "
                             "end, end it, or choose another OUTPUT_DIR") from error
    except OSError as error:  # some network file systems
        _LOGGER.warning("%s cannot be locked (%s): see to it that no other run uses this directory", path,
                        error.strerror)
        yield
        return
    _watch_forks()
    _HELD.add(file)
    try:
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}\n".encode())
        file.flush()
        yield
    finally:
        _HELD.discard(file)
        file.close()
