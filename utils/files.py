"""Write files whole or not at all, and say in words why a disk refuses one."""

import errno
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from utils.errors import DiskError, FewShotError
from utils.lock import NO_LOCKS, lock_file

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def free_text(directory: Path) -> str:
    """Return the free space of a directory's disk in words, to end a message with; "" if there is no such directory."""
    if not directory.is_dir():
        return ""
    free = shutil.disk_usage(directory).free / 2**20
    return f", {free:,.1f} MiB are free there (limits or quotas apart)"


@contextmanager
def refusals(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn the system's refusal to write a file (disk full, quota, limit, read-only) into a DiskError that names it,
    and the bytes it takes, if they are known."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        need = f"; it takes {size / 2**20:,.1f} MiB" if size is not None else ""
        raise DiskError(f"{path}: could not be written ({os.strerror(error.errno)}){need}{free_text(path.parent)}. "
                        "What was saved before is untouched: make room, and give the same command again") from error


@contextmanager
def told_as(kind: type[FewShotError], path: Path, what: str, more: str = "") -> Iterator[None]:
    """Turn the system's errors in this block into errors of `kind`: "path: cannot be read: reason"."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path}: {what}: {error.strerror or error}{more}") from error


def _sync(path: Path) -> None:
    """Make a file's content, or a directory's names, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_name(part: Path, path: Path) -> None:
    """Rename a complete file to `path` in one step that outlives a power cut; a file of that name is replaced."""
    _sync(part)
    os.replace(part, path)
    _sync(path.parent)


@contextmanager
def unfinished(part: Path) -> Iterator[None]:
    """Make a temporary file .NAME.PROCESS.SUFFIX, which is gone at the end of the block unless it was renamed.

    It is locked meanwhile: one that is not is of a writer that was killed, and the next writer of NAME removes it.
    """
    name, _, suffix = part.name.rsplit(".", 2)
    for left in part.parent.glob(f"{glob.escape(name)}.[0-9]*.{suffix}"):
        with suppress(OSError):  # its writer is at work, or nothing can be locked here
            lock_file(left).close()
            left.unlink()
    lock: AbstractContextManager[Any] = nullcontext()
    try:
        lock = lock_file(part)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    with lock:
        try:
            yield
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield another name to write to; at the end of the block that file gets the name `path`.

    Whatever happens, `path` has its old or its new content, whole, and nothing else is left. Raises DiskError.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with refusals(path), unfinished(part):
        yield part
        give_name(part, path)


def sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
