"""Everything that can fail before the model is built fails there, with all problems and a way out."""

import os
import subprocess
import sys

import pytest

from datasets.annotations import listed_once, missing_videos
from models.heads import HEADS
from runs.session import session
from runs.session.preflight import check_names, read_splits, shared_videos
from runs.session.session import run
from tests.conftest import REPOSITORY, run_command
from utils.config import load_config, resolve_config
from utils.episode import VideoRecord
from utils.errors import AnnotationError, ConfigError, VideoDecodeError


@pytest.fixture(autouse=True)
def _no_model(monkeypatch):
    """Nothing here may get as far as a model."""
    def build(cfg):
        raise AssertionError("the model was built")
    monkeypatch.setattr(session, "build_model", build)


def test_all_unknown_names_at_once(tiny_project):
    project = tiny_project()
    with pytest.raises(ConfigError) as caught:
        check_names(resolve_config(project, [
            "VIDEO.HEAD.NAME", "foo", "TRAIN.DATASET_FEW", "bar",
            "TEST.DATASET", "x", "DATA.DECODER", "decrod"]))
    assert caught.value.problems == [
        f"command line: VIDEO.HEAD.NAME: unknown head 'foo'; known: {', '.join(sorted(HEADS))} (another is registered "
        "in models/heads/)",
        "command line: TEST.DATASET: unknown data set 'x'; known: Ssv2_few_shot, few_shot (another is registered in "
        "datasets/few_shot.py)",
        "command line: TRAIN.DATASET_FEW: unknown list format 'bar'; known: HMDB_few_shot, Kinetics_few_shot, "
        "Ssv2_few_shot, ids, paths (another is registered in datasets/annotations.py)",
        "command line: DATA.DECODER: unknown decoder 'decrod', did you mean 'decord'?; known: auto, decord, frames, "
        "pyav, torchcodec (another is registered in datasets/readers/)"]
    check_names(resolve_config(project, ["TRAIN.DATASET_FEW", "null", "DATA.DECODER", "auto"]))


def test_lists_and_directories_come_before_the_model(tiny_project, tmp_path):
    with pytest.raises(ConfigError, match=r"DATA.DATA_ROOT_DIR: expected the directory of the videos, found none at "
                                          r"nowhere \(looked for in the current directory, /"):
        run(resolve_config(tiny_project(), ["DATA.DATA_ROOT_DIR", "nowhere"]))
    with pytest.raises(ConfigError, match=r"TEST.FEATURE_STORE_DIR: expected a directory that can be written, found "
                                          r"/dev/null/x \(Not a directory\)"):
        run(resolve_config(tiny_project(), ["TEST.FEATURE_STORE_DIR", "/dev/null/x"]))
    with pytest.raises(AnnotationError, match="which does not exist in the current directory, /"):
        run(resolve_config(tiny_project(), ["DATA.ANNO_DIR", "nowhere"]))
    for key, value, text in (("OUTPUT_DIR", "", "expected a directory, found no name"),
                             ("TRAIN.LOG_FILE", "sub/x.log", "expected the name of a file in OUTPUT_DIR"),
                             ("TRAIN.NUM_TRAIN_TASKS", "0", "expected 1 or more"),
                             ("RANDOM_SEED", "1e30", "expected a whole number below 2"),
                             ("SOLVER.BASE_LR", "-1e-5", "expected 0 or more")):
        with pytest.raises(ConfigError, match=f"{key}: {text}"):
            resolve_config(tiny_project(), [key, value])


def _copy_lists(videos, target, change) -> None:
    for split in ("train", "val", "test"):
        lines = (videos / f"{split}_few_shot.txt").read_text().splitlines()
        (target / f"{split}_few_shot.txt").write_text("\n".join(change(split, lines)))


def test_missing_videos_of_every_list_are_found_first(tiny_project, tiny_videos, tmp_path, caplog):
    _copy_lists(tiny_videos, tmp_path, lambda split, lines: [
        line.replace("000.mp4", "gone.mp4") if split == "test" else line for line in lines])
    project = tiny_project()
    read_splits(load_config(project, ["DATA.ANNO_DIR", str(tmp_path), "DATA.ON_BAD_VIDEO", "replace"]))
    assert "5 of 20 videos of" in caplog.text and "others of their class are taken" in caplog.text
    with pytest.raises(VideoDecodeError, match=r"gone.mp4: no such video \(line 1 of the list\); 5 of 20 videos of .*"
                                               r"ON_BAD_VIDEO: replace goes on without them"):
        run(resolve_config(project, ["DATA.ANNO_DIR", str(tmp_path)]))


