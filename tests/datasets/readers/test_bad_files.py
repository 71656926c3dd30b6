"""Bad files, for every decoder: a VideoDecodeError or a usable clip; never a crash, a hang or a silent black frame.

Files are read in processes with a time limit, so that a decoder that crashes or hangs fails its test alone.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.decoding import open_video, read_frames
from datasets.frame_sampling import FrameSampling, sample_frames
from runs.preparing.pool import Failure, guarded
from tests.datasets.readers.decoder_files import FRAMES, READERS, bright_noise, write_pictures, write_sound
from utils.errors import VideoDecodeError

CODECS = {"noise.mp4": "libx264", "noise.avi": "mpeg4", "noise.webm": "libvpx-vp9"}
T = 8


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for name, codec in CODECS.items():
        write_pictures(folder / name, bright_noise, codec, b=2000000)
    return folder


def watch(job: tuple[str, str]) -> tuple[str, int, float, float] | str:
    """(text of the sampling's indices, frames, least mean, least spread of all frames), or the error's reason."""
    path, decoder = Path(job[0]), job[1]
    try:
        clip = open_video(path, decoder)
        indices = sample_frames(clip.num_frames, clip.fps, FrameSampling(T, 50, 12, "center", "keep"), training=False,
                                generator=np.random.default_rng(0))
        read_frames(clip, indices, path)
        pictures = read_frames(clip, np.arange(clip.num_frames), path)
        clip.close()
    except VideoDecodeError as error:
        return error.reason
    return (" ".join(map(str, indices)), len(pictures), float(pictures.mean((1, 2, 3)).min()),
            float(pictures.std((1, 2, 3)).min()))


def outcome(path: Path, decoder: str) -> tuple[str, int, float, float] | str:
    ((_, found),) = guarded(watch, [(str(path), decoder)], workers=1, limit=60)
    assert not isinstance(found, Failure), found.reason
    return found


def zero_bytes(whole: bytes) -> bytes:
    return b""


def text(whole: bytes) -> bytes:
    return b"<html>404 not found</html>\n" * 40


def first_half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


REFUSED = {"zero_bytes": (zero_bytes, "empty file (0 bytes)"), "text": (text, "is a web page, not a video"),
           "first_half": (first_half, "truncated: the file should have ")}


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("damage", REFUSED)
def test_refused_with_the_reason(videos, tmp_path, name, decoder, damage):
    change, expected = REFUSED[damage]
    path = tmp_path / name
    path.write_bytes(change((videos / name).read_bytes()))
    found = outcome(path, decoder)
    assert isinstance(found, str) and found.startswith(expected)


@pytest.mark.parametrize("decoder", READERS)
def test_an_mp4_without_its_index(videos, tmp_path, decoder):
    whole = (videos / "noise.mp4").read_bytes()
    path = tmp_path / "x.mp4"
    path.write_bytes(whole[: whole.index(b"moov") - 4])
    assert outcome(path, decoder) == "truncated: an MP4 file without its index (moov)"


def _holed(whole: bytes) -> bytes:
    middle, length = len(whole) // 2, len(whole) // 5
    return whole[:middle] + bytes(length) + whole[middle + length :]


def _flipped(whole: bytes, seed: int) -> bytes:
    changed, rng = bytearray(whole), np.random.default_rng(seed)
    for place in rng.integers(len(whole) // 8, len(whole) * 7 // 8, 100):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def assert_usable_or_named(found, decoder: str) -> None:
    """An error that says "damaged", or a clip without a black or blank frame (the source has no pixel below 60)."""
    if isinstance(found, str):
        assert "damaged" in found and "\n" not in found and "0x" not in found
    else:
        assert 1 <= found[1] <= FRAMES and found[2] > 60 and found[3] > 10


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", CODECS)
def test_a_hole_of_zeros(videos, tmp_path, name, decoder):
    path = tmp_path / name
    path.write_bytes(_holed((videos / name).read_bytes()))
    found = outcome(path, decoder)
    assert_usable_or_named(found, decoder)
    assert isinstance(found, str) or found[1] < FRAMES  # what is lost is not made up


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits(videos, tmp_path, name, decoder, seed):
    path = tmp_path / name
    path.write_bytes(_flipped((videos / name).read_bytes(), seed))
    assert_usable_or_named(outcome(path, decoder), decoder)


@pytest.mark.parametrize("decoder", READERS)
def test_sound_alone(tmp_path, decoder):
    assert outcome(write_sound(tmp_path / "sound.mkv"), decoder) == "has no video stream"


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize(("kind", "name"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_picture_by_the_name_of_a_video(tmp_path, decoder, kind, name):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "x.mp4", kind)
    assert outcome(tmp_path / "x.mp4", decoder) == f"is a picture ({name}), not a video"


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(("frames", "indices"), [(1, "0 0 0 0 0 0 0 0"), (5, "0 0 1 2 2 3 4 4")])
def test_fewer_frames_than_are_taken_repeat(tmp_path, name, decoder, frames, indices):
    path = write_pictures(tmp_path / name, bright_noise, CODECS[name], frames=frames, b=2000000)
    found = outcome(path, decoder)
    assert found[:2] == (indices, frames) and found[2] > 60


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize(("name", "other"), [("noise.webm", "x.mp4"), ("noise.mp4", "x.avi"), ("noise.avi", "x.webm")])
def test_a_wrong_extension_is_no_matter(videos, tmp_path, decoder, name, other):
    shutil.copy(videos / name, tmp_path / other)
    found = outcome(tmp_path / other, decoder)
    assert found == outcome(videos / name, decoder) and found[1] == FRAMES


@pytest.mark.parametrize("decoder", READERS)
def test_a_directory_and_a_dangling_link(tmp_path, decoder):
    (tmp_path / "x.mp4").mkdir()
    assert outcome(tmp_path / "x.mp4", decoder) == "has no frames (JPEG, PNG or WebP)"
    (tmp_path / "y.mp4").symlink_to(tmp_path / "nothing.mp4")
    assert outcome(tmp_path / "y.mp4", decoder) == "no such file"


def watch_as_nobody(job: tuple[str, str]) -> tuple[str, int, float, float] | str:
    """watch, without root's right to read everything."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    return watch(job)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops root's rights in a forked process")
@pytest.mark.parametrize("decoder", READERS)
def test_no_permission(videos, decoder):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path itself is closed to others
        os.chmod(folder, 0o755)
        path = Path(shutil.copy(videos / "noise.mp4", folder))
        path.chmod(0)
        ((_, found),) = guarded(watch_as_nobody, [(str(path), decoder)], workers=1, limit=60)
        assert found == "cannot be read: Permission denied"
        path.chmod(0o644)
        ((_, found),) = guarded(watch_as_nobody, [(str(path), decoder)], workers=1, limit=60)
        assert found[1] == FRAMES  # it was the permission
