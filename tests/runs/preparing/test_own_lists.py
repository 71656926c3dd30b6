"""prepare.py lists --videos DIR with --classes or --split: lists of anyone's folders, their class file, every error."""

import json

import numpy as np
import pytest
import yaml

from runs.clip_fsar import main
from runs.preparing.own_lists import own_lists
from runs.session.session import run
from tests.conftest import TINY_TOWER
from tests.runs.preparing.prepare_fixture import SPLITS, call, touch
from utils.config import resolve_config
from utils.config.class_names import read_class_names
from utils.errors import ListError

BY_NAME = {"train": ["run", "brush_hair"], "val": {"jump": "jumping high"}, "test": ["wave"]}


def folders(root, *names: str, clips: int = 6):
    """Empty files, `clips` of each class."""
    return touch(root, [f"{name}/{name}_{clip}.mp4" for name in names for clip in range(clips)])


@pytest.fixture()
def videos(tmp_path):
    return folders(tmp_path / "mine", "run", "brush_hair", "jump", "wave")


def by_name(tmp_path, content) -> str:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


@pytest.mark.parametrize("content", [BY_NAME, {"mine": BY_NAME}])
def test_lists_by_name(videos, tmp_path, capfd, content):
    """Files and frame folders at any depth; what is no video, or in no split, is left out."""
    touch(videos, ["run/deep/er/clip.MOV", "run/frames/1.jpg", "run/run_0/1.jpg", "run/notes.txt", "run/.hidden.mp4",
                   "other/a.mp4", ".cache/a.mp4"])
    status, out, _ = call(capfd, "lists", "--videos", videos, "--classes", by_name(tmp_path, content))
    assert status == 0
    lists = tmp_path / "mine_lists"
    train = (lists / "train_few_shot.txt").read_text().splitlines()
    assert train[:3] == ["train0//run/deep/er/clip.MOV", "train0//run/frames", "train0//run/run_0.mp4"]
    assert len(train) == 14 and train[8] == "train1//brush_hair/brush_hair_0.mp4"
    assert (lists / "val_few_shot.txt").read_text().splitlines()[0] == "val0//jump/jump_0.mp4"
    assert read_class_names(lists / "classes.yaml").splits == {
        "train": ("run", "brush hair"), "val": ("jumping high",), "test": ("wave",)}
    assert out.count("custom-") == 3 and "train_few_shot.txt: 14 videos, 2 classes, custom-" in out
    assert "note: folders that are in no split: other\n" in out
    assert "number of classes in the smallest split: 1; an episode can have no more ways, and needs at least 2\n" in out
    assert out.endswith(f"use them with:\n  DATA.DATA_ROOT_DIR {videos} TRAIN.DATASET_FEW paths \\\n"
                        f"  DATA.ANNO_DIR {lists} DATA.CLASSES {lists}/classes.yaml\n")


def test_links_that_lead_out_and_names_that_no_list_can_hold(videos, tmp_path, capfd):
    content = by_name(tmp_path, BY_NAME)
    (tmp_path / "else.mp4").touch()
    (videos / "run/out.mp4").symlink_to(tmp_path / "else.mp4")
    names = f"ListError: {videos} (train): expected names in UTF-8 on one line, found train0//run/"
    for said in (f"AnnotationError: {videos}/run/out.mp4: expected a file under DATA_ROOT_DIR {videos}, found a link",
                 names + "\\udce4.mp4; rename that file or folder", names + "a\\nb.mp4; "):
        status, _, error = call(capfd, "lists", "--videos", videos, "--classes", content)
        assert status == 1 and said in error and not (tmp_path / "mine_lists").exists()
        (videos / "run/out.mp4").unlink(missing_ok=True)
        for path in (videos / "run").glob("\udce4.mp4"):
            path.rename(videos / "run/a\nb.mp4")
        if "link" in said:
            (videos / "run/\udce4.mp4").touch()


