"""prepare.py check: found, opened, decoded; the manifest, the page, the exit status, the lists without the bad ones."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from datasets.builder import build_split
from runs.preparing import check
from runs.preparing.examine import VideoFacts
from tests.conftest import REPOSITORY, called
from tests.datasets.readers.decoder_files import ramp, write_pictures
from utils.config import load_config

main = called("prepare")


@pytest.fixture
def copied(tiny_project, tiny_videos, tmp_path) -> tuple[Path, Path]:
    """(root, project file) of a copy of the tiny data set, to be damaged."""
    root = tmp_path / "copy"
    shutil.copytree(tiny_videos, root)
    project = tiny_project()
    project.write_text(project.read_text().replace(str(tiny_videos), str(root)))
    return root, project


def listed(root: Path, split: str = "test") -> list[str]:
    return [line.split("//")[1] for line in (root / f"{split}_few_shot.txt").read_text().split()]


def run(project: Path, *arguments) -> tuple[int, str, pd.DataFrame]:
    """(exit status, the page, the manifest)."""
    out = project.parent / "checked"
    status = main(["check", "--cfg", str(project), "--out", str(out), "--workers", "2", *map(str, arguments)])
    return status, (out / "check.txt").read_text(), pd.read_parquet(out / "manifest.parquet")


def test_all_good(copied):
    root, project = copied
    status, page, table = run(project)
    assert status == 0 and page.endswith("\nall good\n")
    assert len(table) == 60 and set(table.status) == {"ok"} and table.as_listed.all() and (table.reason == "").all()
    assert {"path", "split", "class", "frames", "fps", "width", "height", "codec", "status", "reason"} <= set(table)
    assert table.frames.between(16, 60).all() and table.width.between(96, 160).all()
    assert set(table.codec) == {"h264", "mpeg4"} and table.fps.isin((10, 12, 15, 20, 24, 25, 30)).all()
    assert re.search(r"^test +20 +20 +0 +0 +0 +0 +5$", page, re.MULTILINE)
    assert re.search(r"60 files looked at with \w+ in [\d.]+ s: \d+ a second, [\d.]+ cores busy", page)
    assert not list((project.parent / "checked").glob(".*"))


def spoil(root: Path) -> list[str]:
    """Two of four clips of test class 0 bad, a clip of class 1 with another extension, one of class 2 short."""
    videos = listed(root)
    (root / videos[0]).unlink()
    (root / videos[1]).write_bytes(b"")
    (root / videos[4]).rename((root / videos[4]).with_suffix(".MKV"))
    write_pictures(root / videos[8], ramp, "libx264", frames=3)
    return videos


def test_each_kind_of_bad_is_named_and_the_status_tells(copied):
    root, project = copied
    videos = spoil(root)
    status, page, table = run(project, "--splits", "test", "--", "TRAIN.SHOT_TEST", "2")
    assert status == 1 and page.endswith("\nsomething is bad: see above\n")
    own = table.set_index("path")
    assert own.status[videos[0]] == "missing" and own.status[videos[1]] == "unreadable"
    assert own.reason[videos[1]] == "empty file (0 bytes)" and "no such video" in own.reason[videos[0]]
    assert own.status[videos[4]] == "ok" and own.found[videos[4]].endswith(".MKV") and not own.as_listed[videos[4]]
    assert own.status[videos[8]] == "short" and own.frames[videos[8]] == 3 and (own.status == "ok").sum() == 17
    assert re.search(r"^test +20 +18 +1 +1 +1 +1 +5$", page, re.MULTILINE)
    assert f"  test {videos[4]} -> {own.found[videos[4]]}\n" in page
    assert f"  test {videos[8]}: 3 frames\n" in page
    name = own["class"][videos[0]]
    assert f"  test class 0 ({name!r}): 2 of 4 good, an episode draws 3\n" in page
    assert "splits below" not in page


@pytest.mark.parametrize(("spoiled", "status"), [(None, 0), ("short", 0), ("moved", 1), ("empty", 1)])
def test_the_status_of_each_kind_alone(copied, spoiled, status):
    root, project = copied
    place = root / listed(root)[0]
    if spoiled == "short":
        write_pictures(place, ramp, "libx264", frames=2)
    elif spoiled == "moved":
        place.rename(root / place.name.upper())
    elif spoiled == "empty":
        place.write_bytes(b"")
    assert run(project, "--splits", "test")[0] == status
    if spoiled == "short":
        assert run(project, "--splits", "test", "--drop-short")[0] == 1


def test_a_split_without_enough_classes(copied):
    root, project = copied
    for video in listed(root)[:12]:
        (root / video).unlink()
    status, page, _ = run(project, "--splits", "test")
    assert status == 1 and "  test: an episode draws 3 classes, 2 of 5 have enough videos\n" in page


def settings_of(page: str) -> list[str]:
    return re.search(r"^use them with: (.*)$", page, re.MULTILINE)[1].split(" ")


def test_lists_without_the_bad_ones_can_be_run(copied):
    root, project = copied
    videos = spoil(root)
    pairs = ["TRAIN.SHOT_TEST", "2"]
    _, page, table = run(project, "--write-lists", root / "new", "--", *pairs)
    names = dict(zip(table["class"][table.split == "test"], table.class_index[table.split == "test"], strict=True))
    assert "/new/test_few_shot.txt: 16 of 20 videos, 4 classes, custom-" in page and "; without [" in page
    cfg = load_config(project, [*pairs, *settings_of(page)])
    split = build_split(cfg, "test")
    assert len(split.records) == 16 and split.class_names == tuple(list(names)[1:])
    before = {path: name for path, name in zip(table.found, table["class"], strict=True) if path}
    for number, record in enumerate(split.records):  # every index has the name that it belongs to, every file is there
        assert split.class_names[record.class_index] == before[record.path]
        assert split.dataset.videos.path(number).is_file()
    assert not {record.path for record in split.records} & {videos[0], videos[1], videos[4]}
    assert len(build_split(cfg, "train").records) == 20
    again = main(["check", "--cfg", str(project), "--out", str(root / "out"), *pairs, *settings_of(page)])
    assert again == 0


def test_lists_of_whole_videos_keep_their_hash_and_need_no_other_setting(copied):
    root, project = copied
    _, page, _ = run(project, "--write-lists", root / "new")
    assert settings_of(page) == ["DATA.ANNO_DIR", str(root / "new")]
    for split in ("train", "val", "test"):
        assert (root / "new" / f"{split}_few_shot.txt").read_text() == (root / f"{split}_few_shot.txt").read_text()


def test_lists_are_never_replaced(copied, capsys):
    root, project = copied
    (root / listed(root)[0]).unlink()
    before = (root / "test_few_shot.txt").read_bytes()
    arguments = ["check", "--cfg", str(project), "--out", str(root / "out"), "--write-lists", str(root)]
    assert main(arguments) == 1 and (root / "test_few_shot.txt").read_bytes() == before
    assert f"AnnotationError: {root}/test_few_shot.txt: expected no other file there" in capsys.readouterr().err
    assert not (root / "classes.yaml").exists()


def test_lists_of_a_killed_check_are_completed(copied):
    root, project = copied
    assert run(project, "--write-lists", root / "whole")[0] == run(project, "--write-lists", root / "new")[0] == 0
    for name in ("val_few_shot.txt", "classes.yaml"):
        (root / "new" / name).unlink()
    left = [root / "new" / ".val_few_shot.txt.123.tmp", project.parent / "checked" / ".manifest.parquet.123.tmp"]
    for path in left:
        path.write_text("half")
    progress = project.parent / "checked" / "progress.jsonl"
    lines = progress.read_text().splitlines(keepends=True)
    wrong = [lines[1].replace('"frames": ', '"frames": 9'), "[" * 9999 + "\n", '{"key": 1}\n', "5\n", *lines[2:5]]
    progress.write_text("".join([lines[0], *wrong]))
    assert run(project, "--write-lists", root / "new")[0] == 0 and not any(path.exists() for path in left)
    files = {path.name: path.read_text() for path in (root / "whole").iterdir()}
    assert {path.name: path.read_text() for path in (root / "new").iterdir()} == files and len(files) == 4
    assert "; 3 known from before" in (project.parent / "checked" / "check.txt").read_text()


def test_the_table_stays_where_nothing_is_good(copied, capsys):
    root, project = copied
    shutil.move(root / "videos", root.parent / "videos_elsewhere")
    (root / "all.zip").touch()
    status, page, table = run(project, "--write-lists", root / "new")
    said = capsys.readouterr()
    assert status == 1 and page in said.out and "no lists were written" in said.err and set(table.status) == {"missing"}
    assert re.search(r"^test +20 +0 +20 +0 +0 +0 +5$", page, re.MULTILINE)
    assert f"{root} holds archives, such as all.zip: unpack them there" in page


def test_ids_that_lie_elsewhere_become_paths(copied):
    root, project = copied
    lines = []
    for number, video in enumerate(listed(root)):
        suffix = Path(video).suffix
        (root / video).rename(root / ("videos" if number == 3 else ".") / f"{number}{suffix}")
        lines.append(f"test{number // 4}/{number}")
    (root / "test_few_shot.txt").write_text("\n".join(lines))
    project.write_text(project.read_text().replace('"HMDB_few_shot"', '"Ssv2_few_shot"'))
    _, page, _ = run(project, "--splits", "test", "--write-lists", root / "new")
    assert "TRAIN.DATASET_FEW paths" in page
    cfg = load_config(project, settings_of(page))
    split = build_split(cfg, "test")
    assert len(split.records) == 20 and all(split.dataset.videos.path(i).is_file() for i in range(20))


def test_it_goes_on_where_it_was(copied, monkeypatch):
    root, project = copied
    run(project)
    seen: list[str] = []
    monkeypatch.setattr(check, "guarded", lambda work, items, **_: (seen.extend(items), [
        (file, VideoFacts(frames=9, readable=True)) for file in items])[1])
    assert run(project)[0] == 0 and seen == []
    (root / listed(root)[2]).write_bytes(b"another file")
    run(project)
    assert [Path(job.path).name for job in seen] == [Path(listed(root)[2]).name]
    progress = project.parent / "checked" / "progress.jsonl"
    progress.write_text(progress.read_text()[:-40])  # the machine stopped in the middle of a line
    seen.clear()
    run(project)
    assert len(seen) == 1
    seen.clear()
    run(project, "DATA.DECODER", "decord")
    assert len(seen) == 60 and {job.decoder for job in seen} == {"decord"}


@pytest.mark.slow
def test_a_killed_check_goes_on(copied):
    root, project = copied
    out = project.parent / "killed"
    command = [sys.executable, "runs/prepare.py", "check", "--cfg", str(project), "--out", str(out), "--workers", "1"]
    progress = out / "progress.jsonl"
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        if progress.is_file() and progress.read_text().count("\n") > 5:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    assert 5 <= progress.read_text().count("\n") - 1 < 60 and not (out / "manifest.parquet").exists()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    known = int(re.search(r"; (\d+) known from before", done.stdout)[1])
    assert known >= 5 and f"\n{60 - known} files looked at" in done.stdout
    lines = [json.loads(line) for line in progress.read_text().splitlines()[1:]]
    assert len({line["key"] for line in lines}) == 60


def test_a_hole_in_the_middle_is_seen_by_every_frame(copied):
    root, project = copied
    video = next(video for video in listed(root) if video.endswith(".mp4"))
    whole = bytearray((root / video).read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + len(whole) // 10] = bytes(len(whole) // 10)
    (root / video).write_bytes(whole)
    _, _, table = run(project, "--splits", "test", "--every-frame")
    assert table.set_index("path").status[video] == "unreadable"
    assert table.set_index("path").reason[video].startswith("damaged: decoding failed")


def test_lost_frames_of_an_avi_are_said(copied):
    root, project = copied
    video = next(video for video in listed(root) if video.endswith(".avi"))
    whole = bytearray((root / video).read_bytes())
    whole[len(whole) // 2 : len(whole) * 7 // 10] = bytes(len(whole) * 7 // 10 - len(whole) // 2)
    (root / video).write_bytes(whole)
    _, page, table = run(project, "--splits", "test")
    reason = table.set_index("path").reason[video]
    assert re.match(r"the container counts \d+ frames, \d+ are there: a part is damaged|damaged: ", reason)
    assert f"test {video}: {reason}" in page


def test_a_link_that_leads_to_itself_is_one_missing_video(copied):
    root, project = copied
    video = listed(root)[0]
    (root / video).unlink()
    (root / video).symlink_to(Path(video).name)
    status, page, table = run(project, "--splits", "test")
    assert status == 1 and table.status.value_counts().to_dict() == {"ok": 19, "missing": 1}
    assert "a link to 000.mp4, where nothing is" in page
    assert "of each file one frame near the end (--every-frame: all) was decoded" in page


def test_settings_before_and_behind_an_option(copied):
    _, project = copied
    out = project.parent / "checked"
    assert main(["check", "--cfg", str(project), "DATA.TEST_SCALE", "72", "--out", str(out), "DATA.NUM_INPUT_FRAMES",
                 "1000"]) == 0
    assert (pd.read_parquet(out / "manifest.parquet").status == "short").all()


def test_what_is_wrong_with_the_command_is_said(copied, capsys):
    root, project = copied
    assert main(["check", "--cfg", str(project), "DATA.DATA_ROOT_DIR", str(root / "none")]) == 1
    assert f"LaunchError: DATA.DATA_ROOT_DIR: expected the directory of the videos, found no directory {root}/none" in (
        capsys.readouterr().err)
    for options, text in ((["--workers", "-1"], "found -1 and 60"), (["--limit", "0"], "found 0 and 0")):
        assert main(["check", "--cfg", str(project), *options]) == 1
        assert f"--workers of at least 1 (0: one a core) and --limit above 0, {text}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["check", "--cfg", str(project), "--outt", "x"])
    assert "unrecognized arguments: --outt" in capsys.readouterr().err
    (root / "test_few_shot.txt").write_text("".join(f"test{k}//{k}.mp4\n" for k in range(9)))
    assert main(["check", "--cfg", str(project), "--splits", "test"]) == 1
    assert "line 6: expected a class index below 5, as many as there are class names, found 5" in (
        capsys.readouterr().err)
