"""Write files of torch.save with a checksum, and read them without running code, checked against the sums they have."""

import os
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import torch

from utils.errors import FewShotError
from utils.foreign import regular

PICKLE_BYTES, PICKLE_OPS = 64 << 20, 2_000_000  # 3 seconds; a checkpoint of a large model has 50,000
_ZIP, _END = b"PK\x03\x04", b"PK\x05\x06"  # a zip file starts and ends with these; 22 bytes are the end without comment
_COMMENT = 14  # bytes of ours: crc32=, and 8 hex digits


class Damaged(ValueError):
    """Bytes that are not those that were written, or that no model needs."""


class _Summing:
    """Pass bytes on to a file and sum them up."""

    def __init__(self, file: BinaryIO):
        self.file, self.sum = file, 0

    def write(self, data: bytes) -> int:
        self.sum = zlib.crc32(data, self.sum)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save(content: Any, path: Path) -> None:
    """Write as torch.save does, and as the comment of the zip file the CRC-32 of it all, which torch passes over."""
    with path.open("wb") as file:
        summing = _Summing(file)
        torch.save(content, cast(BinaryIO, summing))
        file.seek(-2, os.SEEK_END)  # the length of the comment, 0
        file.write(struct.pack("<H", _COMMENT) + b"crc32=%08x" % summing.sum)


def _crc(file: BinaryIO, size: int) -> int:
    found = 0
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        found, size = zlib.crc32(block, found), size - len(block)
    return found


def check_sums(path: Path) -> None:
    """Raise Damaged where a zip file's bytes are not those that were written.

    Ours has a sum of all its bytes. In one of torch alone each member has its own, which torch does not look at.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 22 - _COMMENT))
        end = file.read()
        if end.startswith(_END):
            file.seek(0)
            own = zlib.crc32(b"\0\0", _crc(file, size - _COMMENT - 2))
            if end[-_COMMENT - 2:] != struct.pack("<H", _COMMENT) + b"crc32=%08x" % own:
                raise Damaged("its checksum is not that of its bytes")
            return
    with zipfile.ZipFile(path) as archive:
        if not end[-22:].startswith(_END) or archive.testzip():
            raise Damaged("a part does not have the checksum it was written with")


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip file. Raises Damaged where its parts are larger than those of any weights."""
    with path.open("rb") as file:
        if file.read(4) != _ZIP:
            return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(one.file_size for one in members) > path.stat().st_size + PICKLE_BYTES:  # torch compresses only code
            raise Damaged("its parts are far larger than the file")
        for one in members:
            if one.filename.endswith("/data.pkl"):
                with archive.open(one) as file:
                    check_pickle(file, one.file_size)
    return True


def check_pickle(file: IO[bytes], size: int = 0, parts: int = 1) -> None:
    """Raise Damaged where pickles, one after the other, are larger than any that a file of weights needs."""
    ops = (op for _ in range(parts) for op in pickletools.genops(file))
    for number, (op, arg, _) in enumerate(ops):
        if size > PICKLE_BYTES or number > PICKLE_OPS or "PUT" in op.name and int(arg or 0) > PICKLE_OPS:
            raise Damaged("it has more parts than any model")


class _NumpyType:
    """Stand for numpy.dtype in a file: what it says of a number's type is kept, and nothing of NumPy is called."""

    order = "<"

    def __init__(self, code: str, *_: Any):
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _number(kind: _NumpyType, data: bytes) -> Any:
    """Return a NumPy scalar of a file as a number of Python."""
    if kind.code not in ("f2", "f4", "f8", "b1") and kind.code[:1] not in "iu" or len(kind.code) != 2:
        raise pickle.UnpicklingError("a NumPy scalar that is no number")
    return np.frombuffer(data, kind.order.replace("|", "<") + kind.code)[0].item()


@contextmanager
def _numbers_of_numpy() -> Iterator[None]:
    names = [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([*names, (_NumpyType, "numpy.dtype"), _NumpyType]):
        yield


def load(path: Path, kind: type[FewShotError]) -> Any:
    """Return the content of a file of torch.save, of which nothing is run, on the CPU; NumPy's numbers as Python's.

    Raises `kind` where there is no file, else Damaged, or whatever torch raises on a damaged one.
    """
    regular(path, kind)
    if not is_zip(path):
        with path.open("rb") as file:
            check_pickle(file, parts=5)  # torch's old format: mark, version, machine, content, names
        return _load(path)
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(check_sums, path)  # meanwhile torch reads: a start does not take longer for it
        try:
            return _load(path)
        finally:
            whole.result()


def _load(path: Path) -> Any:
    with _numbers_of_numpy():
        return torch.load(path, map_location="cpu", weights_only=True)
