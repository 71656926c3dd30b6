"""Files written whole or not at all, and what a disk that refuses is told as."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import DiskError

_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def free_text(directory: Path) -> str:
    """The free space beside a file, in words; empty where there is no such directory."""
    if not directory.is_dir():
        return ""
    free = shutil.disk_usage(directory).free / 2**20
    return f", {free:,.1f} MiB are free there (limits or quotas apart)"


@contextmanager
def refusals(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn the system's refusal to write a file (disk full, quota, limit, read-only) into a DiskError that names it.

    Args:
        size: what the file takes, bytes, where that is known.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        need = f"; it takes {size / 2**20:,.1f} MiB" if size is not None else ""
        raise DiskError(f"{path}: could not be written ({os.strerror(error.errno)}){need}{free_text(path.parent)}. "
                        "What was saved before is untouched: make room, and give the same command again") from error


def sync(path: Path) -> None:
    """See to it that a file's content, or a directory's names, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Another name to write to in this block; at its end that file takes the name `path`. Whatever happens, `path` has
    the old or the new whole content, and nothing else is left. Raises DiskError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with refusals(path):
            yield part
            sync(part)
            os.replace(part, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
