"""Puts the runs of several methods into one leaderboard: every scoring of each, and how it differs from the first run.

Rows of inductive and of transductive methods are tables of their own, and so are never ranked against each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runs.evaluation.paired import Comparison, compare
from runs.sweeps.execute import MARKER
from runs.tables.cells import backbone_name
from runs.tables.formats import escaped
from runs.tables.reading import Result, read_results
from utils.errors import ResultsError
from utils.json_files import read_json
from utils.pretraining import kind_words, pretraining_words, text_words

COLUMNS = ("method", "scoring", "accuracy", "95 % over videos", "difference", "p", "trained parameters", "seconds",
           "texts", "tower")
LEAST_P = 1e-4  # smaller ones are not told apart
NOTES = (
    "Accuracy in percent +- 95 % interval over the test episodes, best first; beside it the interval over videos, as "
    "episodes share them. Rows of one run are different scorings of the same episodes; the one that its test is "
    "configured for has a *. Checkpoints were selected on val, or nothing was trained, unless a row says otherwise.",
    "Difference: points above the first run's, paired query by query on the same episodes, +- 95 % interval; p: "
    "McNemar's exact test, which takes queries as independent.",
    "Seconds: one whole run, training, validations, test and pages, beside the other runs of the sweep.")


@dataclass(frozen=True, slots=True)
class Row:
    """Holds one scoring of one run.

    Args:
        headline: whether the run's test is configured for this scoring.
        versus: how it differs from the reference; None: it is the reference, or of other episodes (why says which).
        trained: number of trained parameters; None: not recorded. seconds: of the run; None: not recorded.
    """

    result: Result
    headline: bool
    versus: Comparison | None
    why: str
    trained: int | None
    seconds: float | None

    def cells(self) -> list[str]:
        """Return what stands in each of COLUMNS."""
        setting, score = self.result.setting, self.result.score
        low, high = score.interval95_videos or (None, None)
        selection = "" if setting.selected_on in ("val", "nothing") else f" (selected on: {setting.selected_on})"
        return [
            setting.method, f"{score.title}{' *' if self.headline else ''}{selection}",
            _percent(score.accuracy) + (f" +- {_percent(score.interval95)}" if score.interval95 is not None else ""),
            "not recorded" if low is None or high is None else f"{_percent(low)} to {_percent(high)}",
            self.why if self.versus is None else f"{100 * self.versus.difference:+.1f} +- "
                                                 f"{_percent(self.versus.interval)}",
            "" if self.versus is None else f"{self.versus.p:.2g}" if self.versus.p > LEAST_P else f"< {LEAST_P:g}",
            "not recorded" if self.trained is None else f"{self.trained:,}",
            "not recorded" if self.seconds is None else f"{self.seconds:,.0f}",
            text_words(setting.texts).removeprefix("class texts: "),
            f"{backbone_name(setting.backbone)}; {pretraining_words(setting.pretraining, setting.data_set)}"]


@dataclass(frozen=True, slots=True)
class Board:
    """Holds the leaderboard: (kind and test in words, rows), the name of the reference, and notes."""

    tables: list[tuple[str, list[Row]]]
    reference: str
    notes: tuple[str, ...]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _versus(reference: Result, result: Result) -> tuple[Comparison | None, str]:
    """Return how a result differs from the reference, or why nothing can be said."""
    if (reference.file, reference.scoring) == (result.file, result.scoring):
        return None, "reference"
    try:
        return compare(reference.file.parent, result.file.parent, reference.scoring, result.scoring), ""
    except ResultsError:
        return None, "other episodes"


def _rows(runs: Sequence[Path]) -> Iterator[Row]:
    """Yield the scorings of all runs; the first run's own scoring is the reference."""
    reference = read_results(runs[:1])[0]
    for run in runs:
        own = {(result.file, result.scoring) for result in read_results([run])}
        seconds = (read_json(run / MARKER) or {}).get("seconds")
        for result in read_results([run], "all"):
            facts: dict[str, Any] = read_json(result.file.with_name("run.json")) or {}
            yield Row(result, (result.file, result.scoring) in own, *_versus(reference, result),
                      facts.get("trained_parameters"), seconds)


def build_board(runs: Sequence[Path]) -> Board:
    """Return the leaderboard of the directories of finished runs, the reference first. Raises ResultsError."""
    rows = list(_rows(runs))
    tables: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.result.setting.transductive, -row.result.score.accuracy)):
        s = row.result.setting
        kind, _, meaning = kind_words(s.transductive).partition(": ")
        title = (f"{s.data_set}, {s.way}-way {s.shot}-shot, {kind}{f' ({meaning})' if meaning else ''}; "
                 f"{s.episodes:,} {s.split} episodes, protocol {s.protocol}")
        tables.setdefault(title, []).append(row)
    first = next(row.result for row in rows if row.why == "reference")
    return Board(list(tables.items()), f"{first.setting.method}, {first.score.title}", NOTES)


def headings(board: Board) -> list[str]:
    """Return the heading of each column."""
    return [f"difference to {board.reference}" if name == "difference" else name for name in COLUMNS]


def markdown(board: Board) -> str:
    """Write the leaderboard as tables of GitHub's Markdown, the notes below."""
    parts = []
    for title, rows in board.tables:
        frame = pd.DataFrame([[escaped(cell) for cell in row.cells()] for row in rows],
                             columns=[escaped(name) for name in headings(board)])
        parts += [f"{escaped(title)}:", frame.to_markdown(index=False, disable_numparse=True)]
    return "\n\n".join([*parts, *(escaped(note) for note in board.notes)]) + "\n"
