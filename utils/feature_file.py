"""Keep large arrays outside RAM: scratch memory on disk, and feature files in the safetensors format.

A feature file is written row by row into place (no copy of the whole is ever in memory), appears under its name only
when it is complete, and is read through a memory map.
"""

import json
import math
import os
import struct
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import safetensors
import torch
from torch import Tensor

from utils.errors import FeatureStoreError
from utils.files import give_name, refusals, told_as, unfinished
from utils.foreign import parse_json, regular, told
from utils.json_files import SUM

RAM_SHARE = 0.25  # an array above this share of the free memory is mapped from disk
PAGE = 4096
_META = "clip_fsar"


def scratch(shape: tuple[int, ...], directory: Path) -> Tensor:
    """Return uninitialised float32 memory: in RAM while it is small beside what is free, else mapped from `directory`.

    The file has no name by the time this returns, so nothing is left behind however the process ends.
    """
    size = 4 * math.prod(shape)
    if size < RAM_SHARE * psutil.virtual_memory().available:
        return torch.empty(shape)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".features_") as file:
        with refusals(Path(file.name), size):  # unallocated blocks on a full disk would end the process by SIGBUS
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_file(file.name, shared=True, size=size // 4, dtype=torch.float32).view(shape)


class FeatureFile:
    """A safetensors file being written: `allocate` gives its arrays, `commit` gives it its name.

    As a context manager it removes what was not committed. `facts` say what the features are of, and are kept in the
    file's metadata (JSON), with `spare` bytes free for those that are known only at the end.
    """

    def __init__(self, path: Path, facts: dict[str, Any], spare: int = 0):
        self.path, self.facts, self.spare = path, facts, spare
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._arrays: dict[str, Tensor] = {}
        self._offset = 0
        self._open = ExitStack()

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _header(self, more: dict[str, Any]) -> bytes:
        content: dict[str, Any] = {"__metadata__": {_META: json.dumps({**self.facts, **more}, sort_keys=True)}}
        end = 0
        for name, shape in self._shapes.items():
            start, end = end, end + 4 * math.prod(shape)
            content[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        return json.dumps(content).encode()

    def allocate(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """float32 zeros of each shape, mapped from the file. Raises FeatureStoreError when the disk refuses."""
        self._shapes = shapes
        at = self._offset = -(-(8 + len(self._header({SUM: "0" * 8})) + self.spare) // PAGE) * PAGE
        size, arrays = 4 * sum(map(math.prod, shapes.values())), self._arrays
        with told_as(FeatureStoreError, self.path, "cannot be written"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open.enter_context(unfinished(self._part))
            with self._part.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, at + size)
            for name, shape in shapes.items():
                arrays[name] = torch.from_numpy(np.memmap(self._part, np.float32, "r+", at, shape))
                at += 4 * math.prod(shape)
        return arrays

    def commit(self, more: dict[str, Any]) -> None:
        """Write the header with `more` facts, and give the file its name. Raises FeatureStoreError."""
        facts = {**self.facts, **more}
        head = self._header({**more, SUM: _sum(self._arrays, facts)})
        room = self._offset - 8
        if len(head) > room:
            raise FeatureStoreError(f"{self.path}: expected at most {room} bytes of facts, found {len(head)}")
        with told_as(FeatureStoreError, self.path, "cannot be written"):
            with self._part.open("r+b") as file:
                file.write(struct.pack("<Q", room) + head.ljust(room))
            give_name(self._part, self.path)


def _sum(arrays: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Return the CRC-32 of what a feature file says and holds."""
    found = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    for name, value in sorted(arrays.items()):
        found = zlib.crc32(f"{name}{list(value.shape)}{value.dtype}".encode(), found)
        found = zlib.crc32(value.numpy().data, found)
    return f"{found:08x}"


def read_feature_file(path: Path, wanted: dict[str, Any] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(arrays by name, memory-mapped; facts). Raises FeatureStoreError on a file that is none, is damaged, or does not
    have the `wanted` facts."""
    regular(path, FeatureStoreError)
    with told(FeatureStoreError, path, "stored features"):
        with safetensors.safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = parse_json(file.metadata()[_META])
        if facts.pop(SUM, None) != _sum(arrays, facts):
            raise ValueError("its checksum is not that of what it holds")
        if other := [name for name, value in (wanted or {}).items() if facts.get(name) != value]:
            raise ValueError(f"of another {other[0]}: {facts.get(other[0])!r}, not {wanted and wanted[other[0]]!r}")
        return arrays, facts