def test_a_video_in_two_lists_is_told(tiny_project, tiny_videos, tmp_path, caplog):
    first = (tiny_videos / "train_few_shot.txt").read_text().splitlines()[0]
    first = first.replace("train0//videos", "test0//./videos")
    _copy_lists(tiny_videos, tmp_path, lambda split, lines: [*lines, first] if split == "test" else lines)
    splits = read_splits(load_config(tiny_project(), ["DATA.ANNO_DIR", str(tmp_path)]))
    assert shared_videos(splits) == 1
    assert "1 videos stand in the train and in the test list" in caplog.text and "(lines 1 and 21)" in caplog.text
    assert shared_videos(read_splits(load_config(tiny_project()))) == 0
    _copy_lists(tiny_videos, tmp_path, lambda split, lines: [*lines, lines[0].replace("//videos", "//./videos")])
    with pytest.raises(AnnotationError, match="expected every video once, found './videos/"):
        read_splits(load_config(tiny_project(), ["DATA.ANNO_DIR", str(tmp_path)]))


def test_each_folder_is_listed_once_however_many_videos_are_looked_for(tmp_path, monkeypatch):
    (tmp_path / "9").mkdir()
    for number in range(0, 3000, 3):
        (tmp_path / f"{number}.mp4").touch()
    records = [VideoRecord(str(number), 0, number + 1) for number in range(6000)]
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    missing = missing_videos(listed_once(tmp_path), records)
    assert listed == [tmp_path]
    assert len(missing) == 6000 - 1000 and records[9] not in missing


def test_negative_numbers_and_help():
    done = run_command("--cfg", REPOSITORY / "configs/projects/demo/CLIPFSAR_Demo_1shot.yaml", "SOLVER.BASE_LR",
                       "-1e-5", "--print-config")
    assert "SOLVER.BASE_LR: expected" in done.stderr and "found -1e-05" in done.stderr
    done = subprocess.run([sys.executable, "runs/run.py", "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "Every key is in configs/pool/base.yaml" in done.stdout


def test_a_key_without_effect_in_a_file_is_a_note(tiny_project):
    notes = resolve_config(tiny_project(extra="TASK_TYPE: few_shot_action")).notes
    assert not [note for note in notes if "TEST.ENABLE" in note]
    project = tiny_project()
    project.write_text(project.read_text().replace("TEST: {", "TEST: {ENABLE: false, "))
    assert [note for note in resolve_config(project).notes if "TEST.ENABLE: false has no effect beside" in note]
    for pairs, said in ((["TRAIN.COMBINE", "true", "TRAIN.TEXT_COFF", "0"], "0 means 0.9, as published"),
                        (["TRAIN.TEXT_COFF", "0"], "COMBINE is off")):
        notes = check_names(resolve_config(project, pairs)).notes
        assert f"command line: TRAIN.TEXT_COFF: has no effect: {said}" in notes


@pytest.mark.parametrize("change, said", [
    (lambda line: line.replace(".mp4", ".MP4"), "lie elsewhere in"),
    (lambda line: line.removesuffix(".mp4"), "lie elsewhere in"),
    (lambda line: line.replace("videos/", "more/videos/"), "lie elsewhere in"),
    (lambda line: line.replace("//videos/", "//videos\\").replace("/0", "\\0"), "lie elsewhere in"),
    (lambda line: line.replace("000.mp4", "gone.mp4"), "holds "),
])
def test_where_missing_videos_lie_is_said(tiny_project, tiny_videos, tmp_path, change, said):
    _copy_lists(tiny_videos, tmp_path, lambda split, lines: [change(line) for line in lines])
    with pytest.raises(VideoDecodeError, match="are not there: .* " + said) as caught:
        read_splits(load_config(tiny_project(), ["DATA.ANNO_DIR", str(tmp_path)]))
    assert ("--write-lists <directory>" in str(caught.value)) == (said != "holds ")
