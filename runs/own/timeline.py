"""Finds actions in long videos: windows of a typical clip's length slide over the frames, which are read once.

A window is T cells, of each of which the frame in the middle is taken; windows begin every T / 4 cells, so where a
frame's features are the same in every clip, each frame passes the tower once. Windows are scored as clips are. One that
is nearer to an action than the threshold votes for it in its cells, the nearer the more; a cell belongs to the action
with most votes; runs of cells are segments.

T frames a clip, K actions, W windows, C/H/W image, D features.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.streaming import stream_frames
from datasets.transforms import test_transform
from models.heads.base import Features, Head
from runs.own.matching import Matcher
from runs.own.models import OwnModel
from runs.own.results import Segment, Strip
from utils.errors import OwnClipsError

LEAST_SECONDS, MOST_SECONDS = 1.0, 30.0  # of a window
AT_ONCE = 32  # frames in a pass of the tower
WINDOWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Timeline:
    """Holds what a long video shows. segments: None without a threshold. frames: how many passed the tower."""

    segments: tuple[Segment, ...] | None
    windows: tuple[Strip, ...]
    frames: int


@dataclass(frozen=True, slots=True)
class Window:
    """Holds a window: number of its first cell, and its distance to each action, float64 [K]."""

    first: int
    distances_K: np.ndarray


def shares_frames(head: Head) -> bool:
    """Return whether a frame's features are the same in every clip that it is part of."""
    return type(head).encode is Head.encode and not getattr(head.backbone, "takes_clips", False)


