"""Where listed videos lie: case, extension, layout; never another class's file."""

from pathlib import Path

import pytest

from datasets.annotations import read_split_list
from runs.preparing.locate import Located, locate, lying
from utils.episode import VideoRecord


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def found(root: Path, listed: str, list_format="HMDB_few_shot", **options) -> Located:
    (place,) = locate(root, [VideoRecord(listed, 0, 1)], list_format, **options)
    return place


@pytest.mark.parametrize("lies", [
    "Videos/brush_hair/X.avi", "videos/brush_hair/x.AVI", "videos/brush_hair/x.mp4", "videos/brush_hair/x.webm",
    "videos/brush_hair/x.mkv", "x.avi", "brush_hair/x.avi", "deep/er/Brush Hair/x.avi", "hmdb51/videos/x.WEBM",
    "frames/x/000001.jpg"])
def test_case_extension_and_layout(tmp_path, lies):
    make(tmp_path, lies, "videos/brush_hair/xy.avi", "other/y.avi", "x.txt")
    expected = "frames/x" if lies.endswith("jpg") else lies
    assert found(tmp_path, "videos/brush_hair/x.avi") == Located(expected, False)


def test_the_listed_place_wins_and_nothing_is_walked(tmp_path, monkeypatch):
    make(tmp_path, "videos/a/x.avi", "x.avi", "videos/a/x.mp4")
    monkeypatch.setattr("runs.preparing.locate.walk_videos", lambda root: pytest.fail("walked"))
    assert found(tmp_path, "videos/a/x.avi") == Located("videos/a/x.avi", True)


@pytest.mark.parametrize(("lies", "listed"), [
    ("78687.webm", True), ("78687/00001.jpg", True), ("sub/78687.webm", False), ("78687.MP4", False),
    ("class a/78687.mkv", False)])
def test_ids(tmp_path, lies, listed):
    make(tmp_path, lies)
    expected = str(Path(lies).parent) if lies.endswith("jpg") else lies
    assert found(tmp_path, "78687", None) == Located(expected, listed)


def test_the_listed_extension_comes_first_then_mp4(tmp_path):
    make(tmp_path, "a/x.webm", "a/x.mp4", "a/X.AVI")
    assert found(tmp_path, "videos/a/x.avi").found == "a/X.AVI"
    (tmp_path / "a/X.AVI").unlink()
    assert found(tmp_path, "videos/a/x.avi").found == "a/x.mp4"


def test_a_folder_of_the_class_comes_before_others_and_two_others_are_not_guessed(tmp_path):
    make(tmp_path, "smile/x.avi", "laugh/x.avi", "all/Wave_Hand/x.avi")
    assert found(tmp_path, "videos/wave hand/x.avi").found == "all/Wave_Hand/x.avi"
    place = found(tmp_path, "videos/run/x.avi")
    assert place == Located(None, False, "not as listed, and 3 files of this name elsewhere: all/Wave_Hand/x.avi, "
                                         "laugh/x.avi, smile/x.avi")


def test_numbered_files_of_other_classes_are_never_taken(tmp_path):
    make(tmp_path, "videos/smile/001.avi", "videos/laugh/002.avi", "old/run/003.avi", "Smile/003.avi")
    records = [VideoRecord(f"videos/{name}", 0, 1) for name in
               ("run/001.avi", "run/002.avi", "laugh/001.avi", "smile/001.avi", "laugh/002.avi", "run/003.avi",
                "smile/003.avi", "laugh/003.avi")]
    assert [place.found for place in locate(tmp_path, records, "HMDB_few_shot")] == [
        None, None, None, "videos/smile/001.avi", "videos/laugh/002.avi", "old/run/003.avi", "Smile/003.avi", None]


def test_a_file_that_no_list_names_in_a_folder_of_another_class_is_not_taken(tmp_path):
    make(tmp_path, "videos/smile/004.avi", "videos/wave/005.avi", "unsorted/006.avi")
    records = [VideoRecord(f"videos/{name}", 0, 1) for name in ("run/004.avi", "run/005.avi", "run/006.avi",
                                                                "smile/007.avi")]
    other = VideoRecord("videos/wave/008.avi", 0, 1)
    assert [place.found for place in locate(tmp_path, records, "HMDB_few_shot", others=[other])] == [
        None, None, "unsorted/006.avi", None]


def test_a_file_is_given_to_one_record_only(tmp_path):
    make(tmp_path, "videos/smile/x.avi", "y.avi")
    records = [VideoRecord(path, 0, 1) for path in
               ("videos/laugh/x.avi", "videos/smile/x.avi", "videos/a/y.avi", "videos/b/y.avi")]
    assert [place.found for place in locate(tmp_path, records, "HMDB_few_shot")] == [
        None, "videos/smile/x.avi", "y.avi", None]


def test_what_is_at_the_listed_place_is_said(tmp_path):
    (tmp_path / "a.avi").symlink_to("gone.avi")
    (tmp_path / "b.avi").mkdir()
    assert found(tmp_path, "a.avi") == Located(None, False, "a link to gone.avi, where nothing is")
    assert found(tmp_path, "b.avi") == Located(None, False, "a directory without frames (JPEG, PNG, WebP)")
    assert "no such video (line 1 of the list); tried " in found(tmp_path, "c.avi").reason


def test_a_link_out_of_the_root_is_refused_as_the_loader_does(tmp_path):
    make(tmp_path, "outside.avi", "root/z.avi")
    (tmp_path / "root" / "a.avi").symlink_to(tmp_path / "outside.avi")
    place = found(tmp_path / "root", "a.avi")
    assert place.found is None and "found a link to" in place.reason


def test_a_list_as_it_is_read(tmp_path):
    make(tmp_path, "v/a.mp4", "b.webm")
    (tmp_path / "test_few_shot.txt").write_text("test0//v/a.mp4\ntest1//v/b.mp4\n")
    records = read_split_list(tmp_path / "test_few_shot.txt", "test", "HMDB_few_shot")
    assert locate(tmp_path, records, "HMDB_few_shot") == [Located("v/a.mp4"), Located("b.webm", False)]


@pytest.mark.parametrize("listed, lies", [
    ("videos/cafe\u0301/x.avi", "videos/caf\u00e9/x.avi"), ("videos/a/\u00e9.avi", "videos/a/e\u0301.avi"),
    ("videos\\run\\x.avi", "videos/run/x.avi"), ("videos/run/x", "videos/run/x.avi")])
def test_other_spellings_of_a_path(tmp_path, listed, lies):
    make(tmp_path, lies)
    assert found(tmp_path, listed) == Located(lies, False)
    assert lying(tmp_path, [VideoRecord(listed, 0, 1)], "paths", ()).startswith(
        f"1 of them lie elsewhere in {tmp_path}: {lies} for {listed}; python runs/prepare.py check --cfg")


def test_what_lies_in_place_of_the_videos_is_said(tmp_path):
    missing = [VideoRecord("videos/run/x.avi", 0, 1)]
    assert lying(tmp_path, missing, "paths", missing) == f"{tmp_path} holds nothing"
    make(tmp_path, *"abcdefg")
    assert lying(tmp_path, missing, "paths", missing) == f"{tmp_path} holds a, b, c, d, e, ..."
    make(tmp_path, "HMDB51.RAR")
    assert lying(tmp_path, missing, "paths", missing) == (
        f"{tmp_path} holds archives, such as HMDB51.RAR: unpack them there (tar xf, unzip, unrar x)")
