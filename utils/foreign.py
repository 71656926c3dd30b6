"""Read files that others may have written: regular files within limits, and every failure as an error that names one.

Readers fail on a hostile file in any way that Python knows (RecursionError, OverflowError, MemoryError, ...): `told`
turns whatever comes into the error that the caller announces.
"""

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import FewShotError

Kind = Callable[[str], FewShotError]  # makes an error of a text
TEXT_BYTES = 64 << 20  # of a text file; the longest known list has 5 MB
_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
          stat.S_IFSOCK: "a socket"}
_STRANGERS = {b"version https://git-lfs": "a Git LFS pointer in place of the file; git lfs pull fetches the file",
              b"<!doctype html": "a web page", b"<html": "a web page", b"<?xml": "an XML page"}


def regular(path: Path, kind: Kind, limit: int | None = None, absent: str = "no such file") -> int:
    """Return the bytes of a file. Raises `kind`: no file, one without an end (a pipe, a device), more than `limit`."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise kind(f"{path}: {absent}") from None
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the name; RuntimeError: links in a loop
        raise kind(f"{str(path)[:200]!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not stat.S_ISREG(found.st_mode):
        raise kind(f"{path}: expected a file, found {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}")
    if limit is not None and found.st_size > limit:
        raise kind(f"{path}: expected at most {limit:,} bytes, found {found.st_size:,}")
    return found.st_size


def stranger(path: Path) -> str:
    """Return what a file is that often lies in the place of another: an LFS pointer, a web page, nothing; else ""."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(512).lstrip().lower()
        return "an empty file" if not head else next((t for mark, t in _STRANGERS.items() if head.startswith(mark)), "")
    return ""


@contextmanager
def told(kind: Kind, path: Path, expected: str, advice: str = "") -> Iterator[None]:
    """Turn every error in this block but FewShotErrors into `kind`: "path: expected this, found that"."""
    try:
        yield
    except FewShotError:
        raise
    except Exception as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:300]
        found = stranger(path) or f"a file that cannot be read ({reason})"
        raise kind(f"{path}: expected {expected}, found {found}{advice}") from error


def read_text(path: Path, kind: Kind, limit: int = TEXT_BYTES, encoding: str = "utf-8") -> str:
    """Return the text of a file. Raises as `regular`; OSError, UnicodeDecodeError."""
    regular(path, kind, limit)
    return path.read_text(encoding=encoding)


def parse_json(text: str | bytes) -> Any:
    """Return the content of JSON text. Raises ValueError, where it is nested too deep or a number too long as well."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
