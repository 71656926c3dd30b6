"""Keep the index of a frame cache (SQLite): which lists it holds, and where in the data file each video lies.

A cache is a directory of two files: `frames.bin`, to which videos are appended, and `index.sqlite`, whose transactions
make a video part of the cache. What lies in frames.bin behind the last video of the index is not part of it.
"""

import contextlib
import dataclasses
import json
import math
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import FewShotError, FrameCacheError
from utils.foreign import parse_json, regular
from utils.json_files import SUM, add_sum, check_sum

FORMAT = 1  # raise it when a cache of the same settings would hold other bytes
DATA, INDEX = "frames.bin", "index.sqlite"
INDEX_BYTES, OPERATIONS = 4 << 30, 1_000_000_000  # of SQLite for one question: 20 seconds, or 50 million videos
_HEAD = struct.Struct("<4sIId")  # mark, checksum of the name, frames, frames a second
_MARK = b"FSC1"
# The fields of Entry in their order; `bytes` is its file_bytes.
_COLUMNS = "path, height, width, bytes, mtime_ns, frames, fps, start, length, checksum, error"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS videos ({_COLUMNS}, PRIMARY KEY (path, height, width));
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """Describe a stored video at one size."""

    path: str  # as the list has it
    height: int  # of the stored frames, pixels
    width: int
    file_bytes: int  # of the file it was decoded from (a folder of frames: the folder's)
    mtime_ns: int
    frames: int = 0
    fps: float = math.nan  # frames a second, NaN where the file does not say
    start: int = 0  # its bytes in the data file: a table (see `table`), then the frames
    length: int = 0
    checksum: int = 0  # CRC-32 of the table
    error: str | None = None  # why it could not be decoded; then it has no frames

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width."""
        return self.height, self.width

    @property
    def stamp(self) -> tuple[int, int]:
        """Return size and time of the file it was decoded from, as annotations.file_stamp does."""
        return self.file_bytes, self.mtime_ns

    @property
    def table_size(self) -> int:
        """Return the bytes of the table."""
        return _HEAD.size + 8 * self.frames

    @property
    def is_possible(self) -> bool:
        """Return whether every field is of its type, and the frames fit into the bytes."""
        counts = (self.height, self.width, self.file_bytes, self.frames, self.start, self.length, self.checksum)
        return (isinstance(self.path, str) and all(type(n) is int and n >= 0 for n in counts)
                and isinstance(self.fps, float) and type(self.mtime_ns) is int and isinstance(self.error, str | None)
                and (self.error is not None or self.frames > 0 and self.table_size <= self.length))

    def head(self) -> bytes:
        """Return what the table starts with. It names the video, so that an index that points elsewhere is noticed."""
        name = zlib.crc32(f"{self.path}:{self.height}:{self.width}".encode())
        return _HEAD.pack(_MARK, name, self.frames, self.fps)

    def table(self, lengths: Sequence[int], checksums: Sequence[int]) -> bytes:
        """Return the head, then uint32 [frames, 2]: length and CRC-32 of each frame."""
        numbers: bytes = np.array([lengths, checksums], "<u4").T.tobytes()
        return self.head() + numbers


@contextlib.contextmanager
def index_errors(directory: Path) -> Iterator[None]:
    """Turn SQLite's errors into FrameCacheErrors."""
    try:
        yield
    except FewShotError:
        raise
    except Exception as error:
        raise FrameCacheError(f"{directory / INDEX}: expected the index of a frame cache, found one that cannot be "
                              f"read or written ({error})") from error


class FrameIndex:
    """Read and, if `write`, make and write the index of a cache directory. Raises FrameCacheError."""

    def __init__(self, directory: Path, write: bool = False):
        self.directory = directory
        if (directory / INDEX).exists():
            regular(directory / INDEX, FrameCacheError, INDEX_BYTES)
        elif not write:
            raise FrameCacheError(f"{directory}: expected a frame cache ({INDEX} and {DATA}), found none; make it with "
                                  f"python runs/prepare.py cache --cfg X.yaml --out {directory}")
        with index_errors(directory):
            # A reader writes nothing itself, but may roll back what a killed writer left in the journal.
            self._base = sqlite3.connect(f"{(directory / INDEX).resolve().as_uri()}?mode={'rwc' if write else 'rw'}",
                                         uri=True, isolation_level=None, timeout=60)
            self._base.execute("PRAGMA trusted_schema = OFF")
            self._base.set_progress_handler(lambda: 1, OPERATIONS)
            if write:
                self._base.execute("PRAGMA synchronous = FULL")
                self._base.executescript(_SCHEMA)

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    def meta(self) -> dict[str, Any]:
        """Return what the cache says of itself: format, decoder, codec, lists."""
        with index_errors(self.directory):
            found = {key: parse_json(value) for key, value in self._base.execute("SELECT key, value FROM meta")}
            check_sum(found).pop(SUM, None)
            return found

    def set_meta(self, **facts: Any) -> None:
        """Set some entries of `meta`, in one transaction, and the checksum of all."""
        content = add_sum({**self.meta(), **facts})
        with index_errors(self.directory), self._transaction():
            self._base.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)",
                                   [(key, json.dumps(value, sort_keys=True)) for key, value in content.items()])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        with self._base:
            yield

    def put(self, entries: Sequence[Entry]) -> None:
        """Make the sizes of a video part of the cache, in one transaction."""
        rows = [dataclasses.astuple(entry) for entry in entries]  # its fields are in the order of _COLUMNS
        with index_errors(self.directory), self._transaction():
            self._base.executemany(f"INSERT OR REPLACE INTO videos ({_COLUMNS}) VALUES ({', '.join('?' * 11)})", rows)

    def entries(self, size: tuple[int, int] | None = None) -> Iterator[Entry]:
        """Yield every video, of one size or of all."""
        where = "" if size is None else " WHERE height = ? AND width = ?"
        with index_errors(self.directory):
            for row in self._base.execute(f"SELECT {_COLUMNS} FROM videos{where}", size or ()):
                path, height, width, size_bytes, time, frames, fps, *rest = row
                entry = Entry(path, height, width, size_bytes, time, frames, math.nan if fps is None else fps, *rest)
                if not entry.is_possible:
                    raise ValueError(f"a row that is no video: {row}")
                yield entry

    def end(self) -> int:
        """Return the byte of the data file behind the last video."""
        with index_errors(self.directory):
            return int(self._base.execute("SELECT COALESCE(MAX(start + length), 0) FROM videos").fetchone()[0])
