"""The command: exit status, JSON, CSV, the page, and what it says when something is wrong."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.runs.own.colours import pictures, write_support, write_video


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    write_support(root / "mine", clips=3)
    write_video(root / "ask" / "<b>x.mp4", pictures("red", 20, 8))
    write_video(root / "ask" / "deep" / "=1+1.mp4", pictures("blue", 12, 9))
    return root


@pytest.fixture()
def own(rendered, tmp_path):
    return shutil.copytree(rendered, tmp_path / "own")


def test_answers_in_every_form(own, tiny_checkpoint, predict, capsys):
    shutil.move(own / "mine" / "red", own / "mine" / "<script>alert(1)<")
    options = ["--support", own / "mine", "--checkpoint", tiny_checkpoint, "--query", own / "ask", "--out", own / "out"]
    assert predict(options) == 0
    said = capsys.readouterr().out
    assert "3 actions, 9 clips from" in said and "Leave one out:" in said and "guessing gets 33 %" in said
    content = json.loads((own / "out" / "predictions.json").read_text())
    assert content["format"] == 1 and content["model"]["trained_for_few_shots"]
    assert [query["file"] for query in content["queries"]] == ["<b>x.mp4", "deep/=1+1.mp4"]
    for query in content["queries"]:
        assert set(query["distances"]) == {"<script>alert(1)<", "green", "blue"} and len(query["frames_s"]) == 4
    rows = list(csv.DictReader(io.StringIO((own / "out" / "predictions.csv").read_text())))
    assert len(rows) == 2 and float(rows[0]["distance green"]) == content["queries"][0]["distances"]["green"]
    page = (own / "out" / "index.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;" in page and "<b>x" not in page
    assert predict([*options[:6], "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == content["queries"]
    assert predict([*options[:6], "--format", "csv"]) == 0
    assert capsys.readouterr().out == (own / "out" / "predictions.csv").read_text()


def test_a_pack_answers_as_the_folder_does(own, tiny_checkpoint, predict, capsys):
    model = ["--checkpoint", tiny_checkpoint, "--format", "json"]
    assert predict(["--support", own / "mine", *model, "--query", own / "ask", "--save", own / "my.pack"]) == 0
    of_folder = json.loads(capsys.readouterr().out)
    assert predict(["--pack", own / "my.pack", *model, "--query", own / "ask"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == of_folder["queries"]
    assert predict(["--pack", own / "my.pack"]) == 1
    assert "with a file that it does not hold; give that file: --checkpoint tiny.pyth" in capsys.readouterr().err


def test_what_cannot_be_read_has_its_row_and_its_status(own, tiny_checkpoint, predict, capsys):
    (own / "ask" / "cut.mp4").write_bytes((own / "ask" / "<b>x.mp4").read_bytes()[:700])
    options = ["--support", own / "mine", "--checkpoint", tiny_checkpoint]
    assert predict([*options, "--query", own / "ask"]) == 3
    assert "cannot be read:" in capsys.readouterr().out
    assert predict([*options, "--query", own / "ask" / "cut.mp4"]) == 1
    assert "none of the 1 videos can be read; the first: cut.mp4" in capsys.readouterr().err


def test_text_can_be_off(own, tiny_checkpoint, predict, capsys):
    options = ["--support", own / "mine", "--checkpoint", tiny_checkpoint, "--query", own / "ask", "--format", "json"]
    assert predict([*options, "--scoring", "fused"]) == 0
    fused = json.loads(capsys.readouterr().out)
    assert fused["model"]["scoring"] == "fused"
    assert predict([*options, "--text", "off"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["queries"][0]["distances"] != fused["queries"][0]["distances"]
    assert predict([*options, "--text", "off", "--scoring", "text"]) == 1
    assert "--scoring text: it reads the names of actions, and --text is off" in capsys.readouterr().err


@pytest.mark.parametrize("options, words", [
    ([], "expected --support DIR or --pack FILE"), (["--support", "x", "--pack", "y"], "found both"),
    (["--support", "x", "--jobs", "0"], "--jobs: expected at least 1, found 0")])
def test_wrong_usage(predict, capsys, options, words):
    with pytest.raises(SystemExit) as stop:
        predict(options)
    assert stop.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("options, words", [
    (["--checkpoint", "{tiny}", "--weights", "RN50"], "expected --checkpoint or --weights, found both"),
    (["--weights", "RN5"], "--weights: expected MobileNetV2, RN101"),
    (["--cfg", "x.yaml"], "--cfg: is for a checkpoint"),
    (["--checkpoint", "{tiny}", "--scoring", "x"], "--scoring: expected one of prototypes, fused, text, found 'x'"),
    (["--checkpoint", "{tiny}", "--device", "tpu"], "--device: expected auto, cpu or cuda, found 'tpu'"),
    (["--checkpoint", "{tiny}", "--query", "DATA.TEST_SCALE", "80"], "settings (KEY VALUE) go before the options"),
    (["--checkpoint", "{tiny}", "--timeline", "auto", "--keep", "2"], "--keep: expected a share"),
    (["--checkpoint", "{bare}"], "holds no settings; give the YAML it was trained with: --cfg ...")])
def test_what_is_wrong_is_told(own, tiny_checkpoint, predict, capsys, options, words):
    bare = own / "bare.pyth"
    state = torch.load(tiny_checkpoint, weights_only=True)
    torch.save({name: value for name, value in state.items() if name != "cfg"}, bare)
    given = [option.format(tiny=tiny_checkpoint, bare=bare) for option in options]
    assert predict(["--support", own / "mine", *given]) == 1
    assert words in capsys.readouterr().err


def test_a_wrong_folder_is_told_before_a_model_is_fetched(tmp_path, predict, capsys, monkeypatch):
    monkeypatch.setattr("utils.download.fetch", lambda *_: pytest.fail("fetched"))
    assert predict(["--support", tmp_path / "absent"]) == 1
    assert "absent: expected a folder with folders of clips" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        predict(["--support", tmp_path, "--out", tmp_path / "file"])
    assert "--out: expected a folder, found the file" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_no_cuda_here(own, tiny_checkpoint, predict, capsys):
    assert predict(["--support", own / "mine", "--checkpoint", tiny_checkpoint, "--device", "cuda"]) == 1
    assert "--device cuda: this machine has no CUDA device; expected auto or cpu" in capsys.readouterr().err


def test_missing_weights_name_the_command_and_nothing_takes_their_place(own, predict, capsys, monkeypatch):
    monkeypatch.setattr("utils.download.fetch", lambda address, *_: (_ for _ in ()).throw(
        __import__("utils.errors", fromlist=["DownloadError"]).DownloadError(f"{address}: no network")))
    assert predict(["VIDEO.HEAD.WEIGHTS_DIR", own / "nowhere", "--support", own / "mine"]) == 1
    said = capsys.readouterr().err
    assert "ViT-B-16.pt: no network" in said and "--weights FILE of predict.py" in said


def test_the_python_door_loads_little_beside_torch():
    code = ("import runs.recognizer, sys; print([name for name in ('open_clip', 'timm', 'scipy.stats', 'pandas', "
            "'matplotlib', 'tensorboard', 'huggingface_hub', 'torchvision.models') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_help_and_usage_load_no_torch():
    code = ("import sys; sys.argv = ['predict.py', *sys.argv[1:]]\nsys.path.insert(0, 'runs')\nimport atexit\n"
            "atexit.register(lambda: print('torch' in sys.modules))\nfrom clip_fsar import start\nstart('predict')")
    for arguments, status in ((["--help"], 0), ([], 2), (["--support", "x", "--nonsense"], 2)):
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == status and done.stdout.endswith("False\n"), done.stderr


def test_one_clip_an_action_is_measured_by_validation_clips(tmp_path, own, tiny_checkpoint, predict, capsys):
    for clip in [*(own / "mine").glob("*/1.mp4"), *(own / "mine").glob("*/2.mp4")]:
        clip.unlink()
    checkpoint = shutil.copy(tiny_checkpoint, tmp_path / "tiny.pyth")
    options = ["--support", own / "mine", "--checkpoint", checkpoint, "--query", own / "ask", "--format", "json"]
    assert predict(options) == 0
    before = json.loads(capsys.readouterr().out)["calibration"]
    assert before["kind"] == "none" and before["threshold"] is None
    assert predict(["--checkpoint", checkpoint, "--reference"]) == 0
    assert capsys.readouterr().out == f"written to {tmp_path}/reference.json\n"
    assert predict(options) == 0
    calibration = json.loads(capsys.readouterr().out)["calibration"]
    assert calibration["kind"] == "checkpoint" and calibration["threshold"] == json.loads(
        (tmp_path / "reference.json").read_text())["prototypes"]["1"]
    assert predict(["--weights", "resnet18", "--reference", "VIDEO.HEAD.BACKBONE_WEIGHTS", "random"]) == 1
    assert "--reference: expected a checkpoint" in capsys.readouterr().err
