"""Writes what was said of clips: a table for people, JSON and CSV for programs."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs.own.calibration import counted
from runs.own.results import FORMAT, Answer, Check
from utils.command import csv_cell, printable
from utils.files import whole_file

HEADINGS = ("file", "answer", "probability", "margin", "next", "note")
WIDEST = 44  # characters of a cell
SHOWN_SEGMENTS = 30


def summary(check: Check, model: str, source: str) -> str:
    """Return the lines above the table: what was learned from, and what it is worth."""
    clips = counted(sum(action.clips for action in check.actions), "clip")
    return f"{counted(len(check.actions), 'action')}, {clips} from {source}; model {model}\n{check}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:05.2f}"


def note_of(answer: Answer) -> str:
    """Return what is to be told beside an answer, in words."""
    if answer.error is not None:
        return f"cannot be read: {answer.error.removeprefix('cannot be read: ')}"
    same = [f"the same video as {answer.same_as_support}"] if answer.same_as_support else []
    return "; ".join([*same, *answer.notes])


def counts_of(answer: Answer) -> list[str]:
    """Return how often each action is seen in a long video, in words."""
    return [f"{name}: {counted(times, 'time')}, {seconds:.1f} s" for name, (times, seconds) in answer.counts.items()]


def row_of(answer: Answer) -> list[str]:
    """Return the cells of an answer, as under HEADINGS."""
    if answer.error is not None:
        return [answer.file, "-", "", "", "", note_of(answer)]
    if answer.windows is not None:
        return [answer.file, "timeline", "", "", ", ".join(counts_of(answer)) or "no segment", note_of(answer)]
    ranked, known = answer.ranked, answer.probabilities
    nearest = ranked[0] if answer.unknown else ranked[1] if len(ranked) > 1 else ""
    share = f" {known[nearest]:.2f}" if known is not None and nearest and not answer.unknown else ""
    return [answer.file, answer.answer or "unknown",
            "-" if known is None or answer.answer is None else f"{known[answer.answer]:.2f}",
            "" if answer.margin is None else f"{answer.margin:+.2f}",
            f"({nearest})" if answer.unknown else f"{nearest}{share}", note_of(answer)]


def table(answers: Sequence[Answer]) -> str:
    """Return the answers as a table for a terminal, with the segments of long videos below it."""
    rows = [[printable(cell, "") for cell in row_of(answer)] for answer in answers]
    cut = [[cell if len(cell) <= WIDEST or i == len(row) - 1 else f"{cell[:WIDEST - 3]}..."
            for i, cell in enumerate(row)] for row in [list(HEADINGS), *rows]]
    widths = [max(len(row[i]) for row in cut) for i in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cut]
    for answer in answers:
        if answer.segments:
            lines.append(f"\n{printable(answer.file, '')}: {len(answer.segments)} segments")
            lines += [f"  {_clock(one.start)} to {_clock(one.end)}  {printable(one.action, '')}"
                      for one in answer.segments[:SHOWN_SEGMENTS]]
            if len(answer.segments) > SHOWN_SEGMENTS:
                lines.append(f"  and {len(answer.segments) - SHOWN_SEGMENTS} more (--out DIR writes all)")
        elif answer.windows is not None and answer.segments is None:
            lines.append(f"\n{printable(answer.file, '')}: no segments without a threshold; the nearest action of each "
                         "window stands in predictions.json (--out DIR)")
    return "\n".join(lines)


def as_json(check: Check, model: Mapping[str, Any], answers: Iterable[Answer]) -> str:
    """Return everything as one object (format FORMAT)."""
    content = {"format": FORMAT, "model": dict(model), **check.to_dict(), "queries": [one.to_dict() for one in answers]}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(answers: Iterable[Answer], actions: Sequence[str]) -> str:
    """Return a line a clip, or, of a long video, a line a segment."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "start", "end", "answer", "unknown", "margin", "note",
                     *(f"distance {csv_cell(name)}" for name in actions),
                     *(f"probability {csv_cell(name)}" for name in actions)])
    blank = [""] * (2 * len(actions))
    for answer in answers:
        name, note = csv_cell(answer.file), csv_cell(note_of(answer))
        if answer.windows is not None:
            for one in answer.segments or ():
                writer.writerow([name, f"{one.start:.2f}", f"{one.end:.2f}", csv_cell(one.action), "", "", note,
                                 *blank])
            continue
        known = answer.probabilities or {}
        writer.writerow([
            name, "", "" if answer.seconds is None else f"{answer.seconds:.2f}", csv_cell(answer.answer or ""),
            "" if answer.error is not None else str(answer.unknown).lower(),
            "" if answer.margin is None else repr(answer.margin), note,
            *(repr(answer.distances[action]) if action in answer.distances else "" for action in actions),
            *(repr(known[action]) if action in known else "" for action in actions)])
    return text.getvalue()


def write_outputs(directory: Path, of_json: str, of_csv: str) -> None:
    """Write predictions.json and predictions.csv. Raises DiskError, OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("predictions.json", of_json), ("predictions.csv", of_csv)):
        with whole_file(directory / name) as part:
            part.write_text(text, encoding="utf-8")
