"""Split lists: both formats, every refusal with its text, and the way from a record to a file."""

from pathlib import Path

import pytest

from datasets.annotations import check_classes, list_hash, read_split_list, resolve_video
from utils.episode import VideoRecord
from utils.errors import AnnotationError, RegistryError, VideoDecodeError

PATHS, IDS = "HMDB_few_shot", "Ssv2_few_shot"


def write(folder: Path, *lines: str, split: str = "train") -> Path:
    path = folder / f"{split}_few_shot.txt"
    path.write_bytes("\n".join(lines).encode())
    return path


def refusal(path: Path, list_format: str | None = PATHS, split: str = "train") -> str:
    with pytest.raises(AnnotationError) as caught:
        read_split_list(path, split, list_format)
    return str(caught.value).replace(str(path), "LIST")


def test_path_format_keeps_path_class_and_line(tmp_path):
    path = write(tmp_path, "train1//videos/a b/(x)!.avi", "", "  train0//videos/y.mp4\r", "")
    assert read_split_list(path, "train", PATHS) == [VideoRecord("videos/a b/(x)!.avi", 1, 1),
                                                     VideoRecord("videos/y.mp4", 0, 3)]


@pytest.mark.parametrize("list_format", [IDS, None])
def test_ssv2_format(tmp_path, list_format):
    path = write(tmp_path, "val1/78687", "val0/12", split="val")
    assert [(r.path, r.class_index) for r in read_split_list(path, "val", list_format)] == [("78687", 1), ("12", 0)]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbftrain0/1\n")
    assert read_split_list(path, "train")[0].path == "1"


@pytest.mark.parametrize(("names", "line", "path"), [
    (("paths", "HMDB_few_shot", "Kinetics_few_shot"), "train0//7/8.avi", "7/8.avi"),
    (("ids", "Ssv2_few_shot"), "train0/78", "78")])
def test_a_format_is_read_the_same_by_its_plain_name_and_the_published_ones(tmp_path, names, line, path):
    listed = write(tmp_path, line)
    assert [read_split_list(listed, "train", name) for name in names] == [[VideoRecord(path, 0, 1)]] * len(names)


def test_unknown_format(tmp_path):
    with pytest.raises(RegistryError, match="unknown list format 'HMDB_fewshot', did you mean 'HMDB_few_shot'"):
        read_split_list(write(tmp_path, "train0/1"), "train", "HMDB_fewshot")


@pytest.mark.parametrize(("lines", "list_format", "text"), [
    (["train0//a.avi", "oops"], PATHS, "LIST, line 2: expected a line such as 'train0//videos/run/x.avi' "
                                       "(list format HMDB_few_shot), found 'oops'"),
    (["test0//a.avi"], PATHS, "LIST, line 1: expected a line such as 'train0//videos/run/x.avi' "
                              "(list format HMDB_few_shot), found 'test0//a.avi'"),
    (["train0//a.avi"], IDS, "LIST, line 1: expected a line such as 'train0/78687' "
                             "(list format Ssv2_few_shot), found 'train0//a.avi'"),
    (["train0/78687"], PATHS, "LIST, line 1: expected a line such as 'train0//videos/run/x.avi' "
                              "(list format HMDB_few_shot), found 'train0/78687'"),
    (["train//a.avi"], PATHS, "LIST, line 1: expected a line such as 'train0//videos/run/x.avi' "
                              "(list format HMDB_few_shot), found 'train//a.avi'"),
    (["train-1/5"], IDS, "LIST, line 1: expected a line such as 'train0/78687' "
                         "(list format Ssv2_few_shot), found 'train-1/5'"),
    (["train0//a.avi", "", "train1//a.avi"], PATHS, "LIST, line 3: expected every video once, found 'a.avi' already "
                                                    "in line 1"),
    (["train0//a/../../x.avi"], PATHS, "LIST, line 1: expected a path under DATA_ROOT_DIR, found 'a/../../x.avi'"),
    (["train0/.."], IDS, "LIST, line 1: expected a path under DATA_ROOT_DIR, found '..'"),
    (["train0//\\etc"], PATHS, "LIST, line 1: expected a path under DATA_ROOT_DIR, found '\\\\etc'"),
    (["train0//a\0.avi"], PATHS, "LIST, line 1: expected a path under DATA_ROOT_DIR, found 'a\\x00.avi'"),
    (["train0/1", "train2/2"], IDS, "LIST: expected class indices 0 to 1 for 2 classes, found 2 (line 2) and no video "
                                    "of class 1"),
    (["train1/1"], IDS, "LIST: expected class indices 0 to 0 for 1 classes, found 1 (line 1) and no video of class 0"),
    (["", "  "], IDS, "LIST: expected at least one video, found an empty list"),
])
def test_refusals_name_line_expected_and_found(tmp_path, lines, list_format, text):
    assert refusal(write(tmp_path, *lines), list_format) == text


def test_absolute_path_is_no_path_format_line(tmp_path):
    assert "found 'train0///etc/passwd'" in refusal(write(tmp_path, "train0///etc/passwd"))


