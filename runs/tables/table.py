"""The table of some runs, from their files to the file or the screen it is written to."""

import sys
from collections.abc import Iterable
from pathlib import Path

from runs.tables.cells import cells_of
from runs.tables.formats import FORMATS
from runs.tables.layout import Table, lay_out
from runs.tables.published import published_cells
from runs.tables.reading import read_results
from utils.command import printed
from utils.errors import ResultsError


def build_table(runs: Iterable[str | Path], *, scoring: str | None = None, published: bool = False) -> Table:
    """Return the table of run directories or results.json files.

    Args:
        scoring: the name of a scoring, or all; None takes the scoring that each run was configured for.
        published: add the published figures of the columns.

    Raises:
        ResultsError: a run without results, or results that lack a key.
    """
    cells = cells_of(read_results(runs, scoring))
    if published:
        cells += published_cells({cell.column for cell in cells})
    return lay_out(cells)


def write_table(table: Table, form: str, out: Path | None) -> None:
    """Write a table to a file, or to the screen where `out` is None.

    Args:
        form: markdown, latex or csv.

    Raises:
        ResultsError: the file cannot be written.
    """
    text = FORMATS[form](table)
    if out is None:
        printed(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"--out: {out}: cannot be written ({error.strerror})") from error
    sys.stdout.write(f"Written to {out}\n")
