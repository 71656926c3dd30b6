"""A clip from a long file costs what is near its frames: so much is decoded, and so much of the file read."""

from pathlib import Path

import av
import numpy as np
import pytest

from datasets.decoding import open_video, read_frames
from datasets.frame_sampling import segment_indices
from datasets.readers import look, pyav
from datasets.readers.look import UNSEEN, look_at
from datasets.readers.stamps import delay, paced
from tests.datasets.readers.decoder_files import READERS, bright_noise, ffmpeg, needs_ffmpeg, write_pictures

FRAMES, GROUP, T = 1200, 12, 8
PARAMS = "bframes=3:b-adapt=0:scenecut=0:open-gop="
KINDS = {**{f"{name}.{ending}": ("libx264", {"x264-params": f"{PARAMS}{open_gop}"})
            for ending in ("mp4", "mkv") for open_gop, name in enumerate(("closed", "open"))},
         "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": f"{PARAMS}0:log-level=none"})}
COUNTS = Path("/proc/self/io")  # Linux: what this process has read


@pytest.fixture(scope="module", params=KINDS)
def long(request, tmp_path_factory) -> Path:
    codec, options = KINDS[request.param]
    return write_pictures(tmp_path_factory.mktemp("long") / request.param, bright_noise, codec, frames=FRAMES,
                          **options)


def read_clip(path: Path, decoder: str, seed: int) -> None:
    clip = open_video(path, decoder)
    read_frames(clip, segment_indices(clip.num_frames, T, np.random.default_rng(seed), center=False), path)
    clip.close()


def bytes_read() -> int:
    return int(COUNTS.read_text().split()[1])


@pytest.fixture()
def decoded(monkeypatch) -> list[int]:
    """The times of the frames that PyAV has decoded since."""
    ticks, plain = [], pyav.decoded

    def counting(*arguments):
        for frame in plain(*arguments):
            ticks.append(frame.pts)
            yield frame

    monkeypatch.setattr(pyav, "decoded", counting)
    return ticks


def test_frames_near_those_that_are_wanted_are_decoded(long, decoded):
    read_clip(long, "pyav", 0)
    assert T <= len(decoded) <= T * (GROUP + 4) < FRAMES / 5  # from a keyframe on, with what an open group begins with


def test_frames_that_no_other_refers_to_are_passed_over(long, decoded, monkeypatch):
    """Of three B-frames between two others one is referred to; in HEVC whether it is cannot be told."""
    read_clip(long, "pyav", 0)
    count = len(decoded)
    monkeypatch.setattr(pyav, "look_at", lambda path: look_at(path)._replace(grid=UNSEEN.grid))
    read_clip(long, "pyav", 0)
    assert (count < 0.75 * (len(decoded) - count)) == (long.name != "hevc.mp4")
    assert (look_at(long).grid == UNSEEN.grid) == (long.name == "hevc.mp4")


