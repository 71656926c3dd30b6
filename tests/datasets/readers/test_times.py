"""When frames are shown: by the stamps in the file, in every decoder, and rates by them where a header has none."""

from fractions import Fraction

import av
import numpy as np
import pytest

from datasets.decoding import FOLDER_FPS, open_video, read_frames
from tests.datasets.readers.decoder_files import FRAMES, RATE, READERS, ramp, write_folder, write_pictures
from utils.errors import VideoDecodeError

STEPS = 3000 * np.random.default_rng(0).integers(1, 5, FRAMES - 1)
VARIABLE = np.concatenate([[0], np.cumsum(STEPS)])
EVEN = np.arange(FRAMES) / RATE
KINDS = {  # settings, and the seconds that frames are shown at
    "variable.mp4": ({"codec": "libx264", "bf": 2, "times": VARIABLE}, VARIABLE / 90000),
    "late.mp4": ({"codec": "libx264", "bf": 2, "times": VARIABLE + 90000}, VARIABLE / 90000 + 1),
    "variable.webm": ({"codec": "libvpx-vp9", "times": VARIABLE}, VARIABLE / 90000),
    "variable.mkv": ({"codec": "libx264", "bf": 3, "times": VARIABLE}, VARIABLE / 90000),
    "hidden.webm": ({"codec": "libvpx", "auto-alt-ref": 1, "lag-in-frames": 16}, EVEN),
    "even.avi": ({"codec": "mpeg4"}, EVEN),
    "stream.ts": ({"codec": "libx264", "bf": 2}, EVEN),
    "one.mp4": ({"codec": "libx264", "frames": 1}, EVEN[:1]),
}


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("name", KINDS)
def test_frames_are_shown_when_their_stamps_say(tmp_path, name, decoder):
    settings, expected = KINDS[name]
    clip = open_video(write_pictures(tmp_path / name, ramp, **settings), decoder)
    found = clip.times(range(clip.num_frames))
    np.testing.assert_allclose(found, expected, atol=0.0011)  # Matroska rounds to milliseconds
    assert clip.times([0, clip.num_frames - 1, 0]).tolist() == found[[0, -1, 0]].tolist()
    clip.close()


def test_a_folder_of_frames_has_a_nominal_rate(tmp_path):
    clip = open_video(write_folder(tmp_path / "frames", [10, 20, 30]))
    np.testing.assert_allclose(clip.times([2, 0]), [2 / FOLDER_FPS, 0])


def write_without_duration(path, codec: str) -> list[int]:
    """A WebM as browsers record it: written as it comes, so without a duration; stamps (ms) not quite even."""
    stamps = [int(50 * i + 7 * (i % 3)) for i in range(FRAMES)]
    with open(path, "wb") as file, av.open(_Pipe(file), "w", format="webm") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.height, stream.width, stream.pix_fmt, stream.thread_count = 48, 64, "yuv420p", 1
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(ramp(i), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return stamps


class _Pipe:
    """A file that cannot be sought in."""

    def __init__(self, file):
        self.write = file.write


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("decoder", READERS)
def test_webm_without_duration_is_read_at_the_rate_of_its_stamps(tmp_path, codec, decoder):
    path = tmp_path / "recorded.webm"
    stamps = write_without_duration(path, codec)
    with av.open(str(path)) as container:
        assert container.duration is None and container.streams.video[0].duration is None
    clip = open_video(path, decoder)
    assert clip.num_frames == FRAMES
    assert clip.fps == pytest.approx(20, rel=0.01)
    np.testing.assert_allclose(clip.times(range(FRAMES)), np.array(stamps) / 1000, atol=1e-6)
    pictures = read_frames(clip, np.arange(FRAMES), path).astype(int)
    assert np.abs(pictures - np.stack([ramp(i) for i in range(FRAMES)])).mean() < 12
    clip.close()


def test_a_damaged_file_is_named(tmp_path):
    clip = open_video(path := write_pictures(tmp_path / "a.mp4", ramp, "libx264"), "pyav")
    path.write_bytes(b"no video")
    with pytest.raises(VideoDecodeError, match="a.mp4: not a video"):
        clip.times([0])
