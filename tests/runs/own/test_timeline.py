"""Long videos: votes, runs, segments, and how many frames are seen."""

import math
import tracemalloc

import numpy as np
import pytest

from runs.own.calibration import Wishes
from runs.own.timeline import Window, cell_actions, runs_of, segments_of, timeline
from runs.recognizer import to_frame
from tests.runs.own.colours import T, model_of_colours, pictures, write_support, write_video
from utils.errors import OwnClipsError

GREY = (118, 118, 118)


def window(first: int, *distances: float) -> Window:
    return Window(first, np.array(distances, float))


def test_cells_belong_to_the_action_with_most_votes():
    windows = [window(0, 1, 9), window(1, 3, 9), window(2, 9, 2), window(3, 9, 9)]
    # threshold 5: window 0 votes 4 for action 0, window 1 votes 2, window 2 votes 3 for action 1, window 3 for none
    assert cell_actions(windows, 8, 4, 5.0).tolist() == [0, 0, 0, 0, 1, 1, -1, -1]


def test_runs_close_gaps_and_drop_what_is_short():
    actions = np.array([0, 0, 0, -1, 0, 0, -1, -1, 1, -1, 2, 2, 0, 0])
    assert runs_of(actions, gap=1, least=2) == [(0, 6, 0), (10, 12, 2), (12, 14, 0)]
    assert runs_of(actions, gap=0, least=1) == [(0, 3, 0), (4, 6, 0), (8, 9, 1), (10, 12, 2), (12, 14, 0)]
    assert runs_of(np.full(5, -1), 1, 1) == []


def test_segments_say_when_in_seconds():
    windows = [window(i, 1.0 if 4 <= i <= 8 else 9.0, 9.5) for i in range(0, 17)]
    found = segments_of(windows, ["jump", "run"], 20, 4, 0.5, 5.0)
    assert [(one.start, one.end, one.action, one.distance, one.windows) for one in found] == [
        (2.0, 6.0, "jump", 1.0, 5)]


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """61 seconds, ten frames a second: red at 10 to 14, blue at 30 to 36, red at 50 to 53; grey else."""
    frames = pictures(GREY, 610, 7)
    for start, end, colour in ((10, 14, "red"), (30, 36, "blue"), (50, 53, "red")):
        frames[start * 10:end * 10] = pictures(colour, (end - start) * 10, start)
    return write_video(tmp_path_factory.mktemp("long") / "long.mp4", frames)


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    return model_of_colours().learn(write_support(tmp_path_factory.mktemp("support")))


def test_a_long_video_gives_segments_counts_and_each_frame_passes_once(actions, long_video):
    eye = actions.model.head.backbone
    before = eye.seen
    answer = actions.predict(long_video, wishes=Wishes(threshold=-0.97))
    cell = actions.median_seconds / T
    assert eye.seen - before == math.ceil(61 / cell - 1e-9)
    found = [(one.action, one.start, one.end) for one in answer.segments]
    wanted = [("red", 10, 14), ("blue", 30, 36), ("red", 50, 53)]
    assert [one[0] for one in found] == [one[0] for one in wanted]
    for (_, start, end), (_, first, last) in zip(found, wanted, strict=True):
        assert abs(start - first) <= 3 * cell and abs(end - last) <= 3 * cell  # a window reaches over 4
    assert answer.counts["red"][0] == 2 and answer.answer is None and answer.seconds == pytest.approx(61)


def test_without_a_threshold_there_are_windows_and_no_segments(long_video, tmp_path):
    few = model_of_colours().learn(write_support(tmp_path, clips=1))
    answer = few.predict(long_video)
    assert to_frame([answer]).loc[0, "file"] == "long.mp4"
    assert answer.segments is None and {one.action for one in answer.windows} >= {"red", "blue"}
    assert answer.to_dict()["segments"] is None


def test_windows_are_scored_as_clips_are_whether_frames_are_shared_or_not(actions, long_video, monkeypatch):
    def run():
        return timeline(actions.model, actions.matcher, long_video, actions.names, window=2.0, seconds=61.0,
                        threshold=-0.9)

    shared = run()
    monkeypatch.setattr(type(actions.model.head.backbone), "takes_clips", True, raising=False)
    monkeypatch.setattr(type(actions.model.head.backbone), "forward", lambda self, clips: self.gain * (
        clips.mean(dim=(3, 4)) - 0.45))
    alone = run()
    assert [one.action for one in shared.windows] == [one.action for one in alone.windows]
    assert np.allclose([one.distance for one in shared.windows], [one.distance for one in alone.windows], atol=1e-6)
    assert shared.frames == alone.frames


def test_a_camera_is_followed_as_its_frames_come(actions):
    """Grey, then blue: each window is told once it is over, before the next frame comes."""
    def camera():
        for i in range(120):
            seen.append(i / 10)
            yield 5 + i / 10, pictures(GREY if i < 60 else "blue", 1, i)[0]

    seen: list[float] = []
    moments = [(one, seen[-1]) for one in actions.follow(camera(), Wishes(threshold=-0.97))]
    assert all(told <= one.end - 5 + 0.11 for one, told in moments) and moments[0][0].start == 5
    shown = {round(one.start - 5, 2): one.action for one, _ in moments}
    assert shown[0.0] is None and shown[8.0] == "blue" and {*shown.values()} == {None, "blue"}
    with pytest.raises(OwnClipsError, match=r"uint8 \[H, W, 3\], found float64"):
        list(actions.follow([(0.0, np.zeros((4, 4, 3)))]))


@pytest.mark.slow
def test_an_hour_takes_the_memory_of_a_minute(actions, tmp_path):
    """All frames would be 265 MB as decoded, 50 MB as the model takes them."""
    peaks = []
    for minutes in (1, 60):
        frames = np.repeat(pictures(GREY, 1, 7, (96, 128)), 2 * 60 * minutes, axis=0)
        path = write_video(tmp_path / f"{minutes}.mp4", frames, rate=2)
        del frames
        tracemalloc.start()
        answer = actions.timeline_answer(path, path.name, 60.0 * minutes, Wishes(threshold=-0.97))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(answer.windows) == pytest.approx(60 * minutes / 0.5, abs=5) and answer.segments == ()
    assert peaks[1] < 1.2 * peaks[0] + 8e6, peaks


def test_a_video_shorter_than_a_window(actions, tmp_path):
    path = write_video(tmp_path / "short.mp4", pictures("blue", 6, 3))
    answer = actions.predict(path, timeline="always", wishes=Wishes(threshold=-0.9))
    assert [(one.action, one.start, one.end) for one in answer.segments] == [("blue", 0.0, pytest.approx(0.6))]
