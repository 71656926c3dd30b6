"""DATA.DECODER auto, and torchcodec where it is installed: with the system's FFmpeg, else with the one inside PyAV."""

import os
import re
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import pytest

from datasets.builder import build_split
from datasets.decoding import choose_decoder, open_video
from datasets.readers import fast as fast_readers
from tests.conftest import REPOSITORY
from utils.config import load_config
from utils.errors import LaunchError, RegistryError

FFMPEG = "avcodec", "avdevice", "avfilter", "avformat", "avutil", "swresample", "swscale"


def test_auto_is_pyav_and_what_does_not_work_is_told(monkeypatch):
    monkeypatch.setattr(fast_readers, "torchcodec_problem", lambda: "no such thing here")
    assert choose_decoder("auto") == "pyav"
    with pytest.raises(LaunchError, match="^DATA.DECODER torchcodec: no such thing here; or set DATA.DECODER auto$"):
        choose_decoder("torchcodec")
    with pytest.raises(RegistryError, match="unknown decoder 'autp'.*known: auto, decord, frames, pyav, torchcodec"):
        choose_decoder("autp")


@pytest.mark.parametrize("asked, expected", [("auto", "pyav"), ("decord", "decord")])
def test_the_decoder_that_auto_picks_is_the_one_of_the_pixels(tiny_project, asked, expected):
    split = build_split(load_config(tiny_project(), ["DATA.DECODER", asked]), "test")
    assert split.pixels["decoder"] == split.dataset.videos.decoder == expected


def test_without_torchcodec_the_error_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"anything but a video")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setattr(fast_readers, "torchcodec_problem", fast_readers.torchcodec_problem.__wrapped__)
    with pytest.raises(LaunchError) as caught:
        open_video(tmp_path / "x.mp4", "torchcodec")
    assert str(caught.value) == ("DATA.DECODER torchcodec: the torchcodec package is not installed; or set "
                                 "DATA.DECODER auto")


def test_without_ffmpeg_the_error_names_it(monkeypatch):
    class Module:
        ffmpeg_major_version = None

        class decoders:
            VideoDecoder = None

    monkeypatch.setitem(sys.modules, "torchcodec", Module)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", Module.decoders)
    assert "cannot load FFmpeg's shared libraries" in fast_readers.torchcodec_problem.__wrapped__()
    Module.ffmpeg_major_version = 7
    assert fast_readers.torchcodec_problem.__wrapped__() is None


def pyav_libraries(folder: Path) -> Path | None:
    """Link the FFmpeg inside PyAV's wheel into `folder` under the names that torchcodec looks for.

    Returns the directory of what they need in turn; None where that cannot be done.
    """
    for library in FFMPEG:
        files = [metadata.distribution("av").locate_file(path) for path in metadata.files("av") or []
                 if re.match(rf"lib{library}-\w+\.so\.\d+", path.name)]
        if len(files) != 1:
            return None
        number = re.search(r"\.so\.(\d+)", files[0].name)[1]
        (folder / f"lib{library}.so.{number}").symlink_to(files[0])
    return Path(files[0]).parent


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("torchcodec") is None, reason="torchcodec is not installed")
@pytest.mark.skipif(fast_readers.torchcodec_problem() is None, reason="the decoders' tests use torchcodec already")
def test_the_decoders_tests_pass_with_torchcodec_on_pyavs_ffmpeg(tmp_path):
    inside = pyav_libraries(tmp_path)
    if inside is None:
        pytest.skip("no FFmpeg that torchcodec can load, and the installed PyAV is no Linux wheel with its own")
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{tmp_path}:{inside}"}
    question = "from datasets.readers.fast import torchcodec_problem; print(torchcodec_problem())"
    probe = subprocess.run([sys.executable, "-c", question],
                           cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if probe.stdout.strip() != "None":
        pytest.skip(f"torchcodec does not load with PyAV's FFmpeg: {probe.stdout}")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-k", "torchcodec", "-p", "no:cacheprovider",
                           *(f"tests/datasets/{name}.py" for name in
                             ("test_decoding", "readers/test_same_frames", "readers/test_bad_files"))],
                          cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 60
