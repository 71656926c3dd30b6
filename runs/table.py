"""Results of runs as a table for a paper: python runs/table.py RUNS... [--format latex] [--published]"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

# As in runs/run.py: the generic package names must resolve to this checkout.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from runs.tables.cells import cells_of  # noqa: E402
from runs.tables.layout import Table, lay_out  # noqa: E402
from runs.tables.published import published_cells  # noqa: E402
from runs.tables.reading import SCORINGS, read_results  # noqa: E402
from utils.errors import FewShotError, ResultsError, described  # noqa: E402

EXAMPLES = """examples:
  python runs/table.py output/CLIPFSAR_Demo_1shot
  python runs/table.py output/k100_1shot output/k100_5shot --published --format latex --out table.tex
  python runs/table.py output/sweep_CLIPFSAR_Demo_1shot/*/results.json --scoring all --format csv

Cells: mean +- 95 % interval over the test episodes, in percent. Runs that differ in their seed only are one cell: mean
+- sample standard deviation over the seeds. Footnotes tell apart what cannot be compared. CSV has one row a cell.
"""


def build_table(runs: Iterable[str | Path], *, scoring: str | None = None, published: bool = False) -> Table:
    """The table of run directories or results.json files.

    Args:
        scoring: prototypes, fused, text or all; None: the scoring each run was configured for.
        published: add the published figures of the columns.

    Raises:
        ResultsError: a run without results, or results that lack a key.
    """
    cells = cells_of(read_results(runs, scoring))
    if published:
        cells += published_cells({cell.column for cell in cells})
    return lay_out(cells)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """RUNS, --format, --published, --scoring, --out."""
    parser = argparse.ArgumentParser(
        prog="runs/table.py", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Results of runs as a table for a paper.", epilog=EXAMPLES)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a finished run, or its results.json")
    parser.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown")
    parser.add_argument("--published", action="store_true",
                        help="add rows of published figures (quoted, not measured here)")
    parser.add_argument("--scoring", choices=(*SCORINGS, "all"),
                        help="how queries were scored (default: as each run was configured)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of on the screen")
    return parser.parse_intermixed_args(arguments)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"--out: {out}: cannot be written ({error.strerror})") from error
    sys.stdout.write(f"Written to {out}\n")


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 after a message that says what to do."""
    parsed = parse_arguments(arguments)
    try:
        table = build_table(parsed.runs, scoring=parsed.scoring, published=parsed.published)
        from runs.tables.formats import FORMATS  # pandas loads only when there is something to write

        _write(FORMATS[parsed.format](table), parsed.out)
    except FewShotError as error:
        sys.stderr.write(f"\n{described(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
