"""Measures own clips: learning again, adding one, a timeline and how it is read, what imports cost.

The model has random weights of full width; the clips are the demo's own ones, and a long video of 640 x 360 with a
keyframe every 250 frames.
"""

import math
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from datasets.decoding import open_video
from datasets.demo.own import render_own
from datasets.streaming import stream_frames
from runs.benchmarks import timing
from runs.benchmarks.rows import LOWER, NEITHER, Done, Row, silent
from runs.own.calibration import Wishes
from runs.own.recognizer import Recognizer
from utils.phases import Recorder, recording

RATE, SIZE, KEYFRAMES = 25, (360, 640), 250
WINDOW, FRAMES = 4.0, 8  # seconds and frames of a window, when windows are read one by one, a second apart
STARTS = (("-c", "import torch"), ("-c", "import runs.recognizer"), ("runs/predict.py", "--help"))  # of python


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure`."""
    return {"backbone": "RN50", "seconds": 10 if quick else 60, "turns": 1 if quick else 3}


def _long_video(path: Path, seconds: int) -> Path:
    """Render noise that drifts, unless the file is there."""
    if path.is_file():
        return path
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 256, (60, 90, 3), np.uint8), np.ones((12, 12, 1), np.uint8))
    part = path.with_name(f".{path.name}")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": str(KEYFRAMES), "sc_threshold": "0"})
        (stream.height, stream.width), stream.pix_fmt = SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for i in range(seconds * RATE):
            top, left = int(150 + 140 * math.sin(i / 31)), int(200 + 190 * math.cos(i / 43))
            frame = np.ascontiguousarray(scene[top:top + SIZE[0], left:left + SIZE[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    part.rename(path)
    return path


def _streamed(path: Path) -> int:
    return sum(1 for _ in stream_frames(path, (i / 4 for i in range(10**6))))


def _window_by_window(path: Path) -> int:
    """Read the frames of each window by their numbers, decord's way; the file is opened once."""
    clip, count = open_video(path, "decord"), 0
    step = WINDOW / FRAMES * clip.fps
    for first in range(0, int(clip.num_frames - WINDOW * clip.fps), int(clip.fps)):
        count += len(clip.frames([int(first + step * (i + 0.5)) for i in range(FRAMES)]))
    clip.close()
    return count


def measure(data: Path, done: Done = silent, *, backbone: str, seconds: int, turns: int) -> list[Row]:
    """Return the rows. Raises FewShotError."""
    data.mkdir(parents=True, exist_ok=True)
    own, video = render_own(data / "own"), _long_video(data / f"long_{seconds}.mp4", seconds)
    model = Recognizer(backbone, overrides=["VIDEO.HEAD.BACKBONE_WEIGHTS", "random"], text=False)
    rows: dict[str, list[float]] = {}

    def add(**found: float) -> None:
        for name, value in found.items():
            rows.setdefault(name, []).append(value)

    for turn in range(turns):
        with tempfile.TemporaryDirectory() as scratch:
            support = Path(shutil.copytree(own / "support", Path(scratch) / "support",
                                           ignore=shutil.ignore_patterns(".*")))
            first, actions = timing.timed(lambda at=support: model.learn(at))  # type: ignore[misc]
            actions.held_out  # noqa: B018  (made when it is first asked for)
            again, kept = timing.timed(lambda at=support: model.learn(at))  # type: ignore[misc]
            add(again=first / again, kept=float(kept.encoded))
            more_seconds, more = timing.timed(lambda one=actions: one.add(  # type: ignore[misc]
                one.names[0], own / "query" / "clip_00.mp4"))
            add(held_out=100 * timing.seconds(lambda one=more: one.held_out) / more_seconds)  # type: ignore[misc]
        recorder = Recorder(model.model.device)
        with recording(recorder):
            answer = actions.predict(video, timeline="always", wishes=Wishes(threshold=0.0))
        parts = recorder.seconds
        matching = parts["alignment"] + parts["modulator"]
        add(alignment=100 * matching / parts["encoder"], windows=float(len(answer.windows)))
        add(reading=timing.seconds(lambda: _window_by_window(video)) / timing.seconds(lambda: _streamed(video)))
        plain, mine, helped = (timing.seconds(timing.new_python(*arguments)) for arguments in STARTS)
        add(imported=mine / plain, help=100 * helped / plain)
        done((turn + 1) / turns)
    return [
        Row("learning 25 clips again, from what was kept, against encoding them", "times", rows["again"]),
        Row("clips encoded then", "clips", rows["kept"], LOWER),
        Row("leave-one-out of all anew, of the time to add a clip", "%", rows["held_out"], LOWER),
        Row("windows of the timeline", "windows", rows["windows"], NEITHER),
        Row("alignment and modulator of a timeline, of its tower's time", "%", rows["alignment"], LOWER),
        Row("reading a long video once, against window by window with decord", "times", rows["reading"]),
        Row("importing the recogniser, against importing torch", "times", rows["imported"], LOWER),
        Row("predict.py --help, of importing torch", "%", rows["help"], LOWER)]
