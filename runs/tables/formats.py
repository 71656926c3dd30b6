"""Writes a Table as Markdown, LaTeX (booktabs) or CSV (long form: one row a cell)."""

from collections.abc import Callable

import pandas as pd

from runs.tables.layout import Entry, Table
from utils.command import csv_cell

# Columns of the long form, accuracies in percent; a published figure has no more than its source says.
LONG = ("method", "backbone", "scoring", "row", "data_set", "column", "shot", "accuracy", "interval95",
        "interval95_videos_low", "interval95_videos_high", "seeds", "seed_deviation", "seed", "best", "way", "query",
        "episodes", "frames", "temporal_draws", "protocol", "split", "selected_on", "text_weight", "train_list",
        "val_list", "test_list", "list_id", "list_sha256", "episode_seed", "episodes_sha256", "iteration",
        "bad_videos", "transductive", "texts", "pretraining", "seen_test_classes", "settings", "published", "source",
        "sure", "runs")

_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\|*<`["} | {"\n": " ", "\r": " "})
_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "\n": " ", "\r": " ",
    "[": "{[}"})  # a row that starts with [ would be taken for an option of the line break before it


def _frame(table: Table, write: Callable[[Entry], str], escape: Callable[[str], str], empty: str) -> pd.DataFrame:
    """Return the table as text, cell by cell."""
    rows = [[escape(label), *(write(row[column]) if column in row else empty for column in table.titles)]
            for label, row in table.rows]
    return pd.DataFrame(rows, columns=["Method", *map(escape, table.titles.values())])


def escaped(text: str) -> str:
    """Return a text as a cell, or a paragraph, of Markdown."""
    return text.translate(_MARKDOWN)


def _markdown_cell(entry: Entry) -> str:
    mean = f"**{entry.mean}**" if entry.best else entry.mean
    spread = f" +- {entry.spread}" if entry.spread else ""
    seeds = f" {entry.seeds}" if entry.seeds else ""
    return mean + spread + seeds + (f" <sup>{entry.mark}</sup>" if entry.mark else "")


def markdown(table: Table) -> str:
    """Write a table of GitHub's Markdown, the notes below."""
    frame = _frame(table, _markdown_cell, escaped, "-")
    notes = [f"<sup>{mark}</sup> {escaped(text)}" if mark else escaped(text) for mark, text in table.notes]
    # Numbers are text by now: numparse would cut '97.0' to '97'.
    return frame.to_markdown(index=False, disable_numparse=True) + "\n\n" + "\n\n".join(notes) + "\n"


def _latex_text(text: str) -> str:
    return text.translate(_LATEX).replace("+-", r"$\pm$")


def _latex_cell(entry: Entry) -> str:
    mean = rf"\textbf{{{entry.mean}}}" if entry.best else entry.mean
    spread = rf" $\pm$ {entry.spread}" if entry.spread else ""
    seeds = f" {entry.seeds}" if entry.seeds else ""
    return mean + spread + seeds + (rf"\textsuperscript{{{entry.mark}}}" if entry.mark else "")


def latex(table: Table) -> str:
    """Write a table environment with a booktabs tabular, the notes as a paragraph below."""
    frame = _frame(table, _latex_cell, _latex_text, "--")
    tabular = frame.to_latex(index=False, escape=False, column_format="l" + "c" * len(table.titles)).strip()
    notes = [(rf"\textsuperscript{{{mark}}}~" if mark else "") + _latex_text(text) for mark, text in table.notes]
    return "\n".join([r"% needs \usepackage{booktabs} in the preamble", r"\begin{table}", r"\centering", tabular, "",
                      r"\medskip", r"\begin{minipage}{\linewidth}", r"\footnotesize", "\n\n".join(notes),
                      r"\end{minipage}", r"\end{table}", ""])


def long_form(table: Table) -> str:
    """Write CSV, one row a cell, each key in its own column."""
    rows = [{**entry.cell.record, "row": label, "column": table.titles[column], "best": entry.best}
            for label, row in table.rows for column, entry in row.items()]
    frame = pd.DataFrame(rows, columns=LONG, dtype=object)  # object: counts stay whole numbers
    return frame.map(lambda value: csv_cell(value) if isinstance(value, str) else value).to_csv(index=False)


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "latex": latex, "csv": long_form}