def test_missing_list_names_the_directory(tmp_path):
    (tmp_path / "val_few_shot.txt").write_text("")
    assert refusal(tmp_path / "train_few_shot.txt") == (
        f"LIST: split list not found: expected train_few_shot.txt in directory {tmp_path}, which holds "
        "val_few_shot.txt (DATA.ANNO_DIR)")
    assert f"directory {tmp_path / 'no'}, which does not exist" in refusal(tmp_path / "no" / "train_few_shot.txt")


def test_binary_list(tmp_path):
    path = tmp_path / "train_few_shot.txt"
    path.write_bytes(b"train0/1\n\xff\xfe")
    assert refusal(path) == "LIST: expected a text file in UTF-8, found byte 0xff at offset 9"


def test_a_directory_is_no_list(tmp_path):
    assert refusal(tmp_path) == "LIST: expected a file, found a directory"


def test_list_hash_ignores_order_blank_lines_and_line_ends(tmp_path):
    one = list_hash(write(tmp_path, "train0/1", "train1/2"))
    assert one == list_hash(write(tmp_path, "", "train1/2\r", " train0/1", ""))
    assert one != list_hash(write(tmp_path, "train0/1", "train1/3"))
    assert len(one) == 64


def test_check_classes_counts_classes_and_clips():
    records = [VideoRecord(str(i), k, i + 1) for i, k in enumerate([0, 0, 0, 1, 2, 2])]
    check_classes(records, ("run", "jump", "sit"), 1, Path("LIST"))
    check_classes(records, ("run", "jump", "sit", "a name without clips"), 1, Path("LIST"))
    message = "^LIST: expected at most 2 classes, as many as CLASS_NAME has names, found 3$"
    with pytest.raises(AnnotationError, match=message):
        check_classes(records, ("run", "jump"), 1, Path("LIST"))
    with pytest.raises(AnnotationError) as caught:
        check_classes(records, ("run", "jump", "sit"), 3, Path("LIST"))
    assert str(caught.value) == ("LIST: expected at least 3 videos a class (SHOT + QUERY_PER_CLASS), found: "
                                 "class 1 ('jump') has 1, class 2 ('sit') has 2")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_resolve_takes_the_path_as_listed_then_a_folder_of_frames(tmp_path):
    record = VideoRecord("videos/run/x.avi", 0, 1)
    frames = touch(tmp_path / "videos/run/x/0001.jpg").parent
    assert resolve_video(tmp_path, record, PATHS) == frames
    file = touch(tmp_path / record.path)
    assert resolve_video(tmp_path, record, PATHS) == file
    assert resolve_video(tmp_path, record, PATHS, prefer_folder=True) == frames


def test_resolve_ssv2_tries_mp4_webm_and_folder(tmp_path):
    record = VideoRecord("12", 0, 1)
    frames = touch(tmp_path / "12/1.JPG").parent
    assert resolve_video(tmp_path, record) == frames
    webm = touch(tmp_path / "12.webm")
    assert resolve_video(tmp_path, record) == webm
    mp4 = touch(tmp_path / "12.mp4")
    assert resolve_video(tmp_path, record, IDS) == mp4


def test_resolve_names_the_paths_it_tried(tmp_path):
    (tmp_path / "12").mkdir()  # without frames
    with pytest.raises(VideoDecodeError) as caught:
        resolve_video(tmp_path, VideoRecord("12", 0, 7))
    assert str(caught.value) == (f"{tmp_path}/12: no such video (line 7 of the list); tried {tmp_path}/12.mp4, "
                                 f"{tmp_path}/12.webm, {tmp_path}/12/*.jpg")


def test_resolve_refuses_paths_and_links_out_of_the_root(tmp_path):
    outside, root = touch(tmp_path / "outside.mp4"), tmp_path / "root"
    root.mkdir()
    (root / "1.mp4").symlink_to(outside)
    with pytest.raises(AnnotationError) as caught:
        resolve_video(root, VideoRecord("1", 0, 1))
    assert str(caught.value) == (f"{root}/1.mp4: expected a file under DATA_ROOT_DIR {root}, found a link to "
                                 f"{outside}; point DATA_ROOT_DIR at the directory that holds the videos")
    for listed in ("../outside.mp4", str(outside)):
        with pytest.raises(AnnotationError, match="expected a path under"):
            resolve_video(root, VideoRecord(listed, 0, 1), PATHS)


def test_the_root_itself_may_be_a_link(tmp_path):
    touch(tmp_path / "real/1.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert resolve_video(tmp_path / "link", VideoRecord("1", 0, 1)) == tmp_path / "link/1.mp4"


PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "splits"
SIZES = {"kinetics100": (6400, 1200, 2400, 64, 12, 24), "ssv2_small": (6400, 1200, 2400, 64, 12, 24),
         "ssv2_full": (67013, 1926, 2857, 64, 12, 24), "ucf101": (9154, 1421, 2745, 70, 10, 21),
         "hmdb51": (4280, 1194, 1292, 31, 10, 10)}


@pytest.mark.shared("splits")
@pytest.mark.parametrize("name", SIZES)
def test_published_lists(name):
    for index, split in enumerate(("train", "val", "test")):
        list_format = None if name.startswith("ssv2") else PATHS
        records = read_split_list(PUBLISHED / name / f"{split}_few_shot.txt", split, list_format)
        assert (len(records), len({r.class_index for r in records})) == (SIZES[name][index], SIZES[name][index + 3])