def test_an_unknown_option_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "lists", "--videos", "D", "--split", "0.4,0.3,0.3", "--way", "3"])
    assert "error: unrecognized arguments: --way\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_takes_the_lists_with_the_settings_that_are_printed(tiny_videos, tmp_path, capsys):
    """Rendered clips sorted into a folder a class, as someone's own."""
    root, names = tmp_path / "own", {}
    for split in SPLITS:
        for line in (tiny_videos / f"{split}_few_shot.txt").read_text().splitlines():
            head, path = line.split("//")
            folder = f"{split}_{head.removeprefix(split)}"
            names.setdefault(split, {})[folder] = f"what {folder} shows"
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / path.rsplit("/", 1)[1]).write_bytes((tiny_videos / path).read_bytes())
    assert main(["prepare", "lists", "--videos", str(root), "--classes", by_name(tmp_path, names), "--shot", "1"]) == 0
    printed = capsys.readouterr().out.split("use them with:\n")[1].replace("\\\n", " ").split()
    (tmp_path / "tower.json").write_text(json.dumps(TINY_TOWER))
    project = tmp_path / "run.yaml"
    project.write_text(yaml.safe_dump({
        "NUM_GPUS": 0, "OUTPUT_DIR": str(tmp_path / "run"), "SOLVER": {"BASE_LR": 1e-3},
        "TRAIN": {"WAY": 3, "SHOT": 1, "QUERY_PER_CLASS": 1, "NUM_TRAIN_TASKS": 2, "NUM_VAL_TASKS": 2,
                  "NUM_TEST_TASKS": 2, "VAL_FRE_ITER": 2},
        "DATA": {"NUM_INPUT_FRAMES": 2, "TRAIN_JITTER_SCALES": [36, 36], "TEST_SCALE": 36, "TRAIN_CROP_SIZE": 32,
                 "TEST_CROP_SIZE": 32}, "DATA_LOADER": {"NUM_WORKERS": 0},
        "VIDEO": {"HEAD": {"BACKBONE_NAME": str(tmp_path / "tower.json"), "BACKBONE_WEIGHTS": "random"}}}))
    found = run(resolve_config(project, printed))
    assert found["list_id"].startswith("custom-") and found["data_set"] == "custom"
    assert set(found["per_class"]) <= {f"what test_{k} shows" for k in range(5)}


def test_shares_and_seed_decide_the_split(tmp_path, capfd):
    names = [f"action_{n:02d}" for n in range(20)]
    root = folders(tmp_path / "mine", *names)
    arguments = ["lists", "--videos", root, "--split", "0.7,0.15,0.15"]
    assert call(capfd, *arguments, "--out", tmp_path / "a", "--seed", "3")[0] == 0
    split = read_class_names(tmp_path / "a" / "classes.yaml").splits
    assert [len(split[part]) for part in SPLITS] == [14, 3, 3]
    assert sorted(name for part in split.values() for name in part) == [name.replace("_", " ") for name in names]
    text = (tmp_path / "a" / "classes.yaml").read_text()
    assert text.startswith(f"# Class folders of {root}, 20 of them shared out 0.7,0.15,0.15 by seed 3. Written by ")
    assert all(list(part) == sorted(part) for part in split.values())
    assert split["test"] == ("action 01", "action 06", "action 19")  # stays so: someone's results are of this split
    status, out, _ = call(capfd, *arguments, "--out", tmp_path / "a", "--seed", "3")
    assert status == 0 and out.count("(was there already)") == 3 and "TRAIN.DATASET_FEW paths TRAIN.WAY 3 \\\n" in out
    status, _, err = call(capfd, *arguments, "--out", tmp_path / "a", "--seed", "4")
    assert status == 1 and f"{tmp_path}/a/classes.yaml: another file is there; choose another --out, or " in err
    assert (tmp_path / "a" / "classes.yaml").read_text() == text
    assert call(capfd, *arguments, "--out", tmp_path / "a", "--seed", "4", "--force")[0] == 0
    assert read_class_names(tmp_path / "a" / "classes.yaml").splits != split


