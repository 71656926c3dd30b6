"""Files that are written whole, and locks."""

import os
import threading
import time

import pytest

from utils.feature_file import FeatureFile
from utils.files import whole_file
from utils.lock import lock_file, output_lock


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="half-way"), whole_file(path) as part:
        part.write_text("ne")
        raise ValueError("half-way")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_the_next_writer_removes_what_killed_ones_left(tmp_path):
    """Not what another is writing, nor what is to have another name."""
    path = tmp_path / "a[1].txt"
    kept = [tmp_path / name for name in (".b.1.tmp", ".a[1].txt.x.tmp", ".a[1].txt.1.part", "a[1].txt.1.tmp")]
    for left in (*kept, killed := tmp_path / ".a[1].txt.1.tmp", at_work := tmp_path / ".a[1].txt.2.tmp"):
        left.touch()
    with lock_file(at_work), whole_file(path) as part:
        assert not killed.exists()
        with pytest.raises(BlockingIOError):
            lock_file(part)
        part.write_text("new")
    assert path.read_text() == "new" and set(tmp_path.iterdir()) == {path, at_work, *kept}
    with FeatureFile(tmp_path / "f", {}) as file:
        (tmp_path / ".f.1.part").touch()
        file.allocate({"a": (2, 3)})
        assert len(list(tmp_path.glob(".f.*"))) == 1
    assert not list(tmp_path.glob(".f.*"))


def test_a_lock_has_one_holder_and_others_may_wait(tmp_path):
    path = tmp_path / "lock"
    holder = lock_file(path)
    with pytest.raises(BlockingIOError):
        lock_file(path)
    threading.Timer(0.2, holder.close).start()
    before = time.monotonic()
    with lock_file(path, wait_s=20):
        assert holder.closed and time.monotonic() - before < 20


def test_a_lock_is_no_link_and_no_child_keeps_it(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        lock_file(tmp_path / "link")
    assert not (tmp_path / "precious").exists()
    holder = lock_file(tmp_path / "lock")
    (there, start), (end, stop) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:  # it lives until the lock is taken again
        os.close(stop)
        os.write(start, b"x")
        os.read(end, 1)
        os._exit(0)
    try:
        os.read(there, 1)
        holder.close()
        lock_file(tmp_path / "lock").close()
    finally:
        for descriptor in (there, start, end, stop):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_what_killed_writers_left_is_removed_by_who_has_the_lock(tmp_path):
    """In OUTPUT_DIR and its tests; nothing else that is hidden or ends so, nothing behind a link."""
    left = [".results.json.123.tmp", ".a.npy.7.part", "tests/one/.run.json.5.tmp"]
    kept = [".results.json.tmp", "results.json.123.tmp", ".mine.tmp", ".x.12a.tmp", "other/.results.json.1.tmp"]
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".link.1.tmp").symlink_to(tmp_path / ".mine.tmp")
    with output_lock(tmp_path):
        assert not [name for name in left if (tmp_path / name).exists()]
        assert all((tmp_path / name).exists() for name in (*kept, ".link.1.tmp"))
