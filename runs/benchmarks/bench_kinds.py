"""Measures clips a second of `auto` beside decord and torchcodec, on each kind of video file.

A clip is 8 frames, drawn as a data set draws them, from a file that is opened for it. Readers take turns, one thread
each. "First" is the first opening of a file by a process, which looks at all its packets. A frame is right that is the
one of its index when FFmpeg decodes all in order; a reader that has a wrong one is not compared with.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np

from datasets.decoding import AUTO, open_video
from datasets.frame_sampling import segment_indices
from datasets.readers.fast import torchcodec_problem
from runs.benchmarks.long_clips import HEIGHT, RATE, WIDTH, render_long_clip
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.timing import threads
from utils.seed import numpy_generator

FIRST = "auto, first"  # the first opening of a file
LONGER = "long: "  # in front of the name of a long file
FRAMES, APART = 8, 3.0  # of a clip; mean grey levels between frames that are not the same (10 bits: colours differ)
H264, HEVC = "keyint={g}:min-keyint={g}:scenecut=0:open-gop=", "log-level=none:keyint={g}:scenecut=0:open-gop="
KINDS = {  # ending, encoder, pixels, its options; {g}: frames from one keyframe to the next
    "H.264": ("mp4", "libx264", "yuv420p", {"x264-params": f"{H264}0"}),
    "H.264, open groups": ("mp4", "libx264", "yuv420p", {"x264-params": f"{H264}1"}),
    "H.264, 10 bits": ("mp4", "libx264", "yuv420p10le", {"x264-params": f"{H264}0"}),
    "HEVC, closed groups": ("mp4", "libx265", "yuv420p", {"preset": "fast", "x265-params": f"{HEVC}0"}),
    "HEVC": ("mp4", "libx265", "yuv420p", {"preset": "fast", "x265-params": f"{HEVC}1"}),
    "HEVC, 10 bits": ("mp4", "libx265", "yuv420p10le", {"preset": "fast", "x265-params": f"{HEVC}1"}),
    "AV1": ("mp4", "libsvtav1", "yuv420p", {"preset": "10", "g": "{g}"}),
    "AV1, 10 bits": ("mp4", "libsvtav1", "yuv420p10le", {"preset": "10", "g": "{g}"}),
    "VP9, WebM": ("webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "g": "{g}"}),
}
COPIED = "mkv"  # the first kind, and each long file, is there in this container, too
LONG = ("H.264", "H.264, open groups")  # kinds of which there is a long file
Draw = Callable[[int], np.ndarray]  # from the number of frames to those that are wanted
Read = Callable[[Path, Draw], np.ndarray]
Turn = dict[str, tuple[float, float]]  # of each reader: the median seconds of a clip, and the right ones of 100 frames


def _auto(path: Path, draw: Draw) -> np.ndarray:
    with contextlib.closing(open_video(path)) as clip:
        return clip.frames(draw(clip.num_frames))


def _auto_first(path: Path, draw: Draw) -> np.ndarray:
    path.touch()  # as if nothing were known of it
    return _auto(path, draw)


def _decord(path: Path, draw: Draw) -> np.ndarray:
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    frames: np.ndarray = reader.get_batch(draw(len(reader))).asnumpy()
    return frames


def _torchcodec(path: Path, draw: Draw) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu")
    return decoder.get_frames_at(draw(len(decoder)).tolist()).data.numpy()


def readers() -> dict[str, Read]:
    """Return what is measured here, by name: AUTO and FIRST of this code, the others as they come."""
    return {AUTO: _auto, FIRST: _auto_first, **({"decord": _decord} if find_spec("decord") else {}),
            **({} if torchcodec_problem() else {"torchcodec": _torchcodec})}


def _write(path: Path, pictures: Sequence[np.ndarray], repeats: int, kind: str, apart: int) -> None:
    """Encode pictures, again and again, unless the file is there; keyframes are `apart`."""
    _, codec, pixels, options = KINDS[kind]
    part = path.with_name(f".{path.name}")
    if path.is_file():
        return
    with av.open(str(part), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options={k: v.format(g=apart) for k, v in options.items()})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for _ in range(repeats):
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    part.replace(path)


def _copy(source: Path, path: Path) -> None:
    """Copy the packets of a file into another container, unless it is there."""
    part = path.with_name(f".{path.name}")
    if path.is_file():
        return
    with av.open(str(source)) as whole, av.open(str(part), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    part.replace(path)


def render(data: Path, apart: int, repeats: int) -> dict[str, Path]:
    """Render a file of each kind, `apart` frames from keyframe to keyframe, and those `repeats` times as long.

    Returns their paths by name; a long file has the name of its short one behind LONGER.
    """
    data.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SVT_LOG", "1")  # else the encoder of AV1 tells about itself
    source, found = data / "source.mp4", dict[str, Path]()
    render_long_clip(source, 0)
    with av.open(str(source)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for kind, (ending, *_) in KINDS.items():
        for name, times in (kind, 1), *([(f"{LONGER}{kind}", repeats)] if kind in LONG else []):
            stem = f"{name}_{apart}_{times}".lower().translate(str.maketrans(" ", "_", ".,:"))
            path = found[name] = data / f"{stem}.{ending}"
            _write(path, pictures, times, kind, apart)
            if kind == LONG[0]:
                found[f"{name}, {COPIED}"] = path.with_suffix(f".{COPIED}")
                _copy(path, path.with_suffix(f".{COPIED}"))
    return found


def right_frames(path: Path, wanted: set[int]) -> dict[int, np.ndarray]:
    """Return FFmpeg's frames at some indices, by decoding all in order."""
    with av.open(str(path)) as container:
        return {i: frame.to_ndarray(format="rgb24") for i, frame in enumerate(container.decode(video=0)) if i in wanted}