@pytest.mark.parametrize(("content", "problem"), [
    ({**BY_NAME, "test": ["wavee"]}, "test class 'wavee': no folder VIDEOS/wavee; nearest: 'wave'"),
    ({**BY_NAME, "test": ["wave", "run"]}, "test: 'run' is a class of train, too; each class has one split"),
    ({**BY_NAME, "test": ["wave", "wave"]}, "test: 'wave' stands there twice"),
    ({**BY_NAME, "train": {"run": "go", "brush_hair": "go"}}, "train: 'run' and 'brush_hair' are both called 'go'"),
    ({"train": ["run"], "test": ["wave"]},
     "val: expected a list of class folders, or folders with the class names to show, found nothing"),
    ({**BY_NAME, "val": "jump"},
     "val: expected a list of class folders, or folders with the class names to show, found 'jump'"),
    ({**BY_NAME, "val": [7]}, "val: 7 is not text; put it in quotes"),
    ({**BY_NAME, "vall": ["jump"]}, "vall: expected train, val or test"),
    ({**BY_NAME, "test": ["empty"]},
     "test class 'empty': no video in VIDEOS/empty; expected files (.mp4, .webm, .avi, .mkv, .mov, .mpg, .mpeg, .m4v) "
     "or folders of frames"),
    ({**BY_NAME, "test": ["linked"]},
     "test class 'linked': a link out of VIDEOS, which runs refuse; put the folder itself there"),
])
def test_classes_that_cannot_be_meant(videos, tmp_path, capfd, content, problem):
    (videos / "empty").mkdir()
    folders(tmp_path / "elsewhere", "linked")
    (videos / "linked").symlink_to(tmp_path / "elsewhere" / "linked")
    path = by_name(tmp_path, content)
    status, out, err = call(capfd, "lists", "--videos", videos, "--classes", path)
    assert status == 1 and not out and not (tmp_path / "mine_lists").exists()
    head = f"\nListError: {path}: expected class folders of {videos} for train, val and test, found:\n"
    assert err == f"{head}  - {problem.replace('VIDEOS', str(videos))}\n"


def test_every_problem_is_told_at_once(videos, tmp_path):
    (tmp_path / "my.yaml").write_text("train: [run, jmp]\nval: []\ntest: [run, wvae]\n")
    with pytest.raises(ListError) as caught:
        own_lists(videos, tmp_path / "my.yaml")
    assert str(caught.value).count("\n  - ") == 4


def test_a_class_with_too_few_clips_for_an_episode(videos, tmp_path, capfd):
    folders(videos, "wink", clips=2)
    arguments = ["lists", "--videos", videos, "--classes", by_name(tmp_path, {**BY_NAME, "test": ["wave", "wink"]})]
    status, _, err = call(capfd, *arguments)
    assert status == 1 and not (tmp_path / "mine_lists").exists()
    assert err == (f"\nAnnotationError: {videos} (test), line 7: expected at least 6 videos (SHOT + QUERY_PER_CLASS) "
                   "of class 1 ('wink'), found 2\n")
    assert call(capfd, *arguments, "--shot", "1")[0] == 0


@pytest.mark.parametrize(("arguments", "error"), [
    ([], "expected DATASET, or for your own videos --videos DIR and one of --classes YAML and --split SHARES; found "
         "none of them"),
    (["--videos", "mine"], "SHARES; found --videos"),
    (["--videos", "mine", "--classes", "my.yaml", "--split", "0.6,0.2,0.2"],
     "SHARES; found --videos, --classes, --split"),
    (["--videos", "mine", "--split", "0.6,0.2,0.2", "--from", "x", "--val", "y"],
     "--from, --val: only for a published data set, found with your own videos"),
    (["hmdb51", "--split", "0.6,0.2,0.2"], "--classes, --split: they are for your own videos; leave hmdb51 out"),
    (["--videos", "none", "--split", "0.6,0.2,0.2"],
     "none: expected the folder of the videos (--videos), which holds a folder a class, found nothing there"),
    (["--videos", "mine", "--split", "0.9,0.05,0.05"],
     "--split: expected at least one class for each of train, val and test, found 4, 0, 0 of 4 folders; choose other "
     "shares"),
    (["--videos", "mine", "--classes", "no.yaml"], "no.yaml: no such file"),
])
def test_arguments_that_do_not_fit(videos, tmp_path, monkeypatch, capfd, arguments, error):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capfd, "lists", *arguments)
    assert status == 1 and not out and error in err


@pytest.mark.parametrize("text", ["0.7,0.3", "1,0,0", "0.7,0.2,0.2", "a,b,c"])
def test_shares_that_are_none(capfd, text):
    with pytest.raises(SystemExit):
        call(capfd, "lists", "--videos", "x", "--split", text)
    assert f"add up to 1, such as 0.7,0.15,0.15, found {text!r}" in capfd.readouterr().err


def test_shares_are_met_as_nearly_as_whole_classes_allow(tmp_path):
    for count in (3, 7, 10, 33):
        root = folders(tmp_path / str(count), *(f"c{n}" for n in range(count)), clips=1)
        found = own_lists(root, (0.5, 0.25, 0.25))
        sizes = [len(found.folders[part]) for part in SPLITS]
        assert sum(sizes) == count and np.abs(np.array(sizes) - count * np.array([0.5, 0.25, 0.25])).max() <= 1
