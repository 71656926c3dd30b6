"""prepare.py lists: derived, imported, fetched; every check with its text; nothing is half written."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from runs import prepare
from runs.preparing import lists as command
from runs.preparing import published_lists
from tests.conftest import REPOSITORY
from tests.local_server import local_site
from tests.runs.preparing.prepare_fixture import (
    DATASETS,
    PUBLISHED,
    SPLITS,
    call,
    lines,
    made_up,
    names,
    touch,
    write,
)
from utils.config import load_config
from utils.files import sha256

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *prepare.COMMANDS])
def test_help_shows_an_example(name):
    arguments = [name] if name else []
    done = subprocess.run([sys.executable, "runs/prepare.py", *arguments, "--help"], cwd=REPOSITORY, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0
    for text, example in [prepare.COMMANDS[name]] if name else prepare.COMMANDS.values():
        assert f" {example}\n" in done.stdout and text.split(",")[0].split()[0] in done.stdout.lower()


def test_lists_go_where_the_data_sets_settings_look_for_them(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for dataset in DATASETS:
        projects = sorted((REPOSITORY / "configs/projects/CLIPFSAR" / dataset).glob("*.yaml"))
        assert len(projects) == 4
        for project in projects:
            cfg = load_config(project)
            assert Path(cfg.DATA.ANNO_DIR).resolve() == command.default_directory(dataset)
            queries = max(cfg.TRAIN.SHOT + cfg.TRAIN.QUERY_PER_CLASS,
                          (cfg.TRAIN.SHOT_TEST or cfg.TRAIN.SHOT) + cfg.TRAIN.QUERY_PER_CLASS_TEST)
            assert queries <= 6  # --shot 5 --query 1, the defaults


@pytest.mark.shared("splits")
@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_published_names_give_the_published_lists(dataset, tmp_path, capfd):
    rows = [line for split in SPLITS for line in lines(PUBLISHED / dataset / f"{split}_few_shot.txt")]
    touch(tmp_path, [row.split("//")[1] for row in rows])
    status, out, _ = call(capfd, "lists", dataset, "--videos", tmp_path / "videos", "--out", tmp_path / "out")
    assert status == 0 and out.count(f"{dataset}@arn (written)") == 3 and "note" not in out
    for split in SPLITS:
        assert lines(tmp_path / "out" / f"{split}_few_shot.txt") == lines(PUBLISHED / dataset / f"{split}_few_shot.txt")


@pytest.mark.shared("splits")
@pytest.mark.parametrize("dataset", DATASETS)
def test_published_lists_are_imported_and_named(dataset, tmp_path, capfd):
    status, out, _ = call(capfd, "lists", dataset, "--from", PUBLISHED / dataset, "--out", tmp_path)
    assert status == 0 and out.count(f" {dataset}@") == 3
    for split in SPLITS:
        source = PUBLISHED / dataset / f"{split}_few_shot.txt"
        assert lines(tmp_path / source.name) == lines(source)
        assert published_lists.file_hash(dataset, split) == sha256(source)


@pytest.mark.shared("splits")
def test_lists_of_another_data_set_and_another_order(tmp_path, capfd):
    """SSv2-Full and SSv2-Small have equally many classes."""
    status, _, error = call(capfd, "lists", "ssv2_small", "--from", PUBLISHED / "ssv2_full", "--out", tmp_path)
    assert status == 1 and list(tmp_path.iterdir()) == []
    assert ("expected a list of ssv2_small: this is ssv2_full@67013, whose class indices are those of ssv2_full, but "
            "the train class names are ssv2_small's") in error
    for split in SPLITS:
        own = (PUBLISHED / "ssv2_small" / f"{split}_few_shot.txt").read_text().splitlines()
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{split}_few_shot.txt").write_text("\n".join(own[::-1] if split == "val" else own) + "\n")
    status, out, _ = call(capfd, "lists", "ssv2_small", "--from", tmp_path / "in", "--out", tmp_path / "out")
    assert status == 0 and out.count("in another order than published") == 1
    assert "val: the lines of ssv2_small@cmn in another order than published: the same videos, other episodes" in out


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_a_folder_of_other_videos(dataset, tmp_path, capfd):
    """Six videos a class: refused with counts; with --partial lists of what is there."""
    rows = {split: made_up(dataset, split) for split in SPLITS}
    root = touch(tmp_path, [row.split("//")[1] for split in SPLITS for row in rows[split]])
    touch(root, ["videos/x.txt", "videos/not a class/a.avi", f"{rows['val'][0].split('//')[1]}.txt"])
    arguments = ["lists", dataset, "--videos", root, "--out", tmp_path / "out"]
    status, out, err = call(capfd, *arguments)
    first = names(dataset)["train"][0]
    assert status == 1 and not out and not (tmp_path / "out").exists()
    assert err.startswith(f"\nListError: {root}/videos: expected every class of {dataset} with the videos published, "
                          f"found:\n  - train class {first!r}: folder {first.replace(' ', '_')} has 6 of ")
    assert f"  and {sum(map(len, names(dataset).values())) - 20} more\n" in err
    assert err.endswith("--partial makes lists of what is there; they are no longer the published ones\n")
    status, out, _ = call(capfd, *arguments, "--partial")
    assert status == 0 and out.count("custom-") == 3
    assert f"note: folders that are no class of {dataset}: not a class\n" in out and "not videos, left out: " in out
    for split in SPLITS:
        assert lines(tmp_path / "out" / f"{split}_few_shot.txt") == sorted(rows[split])


def test_folders_that_are_missing_double_or_misspelt(tmp_path, capfd):
    rows = [row for split in SPLITS for row in made_up("hmdb51", split) if "/fencing/" not in row]
    root = touch(tmp_path, [row.split("//")[1] for row in rows] + ["videos/fencng/a.avi", "videos/Brush Hair/a.avi"])
    status, _, err = call(capfd, "lists", "hmdb51", "--videos", root, "--out", tmp_path / "out", "--partial")
    assert status == 1
    assert "  - train class 'brush hair': 2 folders (Brush Hair, brush_hair)\n" in err
    assert "  - test class 'fencing': no folder; nearest: 'fencng'\n" in err
    assert "--partial makes" not in err


def test_videos_one_folder_deeper_are_said_with_what_mends_it(tmp_path, capfd):
    rows = [row.split("//videos/")[1] for split in SPLITS for row in made_up("hmdb51", split)]
    touch(tmp_path / "above" / "HMDB", rows)
    root = tmp_path / "twice"
    touch(root, [f"{row.split('/')[0]}/{row}" for row in rows])
    status, _, err = call(capfd, "lists", "hmdb51", "--videos", tmp_path / "above", "--out", tmp_path / "out")
    assert status == 1 and err == (f"\nListError: {tmp_path}/above: expected a folder a class, found them one folder "
                                   f"deeper: give --videos {tmp_path}/above/HMDB\n")
    status, _, err = call(capfd, "lists", "hmdb51", "--videos", root, "--out", tmp_path / "out")
    assert status == 1 and f"{root}: expected the videos in the folders of their classes, found those of 51 classes " \
                           "one folder deeper, as in " in err
    command = err[err.index("cd "):]
    subprocess.run(["bash", "-c", command], check=True)
    call(capfd, "lists", "hmdb51", "--videos", root, "--out", tmp_path / "out", "--partial")
    assert (tmp_path / "out" / "test_few_shot.txt").is_file()


def test_missing_clips_are_named_and_frames_count_as_the_video(tmp_path, capfd):
    root = tmp_path / "UCF-101"
    touch(root, [f"{name.replace(' ', '')}/v_{k}_{c}.avi" for split in SPLITS for k, name in
                 enumerate(names("ucf101")[split]) for c in range(6)])
    archery = root / "Archery"
    for file in archery.iterdir():
        file.unlink()
    touch(archery, [f"v_Archery_g{g:02d}_c{c:02d}.avi" for g in range(1, 26) for c in (1, 2, 4) if (g, c) != (7, 1)])
    touch(archery, ["v_Archery_g01_c01/1.jpg", "v_Archery_g25_c05/1.jpg", "empty/x.txt"])
    status, out, _ = call(capfd, "lists", "ucf101", "--videos", root, "--out", tmp_path / "out", "--partial")
    assert status == 0
    assert ("train class 'Archery': folder Archery has 75 of 145 videos; not there: v_Archery_g01_c03, "
            "v_Archery_g02_c03, ") in out
    assert "note: not videos, left out: Archery/empty\n" in out
    assert f"note: the lists call {root} 'videos': before a run rename it so" in out
    rows = lines(tmp_path / "out" / "train_few_shot.txt")
    assert "train1//videos/Archery/v_Archery_g25_c05.avi" in rows
    assert sum("v_Archery_g01_c01" in row for row in rows) == 1


@pytest.mark.parametrize(("arguments", "text"), [
    (["hmdb51", "--videos", "none"], "none: expected the folder of the videos (--videos), found nothing there"),
    (["ssv2_small", "--videos", "."],
     "ssv2_small: its lists hold some of the videos of a class, so they cannot be "
     "told from a folder; leave out --videos to fetch the published ones, or give --from"),
    (["hmdb51", "--partial"], "--partial: expected --videos, and no --from, found none to derive lists from"),
])
def test_refused_arguments(arguments, text, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capfd, "lists", *arguments, "--out", "out")
    assert (status, err) == (1, f"\nListError: {text}\n")



@pytest.mark.parametrize(("change", "text"), [
    (lambda split, rows: [*rows, rows[3]] if split == "val" else rows,
     "val_few_shot.txt, line 61: expected every video once, found 'videos/cartwheel/v_cartwheel_3.avi' already in "
     "line 4"),
    (lambda split, rows: ["", *rows, "test0//else/brush_hair/v_brush_hair_0.mp4"] if split == "test" else rows,
     "test_few_shot.txt, line 62: expected every video in one split, found 'else/brush_hair/v_brush_hair_0.mp4' in "
     "train, too (FROM/train_few_shot.txt, line 1)"),
    (lambda split, rows: [row for row in rows if not row.startswith("val3//")],
     "val_few_shot.txt: expected class indices 0 to 8 for 9 classes, found 9 (line 49) and no video of class 3"),
    (lambda split, rows: [*rows, "val10//videos/new/x.avi"] if split == "val" else rows,
     "val_few_shot.txt, line 61: expected 10 classes, as many as there are names for val, found 11 (the last is 10)"),
    (lambda split, rows: [row for row in rows if not row.startswith("train30//")],
     "train_few_shot.txt, line 175: expected 31 classes, as many as there are names for train, found 30 (the last is "
     "29)"),
    (lambda split, rows: rows[1:] if split == "test" else rows,
     "test_few_shot.txt, line 1: expected at least 6 videos (SHOT + QUERY_PER_CLASS) of class 0 ('fencing'), found 5"),
    (lambda split, rows: [row.replace("val0/", "val#/").replace("val1/", "val0/").replace("val#/", "val1/")
                          for row in rows],
     "val_few_shot.txt, line 1: expected class index 0 for folder 'cartwheel', as the class file has it, found 1 "),
    (lambda split, rows: [*rows[:2], "oops", *rows[2:]] if split == "val" else rows,
     "val_few_shot.txt, line 3: expected a line such as 'val0//videos/run/x.avi' (list format paths), found "
     "'oops'"),
    (lambda split, rows: [], "train_few_shot.txt: expected at least one video, found an empty list"),
])
def test_checks(change, text, tmp_path, capfd):
    source = write(tmp_path / "lists", "hmdb51", change)
    status, out, err = call(capfd, "lists", "hmdb51", "--from", source, "--out", tmp_path / "out")
    assert status == 1 and not out and not (tmp_path / "out").exists()
    assert err.replace(str(source), "FROM").startswith(f"\nAnnotationError: FROM/{text}")


def test_fewer_videos_a_class_on_request(tmp_path, capfd):
    source = write(tmp_path / "lists", "hmdb51", lambda split, rows: rows[1:])
    arguments = ["lists", "hmdb51", "--from", source, "--out", tmp_path / "out"]
    assert call(capfd, *arguments, "--shot", 1)[0] == 0
    with pytest.raises(SystemExit):
        call(capfd, *arguments, "--shot", "0")
    assert "argument --shot: expected a number of at least 1, found '0'" in capfd.readouterr().err


def test_what_is_there_stays_unless_forced(tmp_path, capfd):
    source, out = write(tmp_path / "lists", "ssv2_small"), tmp_path / "out"
    arguments = ["lists", "ssv2_small", "--from", source, "--out", out]
    status, text, _ = call(capfd, *arguments)
    assert status == 0 and text.count("(written)") == 3
    train = out / "train_few_shot.txt"
    train.write_text("\n".join(reversed(train.read_text().splitlines())))  # the same list in another order
    kept = train.read_bytes()
    status, text, _ = call(capfd, *arguments)
    assert status == 0 and text.count("(was there already)") == 3 and train.read_bytes() == kept
    train.write_text("train0/1\ntrain0/0\n")
    (out / "val_few_shot.txt").unlink()
    status, _, err = call(capfd, *arguments)
    assert status == 1 and not (out / "val_few_shot.txt").exists()
    assert err == (f"\nListError: {train}: another list is there (2 videos, this one has 384, 2 in both); choose "
                   "another --out, or overwrite it with --force\n")
    status, text, _ = call(capfd, *arguments, "--force")
    assert status == 0 and text.count("(written)") == 2 and lines(train) == lines(source / train.name)
    assert sorted(entry.name for entry in out.iterdir()) == sorted(f"{split}_few_shot.txt" for split in SPLITS)


def test_a_place_that_cannot_be_written(tmp_path, capfd):
    source, out = write(tmp_path / "lists", "ssv2_small"), tmp_path / "file"
    out.touch()
    status, text, err = call(capfd, "lists", "ssv2_small", "--from", source, "--out", out)
    assert (status, text, err) == (1, "", f"\nListError: {out}: cannot be written: File exists\n")


@pytest.fixture()
def site(monkeypatch):
    """A site with made-up lists of ssv2_small where the published ones are looked for."""
    with local_site() as served:
        bodies = {split: ("\r\n".join(made_up("ssv2_small", split)) + "\n").encode() for split in SPLITS}
        table = {"repository": "who/what", "commit": "c0ffee", "path": "lists/{dataset}/{split}.txt",
                 "videos_a_class": {}, "sha256": {"ssv2_small": {
                     split: hashlib.sha256(body).hexdigest() for split, body in bodies.items()}}}
        served.bodies |= {f"who/what/c0ffee/lists/ssv2_small/{split}.txt": body for split, body in bodies.items()}
        monkeypatch.setattr(published_lists, "HOST", served.address)
        monkeypatch.setattr(published_lists, "_table", lambda: table)
        yield served


def test_lists_are_fetched_once(site, tmp_path, capfd):
    site.manners["who/what/c0ffee/lists/ssv2_small/val.txt"] = "cut"
    site.times["who/what/c0ffee/lists/ssv2_small/val.txt"] = 1
    site.cut_at = 100
    status, text, _ = call(capfd, "lists", "ssv2_small", "--out", tmp_path / "out")
    assert status == 0 and text.count("(written)") == 3
    for split in SPLITS:
        assert lines(tmp_path / "out" / f"{split}_few_shot.txt") == sorted(made_up("ssv2_small", split))
    assert len(site.asked) == 4 and site.asked[2][1] == "bytes=100-"
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {f"{split}_few_shot.txt" for split in SPLITS}


@pytest.mark.parametrize(("manner", "reason"), [("404", "HTTP 404 Not Found"), ("stall", "Read timed out"),
                                                ("wrong", "damaged or another file: expected SHA-256")])
def test_what_cannot_be_fetched_can_be_placed_by_hand(site, tmp_path, capfd, manner, reason):
    name = "who/what/c0ffee/lists/ssv2_small/val.txt"
    if manner == "wrong":
        site.bodies[name] = b"<html>Please log in</html>"
    else:
        site.manners[name], site.cut_at = manner, 10
    out = tmp_path / "out"
    status, text, err = call(capfd, "lists", "ssv2_small", "--out", out)
    assert status == 1 and not text
    assert err.startswith(f"\nListError: {site.address}/{name}: ") and reason in err
    assert ("The file at this address is not the published one" in err) == (manner == "wrong")
    for split in SPLITS:
        digest = published_lists.file_hash("ssv2_small", split)
        assert (f"  {site.address}/who/what/c0ffee/lists/ssv2_small/{split}.txt\n    SHA-256 {digest}\n    as "
                f"{out}/{split}_few_shot.txt\n") in err
        assert not (out / f"{split}_few_shot.txt").exists()


@pytest.mark.shared("splits")
def test_lists_placed_by_hand_need_no_network(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(published_lists, "HOST", "http://127.0.0.1:9")
    for split in SPLITS:
        (tmp_path / f"{split}_few_shot.txt").write_bytes((PUBLISHED / f"hmdb51/{split}_few_shot.txt").read_bytes())
    status, text, _ = call(capfd, "lists", "hmdb51", "--out", tmp_path)
    assert status == 0 and text.count("hmdb51@arn (was there already)") == 3
    status, _, err = call(capfd, "lists", "hmdb51", "--out", tmp_path / "new")
    assert status == 1 and "\nor derive the lists from the videos: --videos FOLDER\n" in err
