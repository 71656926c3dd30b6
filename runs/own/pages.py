"""Writes what was said of clips as one page: frames, nearness, how frames meet, and timelines of long videos.

The page holds its pictures; a video is played from where it lies, by a relative link.

T frames, K actions, H/W/C image.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from models.heads.base import Alignment
from runs.own.actions import Actions
from runs.own.calibration import counted, leave_one_out_words, threshold_words
from runs.own.clips import read_clips
from runs.own.learning import Encoded
from runs.own.outputs import counts_of, note_of
from runs.own.results import Answer, Check
from runs.reporting.examples import Example, WayExample
from runs.reporting.report import page_script, page_style, page_template, view
from utils.errors import VideoDecodeError
from utils.files import whole_file

LANE, LABEL = 1000, 180  # width of a timeline, and of the names before it, in its own units
TICKS = 8
# A click on a segment plays the video from there.
SCRIPT = """
for (const bar of document.querySelectorAll(".seek")) {
  bar.addEventListener("click", () => {
    const video = bar.closest("article").querySelector("video");
    if (video) { video.currentTime = Number(bar.dataset.start); video.play(); }
  });
}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Holds an answer with what is drawn of it: where its video lies, its frames [T, H, W, C], how they are met."""

    path: Path
    answer: Answer
    frames: np.ndarray | None = None
    alignment: Alignment | None = None


def drawn(actions: Actions, path: Path, answer: Answer, query: Encoded | None) -> Drawn:
    """Keep of a clip what the page shows of it; its pixels can go."""
    if query is None or query.pixels is None or not answer.distances:
        return Drawn(path, answer)
    return Drawn(path, answer, actions.pictures(query.pixels), actions.explain(query))


def first_clips(actions: Actions, folder: Path | None) -> dict[str, np.ndarray]:
    """Return frames, [T, H, W, C], of a clip of each action that can be read; none without a folder."""
    if folder is None:
        return {}
    wanted = {name: next(one.clip.name for one in actions.clips if one.clip.action == name) for name in actions.names}
    paths = {folder / clip: name for name, clip in wanted.items()}
    return {paths[path]: actions.pictures(clip.pixels) for path, clip in read_clips(
        [path for path in paths if path.exists()], actions.model.reading) if not isinstance(clip, VideoDecodeError)}


def _seen(one: Drawn, examples: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Return what the report's template shows of a query whose class nobody knows; None: a clip that was not seen."""
    if one.frames is None:
        return None
    answer, none = one.answer, np.zeros((0, *one.frames.shape), np.uint8)
    met: Sequence[tuple[Any, Any]] = [(None, None)] * len(answer.distances)
    if one.alignment is not None:
        met = list(zip(one.alignment.costs_KTT.cpu().numpy(), one.alignment.path_KTT.cpu().numpy(), strict=True))
    clips = {name: pictures[None] for name, pictures in examples.items()}
    ways = tuple(WayExample(name, clips.get(name, none), distance, answer.shares[name], *own)
                 for (name, distance), own in zip(answer.distances.items(), met, strict=True))
    return view(Example(None, answer.file, one.frames, None, ways, "distance"))


def _lanes(answer: Answer, names: Sequence[str]) -> dict[str, Any]:
    """Return what is drawn of a long video: a lane an action, with its segments, or without a threshold its windows."""
    seconds = answer.seconds or 1.0
    if answer.windows is None:
        return {"lanes": [], "ticks": [], "words": ""}

    def place(second: float) -> float:
        return round(LABEL + (LANE - LABEL) * second / seconds, 2)

    parts = answer.segments if answer.segments is not None else answer.windows
    lanes = [(name, [(place(part.start), max(2.0, round(place(part.end) - place(part.start), 2)), round(part.start, 2),
                      f"{name}, {part.start:.2f} to {part.end:.2f} s") for part in parts if part.action == name])
             for name in names]
    words = "; ".join(counts_of(answer)) or (
        "No stretch is near enough to an action." if answer.segments is not None else
        "Without a threshold: the nearest action of every window.")
    ticks = [(place(seconds * i / TICKS), f"{seconds * i / TICKS:.0f} s") for i in range(1, TICKS)]
    return {"lanes": lanes, "ticks": ticks, "words": words}


def write_page(path: Path, actions: Actions, check: Check, found: Sequence[Drawn], folder: Path | None = None) -> None:
    """Write the page; the file is never half there. Raises DiskError, OSError.

    Args:
        folder: of the clips of the actions, whose frames stand along the maps; None: they are not here.
    """
    examples = first_clips(actions, folder) if any(one.alignment is not None for one in found) else {}
    place = path.parent.absolute()
    answers = [{"answer": one.answer, "note": "" if one.answer.error else note_of(one.answer),
                "video": "" if one.path.is_dir() else quote(os.path.relpath(one.path.absolute(), place)),
                "seen": _seen(one, examples), **_lanes(one.answer, actions.names)} for one in found]
    page = page_template("answers.html").render(
        title=f"{counted(len(found), 'video')} and {len(actions.names)} actions",
        model=actions.model.name, check=check, answers=answers,
        leave_one_out=leave_one_out_words(check.right, check.total, len(check.actions)),
        threshold=threshold_words(check.calibration, check.none_folder), style=page_style(),
        **page_script(SCRIPT))
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")

