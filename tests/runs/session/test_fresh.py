"""A fresh machine is told in one message, at once, all that is missing and what mends it."""

import subprocess
import sys

import pytest

from models.encoders.weight_files import OPENAI
from models.heads import HEADS
from runs.session import fresh
from tests.conftest import REPOSITORY, called
from utils.config import load_config

K100 = REPOSITORY / "configs/projects/CLIPFSAR/kinetics100/CLIPFSAR_K100_1shot_v1.yaml"
HERE = "import sys; sys.path[:0] = [sys.argv.pop(1)]\nfrom runs.clip_fsar import main\nstatus = main(sys.argv[1:])\n" \
       "sys.exit(99 if 'torch' in sys.modules else status)"


def test_all_that_is_missing_in_one_message(tmp_path):
    done = subprocess.run([sys.executable, "-c", HERE, REPOSITORY, "run", "--cfg", K100], cwd=tmp_path, text=True,
                          capture_output=True, env={"HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""})
    lists = "configs/projects/CLIPFSAR/kinetics100"
    assert done.returncode == 1 and done.stderr == (  # 99: torch took its seconds
        "\nConfigError: 4 problems in the configuration:\n"
        "  - NUM_GPUS: the configuration asks for 4 CUDA device(s), this machine has 0. Add NUM_GPUS 0 (CPU) to the "
        "command line\n"
        "  - DATA.DATA_ROOT_DIR: expected the directory of the videos, found none at data/kinetics100 (looked for in "
        f"the current directory, {tmp_path}). Put the videos there, or add DATA.DATA_ROOT_DIR <their directory>; then "
        f"look whether all are found: python runs/prepare.py check --cfg {K100} DATA.DATA_ROOT_DIR <their directory>\n"
        "  - DATA.ANNO_DIR: expected the split lists, found no train_few_shot.txt, val_few_shot.txt, "
        f"test_few_shot.txt in {lists}. Make them: python runs/prepare.py lists kinetics100 --out {lists}\n"
        f"  - VIDEO.HEAD.BACKBONE_WEIGHTS: the weights of RN50 are not at {tmp_path}/.cache/clip/RN50.pt. A run "
        "fetches them; to do it before: python runs/prepare.py weights RN50\n")


@pytest.mark.parametrize("name", OPENAI)
def test_weights_are_looked_for_where_a_run_looks(name, tmp_path):
    cfg = load_config(K100, ["VIDEO.HEAD.BACKBONE_NAME", name, "VIDEO.HEAD.WEIGHTS_DIR", str(tmp_path)])
    assert f"not at {OPENAI[name].path(str(tmp_path))}." in fresh._weights(cfg)[0]
    OPENAI[name].path(str(tmp_path)).touch()
    assert fresh._weights(cfg) == []


def test_another_methods_project_is_named_first(tmp_path, capsys):
    project = tmp_path / "BaseVideo.yaml"
    project.write_text("VIDEO:\n  HEAD:\n    NAME: BaseHead\n")
    assert called("run")(["--cfg", project]) == 1
    said = f"{project}: VIDEO.HEAD.NAME: {HEADS.unknown('BaseHead')}; this is another method's head, whose code is " \
           "not here"
    assert capsys.readouterr().err == f"\nConfigError: 1 problem in the configuration:\n  - {said}\n"
    assert called("run")(["--cfg", project, "--print-config"]) == 0
    assert f"note: {said}\n" in capsys.readouterr().err


def test_a_file_in_place_of_the_videos_is_said(tmp_path):
    (tmp_path / "videos.zip").touch()
    cfg = load_config(K100, ["DATA.DATA_ROOT_DIR", str(tmp_path / "videos.zip")])
    assert "found the file" in fresh.root_problem(cfg) and "unpack archives first" in fresh.root_problem(cfg)


def test_the_demo_is_rendered(tmp_path):
    missing = str(tmp_path / "none")
    cfg = load_config(REPOSITORY / "configs/projects/demo/CLIPFSAR_Demo_1shot.yaml",
                      ["DATA.DATA_ROOT_DIR", missing, "DATA.ANNO_DIR", missing])
    for problem in (*fresh._videos(cfg, tmp_path), *fresh._lists(cfg)):
        assert problem.endswith(f": python runs/prepare.py demo --out {missing}")


@pytest.mark.parametrize(("key", "value", "need"), [("DATA_LOADER.NUM_WORKERS", 2, 88), ("NUM_PROCESSES", 2, 60)])
def test_too_few_open_files_are_said_or_more_are_allowed(tmp_path, monkeypatch, key, value, need):
    cfg = load_config(K100, ["NUM_GPUS", "0", "DATA_LOADER.NUM_WORKERS", "0", key, str(value)])
    limits = [20, need - 1]
    monkeypatch.setattr(fresh.resource, "getrlimit", lambda which: tuple(limits))
    monkeypatch.setattr(fresh.resource, "setrlimit", lambda which, given: limits.__setitem__(slice(2), given))
    (said,) = fresh._open_files(cfg)
    assert said.startswith(f"{key}: ") and f"may take {need} open files, {need - 1} are allowed" in said
    limits[1] = need
    assert fresh._open_files(cfg) == [] and limits == [need, need]
    assert fresh._open_files(load_config(K100, ["NUM_GPUS", "0", "DATA_LOADER.NUM_WORKERS", "0"])) == []


def test_a_name_longer_than_a_files_is_an_unknown_head(tmp_path, capsys):
    assert called("run")(["--cfg", K100, "VIDEO.HEAD.NAME", "a" * 5000]) == 1
    assert "command line: VIDEO.HEAD.NAME: unknown head 'aaa" in capsys.readouterr().err


def test_lists_that_no_command_makes_are_not_promised(tmp_path):
    cfg = load_config(REPOSITORY / "configs/projects/real_clips/psl80/OTAM_PSL80_1shot.yaml",
                      ["DATA.ANNO_DIR", str(tmp_path)])
    assert fresh._lists(cfg)[0].endswith("Make them: python runs/prepare.py lists --help")
