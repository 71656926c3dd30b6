"""The folder behind the page: names, ids, numbers, the trash, undoing, what a killed server left."""

import os

import pytest

from runs.own.page.files import ClipFolder, Refused, checked_name, id_of
from utils.errors import OwnClipsError


def clip(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture()
def folder(tmp_path):
    root = tmp_path / "mine"
    for name in ("wave/a.mp4", "wave/b.mp4", "jump/a.mp4", "none/x.mp4"):
        clip(root / name)
    made = ClipFolder(root, 1000)
    yield made
    made.close()


def names(folder):
    return {action.name: [one.path.name for one in action.clips] for action in folder.actions()}


@pytest.mark.parametrize("name", ["wave", "star jump", "1", "überschlag", "跳", "<img src=x onerror=alert(1)>",
                                  "'; drop table", "x" * 60, "none of it"])
def test_names_that_can_be_folders(name):
    assert checked_name(f" {name} ") == name


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a/b", "a\\b", "..", ".", ".hidden", "c:", "a\nb", "a\0b",
                                  "con", "NUL", "com1.txt", "lpt9", "aux ", "none", "NONE", "actions.yaml", "end.",
                                  "\u202egpj", "\u200b", 7, None, ["wave"]])
def test_names_that_cannot(name):
    with pytest.raises(Refused) as refused:
        checked_name(name)
    assert refused.value.status == 400


def test_what_it_holds(folder):
    clip(folder.root / "wave" / "notes.txt")
    clip(folder.root / ".cache" / "a.mp4")
    os.symlink("/etc", folder.root / "etc")
    os.mkfifo(folder.root / "wave" / "pipe.mp4")
    os.symlink("/etc/passwd", folder.root / "wave" / "passwd.mp4")
    assert names(folder) == {"jump": ["a.mp4"], "wave": ["a.mp4", "b.mp4"], "none": ["x.mp4"]}
    assert folder.clip(id_of("wave", "b.mp4")).path == folder.root / "wave" / "b.mp4"
    for wanted in ("", "wave", "../wave", id_of("wave", "passwd.mp4"), id_of(".cache", "a.mp4")):
        with pytest.raises(Refused, match="no such clip") as refused:
            folder.clip(wanted)
        assert refused.value.status == 404


def test_an_action_without_clips_is_no_folder_yet(folder):
    made = folder.create("spin")
    assert names(folder)["spin"] == [] and not (folder.root / "spin").exists()
    part = folder.root / ".upload_1"
    part.write_bytes(b"video")
    assert folder.keep(part, made, ".mp4").name == "spin/clip_0001.mp4"
    assert names(folder)["spin"] == ["clip_0001.mp4"] and not part.exists()
    with pytest.raises(Refused, match="already"):
        folder.create("SPIN")


def test_removing_and_undoing(folder):
    before = names(folder)
    folder.remove_clip(id_of("jump", "a.mp4"))
    assert names(folder)["jump"] == [] and not (folder.root / "jump").exists()  # predict.py wants a clip in each folder
    folder.remove_clip(id_of("wave", "a.mp4"))
    folder.remove_action(id_of("wave"))
    assert "wave" not in names(folder) and folder.undoable == "remove wave"
    assert sorted(path.name for path in (folder.root / ".trash").rglob("*.mp4")) == ["a.mp4", "a.mp4", "b.mp4"]
    for _ in range(3):
        folder.undo()
    assert names(folder) == before and folder.undoable is None
    with pytest.raises(Refused, match="nothing to undo"):
        folder.undo()


def test_undo_never_overwrites(folder):
    folder.remove_clip(id_of("wave", "a.mp4"))
    clip(folder.root / "wave" / "a.mp4", b"other")
    with pytest.raises(Refused, match="is there again") as refused:
        folder.undo()
    assert refused.value.status == 409 and (folder.root / "wave" / "a.mp4").read_bytes() == b"other"


def test_renaming(folder):
    folder.rename(id_of("wave"), "<b>hello<b>")
    assert names(folder)["<b>hello<b>"] == ["a.mp4", "b.mp4"]
    with pytest.raises(Refused, match="already"):
        folder.rename(id_of("jump"), "<B>hello<b>")
    with pytest.raises(Refused, match="keeps its name"):
        folder.rename(id_of("none"), "other")
    folder.undo()
    assert "wave" in names(folder)


def test_numbers_are_never_used_twice(folder):
    def kept():
        part = folder.root / ".upload_2"
        part.write_bytes(b"video")
        return folder.keep(part, id_of("wave"), ".webm")

    first = kept()
    folder.remove_clip(first.id)
    assert (first.path.name, kept().path.name) == ("clip_0001.webm", "clip_0002.webm")


def test_one_page_a_folder_and_nothing_left_of_a_killed_one(folder):
    folder.held_by("http://127.0.0.1:8765")
    with pytest.raises(OwnClipsError, match=r"another page is open on this folder \(http://127.0.0.1:8765, process"):
        ClipFolder(folder.root, 1000)
    before = names(folder)
    folder._lock.close()  # as the kernel does
    for name in (".upload_4f", "..upload_4f.77.tmp", ".asked/q.mp4"):
        clip(folder.root / name)
    again = ClipFolder(folder.root, 1000)
    assert names(again) == before
    assert sorted(path.name for path in again.root.glob(".*")) == [".page.lock"]
    again.close()


def test_a_full_folder(folder):
    assert folder.room() > 900
    clip(folder.root / ".trash" / "1" / "old.mp4", b"x" * 1000)
    with pytest.raises(Refused, match="--max-folder") as refused:
        folder.room()
    assert refused.value.status == 507
