"""One pass over a video: the frames that a player shows at wanted times, whatever the container, in little memory."""

import gc
from itertools import count

import av
import numpy as np
import psutil
import pytest

from datasets.decoding import open_video
from datasets.streaming import stream_frames
from tests.datasets.readers.decoder_files import FRAMES, STEP, ramp, write_folder, write_pictures, write_video
from utils.errors import VideoDecodeError

TIMES = np.concatenate([[0], np.cumsum(3000 * np.random.default_rng(0).integers(1, 5, FRAMES - 1))])
KINDS = {
    "variable.mp4": {"codec": "libx264", "bf": 2, "times": TIMES}, "even.avi": {"codec": "mpeg4"},
    "late.mkv": {"codec": "libx264", "times": TIMES + 90000}, "stream.ts": {"codec": "libx264", "bf": 2},
    "hidden.webm": {"codec": "libvpx", "auto-alt-ref": 1, "lag-in-frames": 16},
}


@pytest.mark.parametrize("name", KINDS)
def test_it_gives_the_frames_that_are_shown_at_the_wanted_times(tmp_path, name):
    """Against frames by index: the last one whose stamp is at or before the time; before the first one, the first."""
    clip = open_video(path := write_pictures(tmp_path / name, ramp, **KINDS[name]), "pyav")
    stamps = clip.times(range(clip.num_frames))
    wanted = [0.0, 0.0, *np.arange(0.01, stamps[-1], 0.11), stamps[7], stamps[-1]]
    wanted.sort()
    found = list(stream_frames(path, wanted))
    expected = np.maximum(0, np.searchsorted(stamps, np.array(wanted) + 1e-9, side="right") - 1)
    np.testing.assert_allclose([second for second, _ in found], stamps[expected], atol=1e-6)
    assert np.array_equal(np.stack([picture for _, picture in found]), clip.frames(expected))
    clip.close()


def test_it_ends_with_the_video_and_reads_no_further_than_asked(tmp_path):
    path = write_video(tmp_path / "a.mp4")  # 30 frames in 2 s
    found = list(stream_frames(path, count(0, 0.25), lambda frame: int(frame.mean())))
    assert [second for second, _ in found] == pytest.approx([int(0.25 * i * 15) / 15 for i in range(8)])
    assert found[-1][1] == pytest.approx(26 * STEP, abs=3)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(VideoDecodeError, match="a.mp4: "):
        list(stream_frames(path, count(0, 0.25)))


def test_a_folder_of_frames_is_a_video_too(tmp_path):
    folder = write_folder(tmp_path / "frames", [10, 40, 70, 100])  # 12 a second
    found = list(stream_frames(folder, count(0, 1 / 6), lambda frame: int(frame.mean())))
    assert found == [(0.0, 10), (pytest.approx(1 / 6), 70)]


@pytest.mark.parametrize(("content", "text"), [
    (None, "no such file"), (b"", "empty file"), (b"hello" * 100, "not a video"),
])
def test_what_is_no_video_is_named_as_the_readers_do(tmp_path, content, text):
    path = tmp_path / "b.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoDecodeError, match=f"b.mp4: .*{text}"):
        next(stream_frames(path, [0.0]))


def test_falling_times_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected times that do not fall, found 0.5 behind 1.0"):
        list(stream_frames(write_video(tmp_path / "a.mp4"), [1.0, 0.5]))


def test_memory_does_not_grow_with_the_length(tmp_path):
    """4,000 frames of 640 x 480 would be 3.7 GB."""
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 640, 480, "yuv420p", {"preset": "ultrafast"}
        frame = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8), format="rgb24")
        for i in range(4000):
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    process, used, number = psutil.Process(), [], 0
    wanted = (i / 5 + 0.01 for i in count())
    for number, _ in enumerate(stream_frames(path, wanted, lambda frame: frame[::8, ::8].copy()), start=1):
        if number % 100 == 0:
            gc.collect()
            used.append(process.memory_info().rss)
    assert number == 800
    assert max(used) - used[0] < 50e6
