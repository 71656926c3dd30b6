"""Write tables of runs as one page (board.html), in the style of the report: one file that needs no network."""

from collections.abc import Sequence
from pathlib import Path

from runs.reporting.report import page_style, page_template
from utils.files import whole_file


def write_board(path: Path, title: str, headings: Sequence[str],
                tables: Sequence[tuple[str, Sequence[tuple[Sequence[str], str]]]], notes: Sequence[str]) -> None:
    """Write the page; the file is never half there.

    Args:
        path: the file, in a directory that exists.
        headings: of the columns; the first two name the row.
        tables: (heading, rows), a row its cells and the address of its own page, relative to this one ("": none).
        notes: sentences below the tables.
    """
    page = page_template("board.html").render(title=title, headings=headings, tables=tables, notes=notes,
                                              style=page_style())
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")
