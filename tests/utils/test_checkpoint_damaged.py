"""Checkpoints of which a bit, a page or the whole is another: told by file, and the earlier one is taken."""

import os
import zipfile

import numpy as np
import pytest
import torch

from tests.damage import flipped
from utils import checkpoint
from utils.errors import CheckpointError


def _bytes(path, state=None, **options) -> bytes:
    if state is None:
        checkpoint.atomic_save({"model_state": {str(k): torch.randn(9, 31) for k in range(20)}}, path)
    else:
        torch.save(state, path, **options)
    return path.read_bytes()


def test_every_flipped_bit_and_zeroed_page_is_told(tmp_path):
    path = tmp_path / "a.pyth"
    content = _bytes(path)
    starts = range(0, len(content), 512)
    pages = [content[:at] + bytes(min(512, len(content) - at)) + content[at + 512:] for at in starts]
    cut = [content[:at] for at in range(1, len(content), 997)]
    for one in [*flipped(content, 200), *pages, *cut]:
        path.write_bytes(one)
        with pytest.raises(CheckpointError, match=r"a.pyth: (damaged, or no checkpoint|refused|cannot)"):
            checkpoint.read(path)


def test_of_a_file_without_a_sum_of_ours_every_part_is_checked(tmp_path):
    path = tmp_path / "old.pyth"
    state = {"model_state": {str(k): torch.randn(9, 31) for k in range(20)}}
    content = _bytes(path, state)
    for k, one in enumerate(flipped(content, 200)):
        path.write_bytes(one)
        try:
            found = checkpoint.read(path)["model_state"]
        except CheckpointError:
            continue
        assert all(torch.equal(found[name], value) for name, value in state["model_state"].items()), k


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path, caplog):
    store = checkpoint.CheckpointStore(tmp_path)
    for epoch in (1, 2):
        store.save({"epoch": epoch, "model_state": {"a": torch.zeros(3)}})
    content = bytearray(store.path(2).read_bytes())
    content[len(content) // 2] ^= 1
    store.path(2).write_bytes(content)
    assert [path.name for path, _ in store.readable()] == ["checkpoint_epoch_00001.pyth"]
    assert "found its checksum is not that of its bytes; falling back to the state before it" in caplog.text


def test_the_best_state_stands_for_a_damaged_one_of_its_iteration(tmp_path, caplog):
    store = checkpoint.CheckpointStore(tmp_path)
    for epoch in (1, 2):
        store.save({"epoch": epoch, "model_state": {"a": torch.zeros(3)}})
    store.path(2).write_bytes(b"damaged")
    for epoch, first in ((2, "checkpoint_best.pyth"), (1, "checkpoint_epoch_00001.pyth")):
        checkpoint.atomic_save({"epoch": epoch, "model_state": {"a": torch.zeros(3)}}, store.best)
        assert next(store.readable())[0].name == first
    assert caplog.text.count("falling back") == 1  # it is said once


def test_numpy_numbers_are_read_as_numbers(tmp_path):
    for core in ("numpy._core", "numpy.core"):
        state = {"model_state": {"a": torch.zeros(1)}, "best": np.float64(0.25), "n": np.int64(3), "on": np.bool_(True),
                 "half": np.float16(0.5), "big": np.array([7], ">i4")[0]}
        content = _bytes(tmp_path / "a.pyth", state, _use_new_zipfile_serialization=False)
        (tmp_path / "a.pyth").write_bytes(content.replace(b"numpy._core", core.encode()))
        found = checkpoint.read(tmp_path / "a.pyth")
        assert [(found[k], type(found[k])) for k in ("best", "n", "on", "half", "big")] == [
            (0.25, float), (3, int), (True, bool), (0.5, float), (7, int)]
    torch.save({"model_state": {}, "x": np.zeros(3)}, tmp_path / "a.pyth")
    with pytest.raises(CheckpointError, match="it names numpy.*_reconstruct, and reading"):
        checkpoint.read(tmp_path / "a.pyth")


def _odd_files(tmp_path):
    tmp_path.mkdir(exist_ok=True)
    torch.save({"model_state": {"a": torch.zeros(1 << 25)}}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as old, zipfile.ZipFile(tmp_path / "bomb", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    (tmp_path / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (tmp_path / "page").write_text("\n<!DOCTYPE html><html>not found</html>")
    (tmp_path / "memo").write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    (tmp_path / "long").write_bytes(b"\x80\x02(" + b"N" * 3_000_000)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return {"bomb": "its parts are far larger than the file", "lfs": "a Git LFS pointer", "page": "a web page",
            "memo": "more parts than any model", "long": "more parts than any model",
            "folder": "expected a file, found a directory", "pipe": "expected a file, found a pipe"}


def test_what_lies_in_the_place_of_a_checkpoint_is_named(tmp_path):
    for name, said in _odd_files(tmp_path / "odd").items():
        with pytest.raises(CheckpointError, match=f"{name}: .*{said}"):
            checkpoint.read(tmp_path / "odd" / name)
    with pytest.raises(CheckpointError, match="/dev/zero: expected a file, found a device"):
        checkpoint.read("/dev/zero")

