"""Decoders: the right frames out of real files, and a VideoDecodeError with its reason out of everything else."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.decoding import DECODERS, FOLDER_FPS, container_problem, open_video, read_frames
from runs.preparing.examine import FileToExamine, examine
from tests.datasets.readers.decoder_files import (
    FILES,
    FRAMES,
    RATE,
    READERS,
    STEP,
    write_folder,
    write_sound,
    write_video,
)
from utils.errors import RegistryError, VideoDecodeError


def reason(path: Path, decoder: str = "decord", indices=None) -> str:
    with pytest.raises(VideoDecodeError) as caught:
        clip = open_video(path, decoder)
        read_frames(clip, np.arange(clip.num_frames) if indices is None else indices, path)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, codec in FILES.items():
        write_video(folder / name, codec)
        write_video(folder / f"noise_{name}", codec, noise=True)
    write_video(folder / "noise_fast.mp4", noise=True, movflags="faststart")
    return folder


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", FILES)
def test_frames_by_index_in_any_order_with_repeats(videos, name, decoder):
    clip = open_video(videos / name, decoder)
    assert (clip.num_frames, clip.fps) == (FRAMES, pytest.approx(RATE, rel=1e-3))
    for indices in ([0, 7, 7, 29], [21, 3, 0], list(range(FRAMES))):  # one opened clip, several requests
        found = read_frames(clip, np.array(indices), videos / name)
        assert found.shape == (len(indices), 48, 64, 3) and found.dtype == np.uint8
        assert np.abs(found.mean((1, 2, 3)) - STEP * np.array(indices)).max() < 0.75 * STEP  # lossy, never a neighbour
    clip.close()


def test_decoders_agree(videos):
    first, second = (read_frames(open_video(videos / "noise_clip.mp4", d), np.array([0, 13]), Path()).astype(int)
                     for d in ("decord", "pyav"))
    assert np.abs(first - second).mean() < 3


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", [*(f"noise_{name}" for name in FILES), "noise_fast.mp4"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files(videos, tmp_path, name, decoder, share):
    whole = (videos / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * share)])
    found = reason(path, decoder)
    assert found.startswith("truncated: the file should have ")
    assert found.endswith(f"found {int(len(whole) * share)}")
    assert container_problem(videos / name) is None


def test_mp4_without_its_index(tmp_path, videos):
    content = (videos / "clip.mp4").read_bytes()
    path = tmp_path / "x.mp4"
    path.write_bytes(content[: content.index(b"moov") - 4])
    assert reason(path) == "truncated: an MP4 file without its index (moov)"


@pytest.mark.parametrize("decoder", READERS)
def test_damaged_stream(videos, tmp_path, decoder):
    content = bytearray((videos / "noise_fast.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 4] = np.random.default_rng(1).bytes(len(content) // 4)
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    found = reason(path, decoder)
    assert found.startswith("damaged: decoding failed (pyav: ")
    assert "0x" not in found and "\n" not in found


@pytest.mark.parametrize("decoder", READERS)
def test_missing_empty_and_other_files(tmp_path, decoder):
    path = tmp_path / "x.mp4"
    assert reason(path, decoder) == "no such file"
    path.write_bytes(b"")
    assert reason(path, decoder) == "empty file (0 bytes)"
    path.write_bytes(b"<html>404</html>\n" * 40)
    assert reason(path, decoder) == "is a web page, not a video"
    path.write_bytes(b"404 not found\n" * 40)
    assert reason(path, decoder).startswith("not a video, or damaged (pyav: ")


@pytest.mark.parametrize("decoder", READERS)
def test_sound_without_pictures(tmp_path, decoder):
    assert reason(write_sound(tmp_path / "sound.avi"), decoder) == "has no video stream"


@pytest.mark.parametrize("decoder", READERS)
def test_indices_outside_the_clip(videos, decoder):
    for indices in ([0, FRAMES], [-1, 0], []):
        assert reason(videos / "clip.mp4", decoder, np.array(indices, np.int64)) == (
            f"expected indices in 0..{FRAMES - 1}, found {indices}")


@pytest.mark.parametrize("decoder", ["decord", "pyav", "frames"])
def test_a_folder_is_read_as_frames_in_the_order_of_numbers(tmp_path, decoder):
    folder = write_folder(tmp_path / "clip", [10 * i for i in range(1, 13)])  # 1.jpg ... 10.jpg, 11.jpg, 12.jpg
    (folder / "notes.txt").write_text("no frame")
    clip = open_video(folder, decoder)
    assert (clip.num_frames, clip.fps) == (12, FOLDER_FPS)
    found = read_frames(clip, np.array([0, 1, 8, 9, 11, 11]), folder)
    assert found.mean((1, 2, 3)).round(-1).tolist() == [10, 20, 90, 100, 120, 120]
    assert found.shape == (6, 48, 64, 3)
    clip.close()


def fill(folder: Path, *names: str) -> Path:
    """A folder of pictures, each of its own level: 10, 20, ... in the order given."""
    folder.mkdir()
    for i, name in enumerate(names, start=1):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (10 * i,) * 3).save(folder / name, lossless=True)
    return folder


FLOW = ("flow_x_00001.jpg", "flow_x_00002.jpg", "flow_y_00001.jpg", "flow_y_00002.jpg")


@pytest.mark.parametrize("names", [
    ("img_1.jpg", "img_2.jpg", *FLOW), ("frame000001.jpg", "frame000002.jpg", "x_0001.jpg", "y_0001.jpg"),
    ("1.png", "2.png"), ("image_00009.webp", "image_00010.webp"), ("00001.JPG", "00002.JPG", "cover.jpg", "Thumb.png"),
    ("v7_img_9.jpeg", "v7_img_10.jpeg"), ("f_1_t100.jpg", "f_2_t200.jpg"), ("part1_001.jpg", "part2_002.jpg")])
def test_a_folder_is_one_sequence_whatever_lies_beside(tmp_path, names):
    folder = fill(tmp_path / "clip", *names)
    for stray in ("._00001.jpg", ".00003.jpg", "Thumbs.db", "notes1.txt"):
        (folder / stray).write_bytes(b"\0\0")
    (folder / "3").mkdir()
    clip = open_video(folder)
    assert clip.num_frames == 2 and clip.gaps == ""
    assert read_frames(clip, np.array([0, 1]), folder).mean((1, 2, 3)).round(-1).tolist() == [10, 20]


@pytest.mark.parametrize(("names", "found"), [
    (FLOW, "flow_x_#.jpg (2, as flow_x_00001.jpg) and flow_y_#.jpg (2, as flow_y_00001.jpg); leave one of them there"),
    (("img_1.jpg", "img_2.jpg", "mask_1.png"), "img_#.jpg (2, as img_1.jpg) and mask_#.png (1, as mask_1.png); leave"),
    (("1.jpg", "1.png"), "#.jpg (1, as 1.jpg) and #.png (1, as 1.png)"),
    (("cam1_1.jpg", "cam1_2.jpg", "cam2_1.jpg", "cam2_2.jpg"),
     "names that no one number puts in order: cam1_1.jpg and cam2_1.jpg"),
    (("01.jpg", "1.jpg"), "names that no one number puts in order: 01.jpg and 1.jpg"),
    (("1_2.jpg", "2_1.jpg"), "names that no one number puts in order: 1_2.jpg and 2_1.jpg"),
    (("a.jpg", "b.jpg"), "a.jpg (1, as a.jpg) and b.jpg (1, as b.jpg)")])
def test_a_folder_of_two_sequences_is_refused_by_their_names(tmp_path, names, found):
    assert reason(fill(tmp_path / "clip", *names)).startswith(f"expected one sequence of frames, found {found}")


def test_gaps_are_said(tmp_path):
    clip = open_video(fill(tmp_path / "clip", "1.jpg", "2.jpg", "5.jpg", "6.jpg", "8.jpg"))
    assert clip.num_frames == 5 and clip.gaps == "2 gaps in the numbers, the first behind 2.jpg"
    assert open_video(fill(tmp_path / "even", "0.jpg", "30.jpg", "60.jpg")).gaps == ""
    facts = examine(FileToExamine(str(tmp_path / "clip"), "auto"))
    assert facts.readable and facts.reason == clip.gaps


def test_a_frame_of_16_bits_is_refused(tmp_path):
    (tmp_path / "clip").mkdir()
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(tmp_path / "clip/1.png")
    assert "frame 1.png: expected 8 bits a channel, found mode I;16" in reason(tmp_path / "clip")


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_animation_is_no_frame(tmp_path, suffix):
    fill(tmp_path / "clip", f"1.{suffix}")
    Image.new("RGB", (8, 6)).save(tmp_path / f"clip/1.{suffix}", save_all=True,
                                  append_images=[Image.new("RGB", (8, 6), "red")])
    assert reason(tmp_path / "clip") == f"frame 1.{suffix}: expected one picture, found an animation"


def test_what_may_never_end_is_no_frame(tmp_path):
    fill(tmp_path / "clip")
    os.mkfifo(tmp_path / "clip/1.jpg")
    assert reason(tmp_path / "clip") == "frame 1.jpg is no file"
    (tmp_path / "clip/1.jpg").unlink()
    (tmp_path / "clip/1.jpg").symlink_to("/dev/zero")
    assert reason(tmp_path / "clip") == "frame 1.jpg is no file"


def test_gray_jpegs_have_three_channels(tmp_path):
    (tmp_path / "clip").mkdir()
    Image.new("L", (8, 6), 77).save(tmp_path / "clip" / "img_00001.jpeg")
    assert read_frames(open_video(tmp_path / "clip"), np.array([0]), tmp_path).shape == (1, 6, 8, 3)


def test_folders_that_are_no_clip(tmp_path):
    (tmp_path / "none").mkdir()
    assert reason(tmp_path / "none") == "has no frames (JPEG, PNG or WebP)"
    mixed = write_folder(tmp_path / "mixed", [1, 2])
    Image.new("RGB", (10, 10)).save(mixed / "2.jpg")
    assert reason(mixed) == "expected frames of one size, found [(10, 10), (48, 64)]"
    broken = write_folder(tmp_path / "broken", [1, 2])
    (broken / "1.jpg").write_bytes((broken / "1.jpg").read_bytes()[:300])
    assert reason(broken).startswith("frame 1.jpg is no whole picture (")
    (broken / "1.jpg").write_bytes(b"")
    assert reason(broken).startswith("frame 1.jpg is no whole picture (")


def test_frames_decoder_wants_a_folder(videos):
    assert reason(videos / "clip.mp4", "frames") == "expected a folder of frames, found a file"


def test_decoders_have_their_names(videos):
    assert list(DECODERS) == ["decord", "frames", "pyav", "torchcodec"]
    with pytest.raises(RegistryError, match="unknown decoder 'decrod', did you mean 'decord'"):
        open_video(videos / "clip.mp4", "decrod")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
@pytest.mark.parametrize("decoder", READERS)
def test_no_file_stays_open(videos, tmp_path, decoder):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    reason(bad, decoder)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        clip = open_video(videos / "clip.mp4", decoder)
        read_frames(clip, np.array([3]), Path())
        clip.close()
        reason(bad, decoder)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_wrong_frames_of_a_decoder_are_refused():
    class Wrong:
        num_frames, fps = 9, 10.0

        def frames(self, indices):
            return np.zeros((1, 4, 4, 3), np.uint8)

    with pytest.raises(VideoDecodeError) as caught:
        read_frames(Wrong(), np.array([0, 1]), Path("x.mp4"))
    assert str(caught.value) == "x.mp4: expected uint8 frames of shape [2, H, W, 3], found uint8 [1, 4, 4, 3]"