def _clip(read: Read, path: Path, seed: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the seconds of reading a clip, which frames it has, and them: both empty where the reader cannot."""
    drawn = [np.empty(0, int)]

    def draw(count: int) -> np.ndarray:
        drawn.append(segment_indices(count, FRAMES, numpy_generator(0, "bench kinds", seed), center=False))
        return drawn[-1]

    start = time.perf_counter()
    try:
        frames = read(path, draw)
    except Exception:  # noqa: BLE001  (what decord and torchcodec raise on kinds that they do not know has no base)
        return time.perf_counter() - start, drawn[0], np.empty(0)
    return time.perf_counter() - start, drawn[-1], frames


def in_turns(path: Path, sources: dict[str, Read], seeds: Sequence[int]) -> Turn:
    """Read clips by each reader, with their draws of frames by number; and all frames by FFmpeg."""
    read: dict[str, list[tuple[float, np.ndarray, np.ndarray]]] = {name: [] for name in sources}
    for seed in seeds:
        for name, source in sources.items():
            read[name].append(_clip(source, path, seed))
    truth = right_frames(path, {int(i) for clips in read.values() for _, drawn, _ in clips for i in drawn})
    found = {}
    for name, clips in read.items():
        right = sum(bool(np.abs(frame - truth[int(i)].astype(float)).mean() < APART)
                    for _, drawn, frames in clips for i, frame in zip(drawn, frames, strict=True))
        found[name] = statistics.median(seconds for seconds, _, _ in clips), 100 * right / (FRAMES * len(clips))
    return found


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure`: files of 10 s, and `repeats` times as long."""
    return {"clips": 2 if quick else 8, "rounds": 3, "keyframes": 60, "repeats": 6 if quick else 60}


def measure(data: Path, done: Done = silent, *, clips: int, rounds: int, keyframes: int, repeats: int) -> list[Row]:
    """Return rows of each kind: `auto` against the others where they are right, right frames, clips/s of `auto`.

    Args:
        keyframes: frames from one keyframe to the next. repeats: how many times as long the long files are.
    """
    with threads(1):
        paths, sources = render(data, keyframes, repeats), readers()
        turns: dict[str, list[Turn]] = {name: [] for name in paths}
        for turn in range(rounds):
            for place, (name, path) in enumerate(paths.items(), 1):
                in_turns(path, sources, [-1])  # warms up
                turns[name].append(in_turns(path, sources, range(turn * clips, (turn + 1) * clips)))
                done((turn + place / len(paths)) / rounds)
    return [row for name in paths for row in _rows(name, turns[name], turns[name.removeprefix(LONGER)])]


def _rows(name: str, turns: Sequence[Turn], short: Sequence[Turn]) -> list[Row]:
    """Return the rows of one file; `short`: the turns of the file of its kind that is not long."""
    rows = []
    for own in (AUTO, FIRST):
        rows.append(Row(f"{name}: {own}", "clips/s", [1 / turn[own][0] for turn in turns]))
        if name.startswith(LONGER):
            rows.append(Row(f"{name}: {own}, a clip against one of the short file", "times",
                            [turn[own][0] / one[own][0] for turn, one in zip(turns, short, strict=True)], LOWER))
    for other in [one for one in turns[0] if one != FIRST]:
        right = [turn[other][1] for turn in turns]
        rows.append(Row(f"{name}: right frames, {other}", "%", right))
        if other != AUTO and min(right) == 100:
            rows += [Row(f"{name}: {own} against {other}", "times", [turn[other][0] / turn[own][0] for turn in turns])
                     for own in (AUTO, FIRST)]
    return rows
