"""Locks that the kernel releases when their holder ends, however it ends: one run at a time in a directory."""

import errno
import fcntl
import logging
import os
import re
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from utils.errors import OutputDirError

LOCK = ".run.lock"
_LEFT = re.compile(r"\..+\.[0-9]+\.(tmp|part)")  # .NAME.PROCESS.tmp, whatever was to be called NAME
_LOGGER = logging.getLogger(__name__)
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # some network file systems
_POLL_SECONDS = 0.05
_HELD: "weakref.WeakSet[BinaryIO | socket.socket]" = weakref.WeakSet()


def _close_in_child() -> None:
    """Close what is held in a forked child: a DataLoader worker outlives a killed run by seconds, and would keep it."""
    for file in list(_HELD):
        file.close()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_close_in_child)


def lock_file(path: Path, wait_s: float = 0.0) -> BinaryIO:
    """Return a file that is open and locked until it is closed. It is made where it is missing; links are refused.

    Raises BlockingIOError: another process, or thread, still holds it after `wait_s` seconds; OSError: it cannot be
    opened, it is a symbolic link, or the file system knows no locks.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    file = os.fdopen(os.open(path, flags, 0o666), "a+b")
    end = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(_POLL_SECONDS)
    except BaseException:
        file.close()
        raise
    close_in_children(file)
    return file


def close_in_children(held: BinaryIO | socket.socket) -> None:
    """See to it that forked processes, which may outlive this one, keep neither a lock nor a port."""
    _watch_forks()
    _HELD.add(held)


def _sweep(directory: Path) -> None:
    """Remove what killed writers of utils.files and utils.feature_file left in OUTPUT_DIR and its tests."""
    for place in (directory, *directory.glob("tests/*")):
        for path in place.glob(".*"):
            if _LEFT.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)


def _holder(path: Path) -> str:
    """Say which process wrote the lock file."""
    try:
        process, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):  # it has taken the lock, and not yet written its name
        return "process unknown"
    return f"process {process} on {host}"


@contextmanager
def output_lock(directory: Path) -> Iterator[None]:
    """Keep OUTPUT_DIR for this process while the block lasts, without what killed writers left there.

    Raises OutputDirError when another process works there, or when nothing can be written there.
    """
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = lock_file(path)
    except BlockingIOError as error:
        raise OutputDirError(f"OUTPUT_DIR: {directory}: another run is at work there ({_holder(path)}). Wait for its "
                             "end, end it, or choose another OUTPUT_DIR") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OutputDirError(f"OUTPUT_DIR: {directory}: expected a directory that can be written to: "
                                 f"{error.strerror}") from error
        _LOGGER.warning("%s cannot be locked (%s): see to it that no other run uses this directory", path,
                        error.strerror)
        yield
        return
    with file:
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}\n".encode())
        file.flush()
        _sweep(directory)
        yield