def _pieces(frames: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    waiting = iter(frames)
    while piece := list(islice(waiting, size)):
        yield piece


def _clip_features(model: OwnModel, frames: Iterable[Tensor], taken: list[int], at_once: int
                   ) -> Iterator[tuple[int, Features]]:
    """Yield (first cell, features of a clip, each [1, ...]) of each window of frames [1, C, H, W], in order.

    Args:
        taken: its last number counts the frames. at_once: frames that are waited for before they pass the tower.
    """
    T, head = model.reading.frames, model.encoder
    stride, shared = max(1, T // 4), shares_frames(head)
    held: deque[Features] = deque(maxlen=T)  # what the tower gave of each frame, or the frame itself

    def clip() -> Features:
        joined = {name: torch.cat([one[name] for one in held], dim=1) for name in held[0]}
        return joined if shared else head.encode(joined["pixels"])

    for piece in _pieces(frames, at_once):
        clips_PTCHW = torch.stack(piece).to(model.device)
        of_piece = head.encode(clips_PTCHW) if shared else {"pixels": clips_PTCHW}
        for i in range(len(piece)):
            held.append({name: value[i:i + 1] for name, value in of_piece.items()})
            first = taken[-1] - T + 1
            taken[-1] += 1
            if first < 0 or first % stride:
                continue
            yield first, head.clip_features(clip())
    if 0 < taken[-1] < T:  # shorter than a window: its last frame stands still
        held.extend([held[-1]] * (T - len(held)))
        yield 0, head.clip_features(clip())


@torch.inference_mode()
def windows_of(model: OwnModel, matcher: Matcher, frames: Iterable[Tensor], taken: list[int], live: bool = False
               ) -> Iterator[Window]:
    """Yield the windows of frames, each [1, C, H, W], at cell after cell; `live`: as soon as each is complete."""
    waiting = _clip_features(model, frames, taken, 1 if live else AT_ONCE)
    while group := list(islice(waiting, 1 if live else WINDOWS_AT_ONCE)):
        together = {name: torch.cat([features[name].float() for _, features in group]) for name in group[0][1]}
        for (first, _), distances_K in zip(group, matcher.distances(together, together=True), strict=True):
            yield Window(first, distances_K)


def follow(model: OwnModel, matcher: Matcher, frames: Iterable[tuple[float, np.ndarray]], names: Sequence[str], *,
           window: float, threshold: float | None) -> Iterator[Strip]:
    """Yield what each window of a running camera shows, as soon as it is over; windows overlap by three quarters.

    Args:
        frames: (seconds, uint8 RGB [H, W, 3]) in order. threshold: see timeline; beyond it a window shows no action.

    Raises OwnClipsError on a frame of another kind.
    """
    T = model.reading.frames
    cell, transform, begin = window / T, test_transform(model.reading.pixels), [0.0]

    def at_cells() -> Iterator[Tensor]:
        """Give each cell the first frame that is at its middle or behind it."""
        wanted, started, last = 0.0, False, -np.inf
        for second, picture in frames:
            if not started:
                begin[0], wanted, started = second, second + cell / 2, True
            made = np.asarray(picture)
            if made.dtype != np.uint8 or made.ndim != 3 or made.shape[2] != 3:
                raise OwnClipsError(f"expected frames of uint8 [H, W, 3], found {made.dtype} {list(made.shape)}")
            if second < last:
                raise OwnClipsError(f"expected frames in order, found {second:g} s behind {last:g} s")
            last = second
            while second >= wanted:
                wanted += cell
                yield _one(transform, made)

    for one in windows_of(model, matcher, at_cells(), [0], live=True):
        nearest, start = int(one.distances_K.argmin()), begin[0] + one.first * cell
        near = threshold is None or one.distances_K[nearest] <= threshold
        yield Strip(start, start + window, names[nearest] if near else None, float(one.distances_K[nearest]))


def cell_actions(windows: Sequence[Window], cells: int, T: int, threshold: float) -> np.ndarray:
    """Return the action that each cell belongs to, int64 [cells]; -1: none.

    A window votes in its T cells for its nearest action, with the threshold less its distance, if that is positive.
    """
    votes = np.zeros((cells, len(windows[0].distances_K)))
    for window in windows:
        action = int(window.distances_K.argmin())
        votes[window.first:window.first + T, action] += max(threshold - float(window.distances_K[action]), 0.0)
    return np.where(votes.max(axis=1) > 0, votes.argmax(axis=1), -1)


def runs_of(actions: np.ndarray, gap: int, least: float) -> list[tuple[int, int, int]]:
    """Return (first cell, cell behind the last, action) of each run of one action, gaps closed, without short runs.

    Args:
        gap: cells without an action between two runs of the same one that join them. least: cells of a run that counts.
    """
    edges = np.flatnonzero(np.diff(actions)) + 1
    parts = [(int(a), int(b), int(actions[a])) for a, b in zip([0, *edges], [*edges, len(actions)], strict=True)
             if actions[a] >= 0]
    joined: list[tuple[int, int, int]] = []
    for first, end, action in parts:
        if joined and joined[-1][2] == action and first - joined[-1][1] <= gap:
            first = joined.pop()[0]
        joined.append((first, end, action))
    return [part for part in joined if part[1] - part[0] >= least]


def segments_of(windows: Sequence[Window], names: Sequence[str], cells: int, T: int, cell: float, threshold: float
                ) -> tuple[Segment, ...]:
    """Return the segments that windows make (see the text above). `cell`: seconds."""
    found = []
    actions = cell_actions(windows, cells, T, threshold)
    for first, end, action in runs_of(actions, gap=max(1, T // 4), least=T / 2):
        over = (window.distances_K for window in windows if window.first < end and window.first + T > first)
        own = [float(distances_K[action]) for distances_K in over
               if int(distances_K.argmin()) == action and distances_K[action] <= threshold]
        found.append(Segment(first * cell, end * cell, names[action], min(own), len(own)))
    return tuple(found)


def timeline(model: OwnModel, matcher: Matcher, path: Path, names: Sequence[str], *, window: float, seconds: float,
             threshold: float | None, progress: Callable[[float], None] | None = None) -> Timeline:
    """Return what a long video shows. Memory does not grow with its length, but for the windows' distances.

    Args:
        names: of the actions. window: seconds. seconds: the video's length. threshold: the largest distance that is an
            action; None: no segments. progress: called with the seconds that were read.

    Raises VideoDecodeError.
    """
    T, taken = model.reading.frames, [0]
    cell, transform = window / T, test_transform(model.reading.pixels)

    def frames() -> Iterator[Tensor]:
        for _, pixels in stream_frames(path, (cell * (i + 0.5) for i in count()), partial(_one, transform)):
            if progress is not None:
                progress(min(taken[-1] * cell, seconds))
            yield pixels

    found = list(windows_of(model, matcher, frames(), taken))
    strips = tuple(Strip(one.first * cell, min((one.first + T) * cell, seconds), names[int(one.distances_K.argmin())],
                         float(one.distances_K.min())) for one in found)
    if threshold is None:
        return Timeline(None, strips, taken[-1])
    segments = segments_of(found, names, max(taken[-1], T), T, cell, threshold)
    return Timeline(tuple(Segment(one.start, min(one.end, seconds), one.action, one.distance, one.windows)
                          for one in segments), strips, taken[-1])


def _one(transform: Callable[[np.ndarray], Tensor], frame_HWC: np.ndarray) -> Tensor:
    return transform(frame_HWC[None])
