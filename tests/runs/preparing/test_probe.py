"""prepare.py probe: what the decoder sees, and the frames that each sampling takes."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.frame_sampling import FrameSampling, sample_frames
from runs.preparing.probe import samplings
from tests.conftest import called
from tests.datasets.readers.decoder_files import bright_noise, ramp, write_folder, write_pictures

main = called("prepare")

FIXED = {"T": 8, "sampling_rate": 8.0, "target_fps": 12.0, "seed": 3}


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("probe") / "clip.mp4", ramp, "libx264", bf=2)


def probe(capsys, *arguments) -> tuple[int, str, str]:
    status = main(["probe", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_words_and_the_sheet(video, tmp_path, capsys):
    status, text, _ = probe(capsys, video, "--out", tmp_path / "sheet.png", "--decoder", "decord")
    assert status == 0
    assert "decord: 30 frames of 64x48, 15 frames a second, 2.00 s" in text
    assert re.search(r"container: mov,\S+ h264 64x48, 30 frames, 2.00 s, streams: video", text)
    assert "  segment center                  1 5 9 13 16 20 24 28\n" in text and "problem" not in text
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        levels = np.asarray(sheet.convert("RGB"))
    assert min(levels.shape[:2]) > 300
    assert len(np.unique(levels[..., 1])) > 20  # pictures of many levels, not an empty page


def test_rows_are_those_of_a_run(video):
    rows = samplings(100, 25.0, **FIXED)
    assert list(rows) == ["segment center", "segment random, seed 3", "interval drop, test",
                          "interval drop, train, seed 3", "interval keep, test", "interval keep, train, seed 3"]
    def run(*settings):
        return sample_frames(100, 25.0, FrameSampling(*settings), training=False, generator=np.random.default_rng(0))

    expected = run(8, 50, 12.0, "center", "keep")
    assert rows["segment center"].tolist() == expected.tolist()
    for tail in ("drop", "keep"):
        expected = run(8, 8, 12.0, "random", tail)
        assert rows[f"interval {tail}, test"].tolist() == expected.tolist()
    assert rows["interval drop, test"].tolist() != rows["interval keep, test"].tolist()
    other = samplings(100, 25.0, **{**FIXED, "seed": 4})
    assert other["segment random, seed 4"].tolist() != rows["segment random, seed 3"].tolist()
    assert samplings(100, 25.0, **FIXED)["segment random, seed 3"].tolist() == rows["segment random, seed 3"].tolist()
    assert list(samplings(100, float("nan"), **FIXED)) == ["segment center", "segment random, seed 3"]


def test_the_project_decides_and_options_win(video, tiny_project, tmp_path, capsys):
    project, out = tiny_project(extra=""), tmp_path / "a" / "sheet.png"
    _, text, _ = probe(capsys, video, "--cfg", project, "--out", out)
    assert "frames taken (T = 4, intervals at rate 8 of 12 frames" in text and out.is_file()
    project.write_text(project.read_text().replace("NUM_INPUT_FRAMES: 4", "NUM_INPUT_FRAMES: 4, SAMPLING_RATE: 3, "
                                                   "TARGET_FPS: 10, DECODER: pyav"))
    _, text, _ = probe(capsys, video, "--cfg", project, "--out", out)
    assert "frames taken (T = 4, intervals at rate 3 of 10 frames" in text and "\npyav: 30 frames" in text
    _, text, _ = probe(capsys, video, "--cfg", project, "--out", out, "--frames", 1, "--rate", 2, "--decoder", "decord")
    assert "frames taken (T = 1, intervals at rate 2 of 10 frames" in text and "\ndecord: 30 frames" in text


@pytest.mark.slow
def test_folders_short_clips_and_damage(tmp_path, capsys):
    folder = write_folder(tmp_path / "clip", [10, 90, 200])
    status, text, _ = probe(capsys, folder, "--out", tmp_path / "x.png")
    assert status == 0 and "3 frames of 64x48, 12 frames a second" in text and "container" not in text
    path = write_pictures(tmp_path / "holed.avi", bright_noise, "mpeg4", b=2000000)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 : len(whole) * 7 // 10] = bytes(len(whole) * 7 // 10 - len(whole) // 2)
    path.write_bytes(whole)
    _, text, _ = probe(capsys, path, "--out", tmp_path / "y.png")
    assert re.search(r"problem: the container counts 30 frames, \d+ are there: a part is damaged", text)


@pytest.mark.parametrize("name", ["-dash.mp4", "-1x.mp4", "12:30.mp4"])
def test_names_that_look_like_an_option_or_an_address(video, tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    status, text, _ = probe(capsys, name, "--out", "x.png")
    assert status == 0 and f"{name}\n" in text and "30 frames of 64x48" in text


def test_refusals(video, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    assert probe(capsys, tmp_path / "empty.mp4")[::2] == (
        1, f"\nVideoDecodeError: {tmp_path}/empty.mp4: empty file (0 bytes)\n")
    for option, value, found in (("--frames", 0, "0 and 8"), ("--frames", 300, "300 and 8"), ("--rate", 0, "8 and 0")):
        assert probe(capsys, video, option, value)[2] == (
            f"\nLaunchError: expected --frames from 1 to 64 and --rate above 0, found {found}\n")
    status, _, error = probe(capsys, video, "--out", tmp_path / "x.jpg")
    assert status == 1 and f"--out: expected a name that ends in .png, found {tmp_path}/x.jpg" in error
    assert "unknown decoder 'x'" in probe(capsys, video, "--decoder", "x")[2]
