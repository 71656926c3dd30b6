"""Files that are whole and look damaged, or lie by the name of a video and are none."""

import numpy as np
import pytest
from PIL import Image

from datasets.decoding import open_video, read_frames
from runs.preparing.examine import FileToExamine, examine
from tests.datasets.readers.decoder_files import FRAMES, RATE, READERS, ffmpeg, needs_ffmpeg, write_video
from utils.errors import VideoDecodeError


def _joined(path, orientation: int):
    """JPEGs with EXIF, as a camera or a phone makes them, one after the other in a video."""
    for i in range(8):
        exif, picture = Image.Exif(), np.zeros((48, 64, 3), np.uint8)
        exif[0x10F], exif[0x112], picture[:24] = "Maker", orientation, 25 * i + 30
        Image.fromarray(picture).save(path.with_name(f"{i}.jpg"), exif=exif)
    ffmpeg("-framerate", RATE, "-i", path.with_name("%d.jpg"), "-c", "copy", path)
    return path


@needs_ffmpeg
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
def test_pictures_with_exif_are_no_damage(tmp_path, suffix, orientation):
    """Every reader gives the same frames; whether EXIF turns them is up to the version of FFmpeg."""
    path, found = _joined(tmp_path / f"x.{suffix}", orientation), []
    for decoder in READERS:
        clip = open_video(path, decoder)
        found.append(read_frames(clip, np.arange(clip.num_frames), path))
        assert clip.num_frames == 8
        clip.close()
    assert all(np.array_equal(one, found[0]) for one in found)
    assert examine(FileToExamine(str(path), "pyav", every_frame=True)).reason == ""


@needs_ffmpeg
def test_places_without_a_frame_in_avi_are_no_damage(tmp_path):
    """Packets with B-frames that are copied into AVI take every second place."""
    ffmpeg("-i", write_video(tmp_path / "a.mp4", bf="2"), "-c", "copy", tmp_path / "a.avi")
    facts = examine(FileToExamine(str(tmp_path / "a.avi"), "pyav", every_frame=True))
    assert (facts.frames, facts.reason, facts.fps) == (FRAMES, "", pytest.approx(RATE))


@pytest.mark.parametrize(("content", "said"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer in place of the file"),
    (b"<!DOCTYPE html><html></html>", "is a web page, not a video"), (b"", "empty")])
def test_what_lies_in_the_place_of_a_video_is_named(tmp_path, content, said):
    (tmp_path / "x.mp4").write_bytes(content)
    for decoder in READERS:
        with pytest.raises(VideoDecodeError, match=said):
            open_video(tmp_path / "x.mp4", decoder)