def in_order(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_are_the_same_where_others_are_passed_over(tmp_path):
    """Whatever is asked for, and whatever was asked of the same clip before."""
    path = write_pictures(tmp_path / "b.mp4", bright_noise, "libx264", frames=60,
                          **{"x264-params": f"{PARAMS}1:keyint=24"})
    whole, drawn = in_order(path), np.random.default_rng(0)
    for _ in range(20):
        clip = pyav.PyavClip(path)
        for count in drawn.integers(1, 9, 4):
            wanted = drawn.integers(0, 60, count)
            assert all(np.array_equal(a, whole[i]) for a, i in zip(clip.frames(wanted), wanted, strict=True))
        assert clip._spares
        for i in range(50, 60):  # one by one: those in the decoder by then were not passed over
            assert np.array_equal(clip.frames([i])[0], whole[i])
        clip.close()


def test_nothing_is_passed_over_once_a_frame_has_not_come(tmp_path, monkeypatch):
    path = write_pictures(tmp_path / "b.mp4", bright_noise, "libx264", frames=60, **{"x264-params": f"{PARAMS}0"})
    whole, found = in_order(path), look_at(path)
    first, step = found.grid
    assert step == pytest.approx(1024)
    plain = pyav.decoded
    monkeypatch.setattr(pyav, "decoded", lambda container, stream, spared=None: (
        frame for frame in plain(container, stream, spared) if not spared or frame.pts != 20 * step))
    for grid in (found.grid, (first + 1, step)):  # a frame is lost; times are others
        monkeypatch.setattr(pyav, "look_at", lambda _, grid=grid: found._replace(grid=grid))
        clip = pyav.PyavClip(path)
        assert np.array_equal(clip.frames([20, 41])[0], whole[20]) and not clip._spares
        clip.close()


@pytest.mark.parametrize("rate, first", [((30, 1), 0), ((30000, 1001), 33), ((25, 1), 7), ((24000, 1001), 0)])
def test_milliseconds_are_a_grid(rate, first):
    """Matroska rounds times to them; each is found from its index again."""
    times = first + np.floor(np.arange(2000) * 1000 * rate[1] / rate[0] + 0.5).astype(int)
    found = UNSEEN._replace(grid=paced(times, 0.001)[1])
    assert [found.tick(i) for i in range(2000)] == times.tolist()


def test_times_that_are_on_no_grid_leave_all_to_be_decoded(tmp_path):
    times = np.cumsum([0, *np.random.default_rng(0).integers(3000, 9000, 39)])
    path = write_pictures(tmp_path / "uneven.mp4", bright_noise, "libx264", frames=40, times=times,
                          **{"x264-params": f"{PARAMS}0"})
    assert look_at(path).grid == UNSEEN.grid and len(look_at(path).starts) > 1


@pytest.mark.skipif(not COUNTS.exists(), reason="nothing counts here what a process reads")
@pytest.mark.parametrize("decoder", [name for name in READERS if name != "decord"])  # which reads all of each file
def test_little_of_the_file_is_read_for_a_clip(long, decoder):
    look_at(long)
    before = bytes_read()
    read_clip(long, decoder, 1)
    assert bytes_read() - before < long.stat().st_size / 3


@needs_ffmpeg
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("open_gop", [0, 1])
def test_streams_joined_whose_parameters_differ_are_read_in_order(tmp_path, ending, open_gop):
    """Whoever jumps into the second one would decode it by the parameters of the first."""
    for name, own in (("a.mp4", "qp=20"), ("b.mp4", "qp=34:ref=5")):
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25", "-frames:v", 50, "-c:v", "libx264", "-x264-params",
               f"keyint=20:open-gop={open_gop}:bframes=2:b-adapt=0:scenecut=0:weightp=0:{own}", tmp_path / name)
    (tmp_path / "list.txt").write_text("file a.mp4\nfile b.mp4\n")
    path = tmp_path / f"joined.{ending}"
    ffmpeg("-f", "concat", "-i", tmp_path / "list.txt", "-c", "copy", path)
    whole = in_order(path)
    assert len(whole) == 100 and look_at(path).grid == UNSEEN.grid
    for index in (99, 75, 20, 48):
        clip = open_video(path, "pyav")
        assert np.array_equal(clip.frames([index])[0], whole[index])
        clip.close()


def test_frames_that_come_too_late_for_the_decoder_leave_all_to_be_read_in_order(tmp_path, monkeypatch):
    """FFmpeg loses some of them where a file does not say how many frames are to be held back."""
    assert [delay(np.array(times)) for times in ([5], [0, 1, 2], [0, 3, 1, 2], [0, 4, 2, 1, 3])] == [0, 0, 1, 2]
    path = write_pictures(tmp_path / "b.mp4", bright_noise, "libx264", frames=40, **{"x264-params": f"{PARAMS}0"})
    before = look_at(path)
    assert before.jumps and len(before.starts) == 4 and before.grid[1]

    class Hasty(look._Beginning):
        held = property(lambda self: 1, lambda self, value: None)

    monkeypatch.setattr(look, "_Beginning", Hasty)
    path.touch()
    after = look_at(path)
    assert not after.jumps and len(after.starts) == 0 and after.grid == UNSEEN.grid
