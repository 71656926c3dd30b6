"""Put the results of runs into a table for a paper: python runs/table.py RUNS... [--format latex] [--published]"""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  python runs/table.py output/CLIPFSAR_Demo_1shot
  python runs/table.py output/k100_1shot output/k100_5shot --published --format latex --out table.tex
  python runs/table.py output/sweep_CLIPFSAR_Demo_1shot/*/results.json --scoring all --format csv

Cells: mean +- 95 % interval over the test episodes, in percent. Runs that differ in their seed only are one cell: mean
+- sample standard deviation over the seeds. Footnotes tell apart what cannot be compared. CSV has one row a cell.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RUNS, --format, --published, --scoring, --out."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a finished run, or its results.json")
    parser.add_argument("--format", choices=("markdown", "latex", "csv"), default="markdown")
    parser.add_argument("--published", action="store_true",
                        help="add rows of published figures (quoted, not measured here)")
    parser.add_argument("--scoring", metavar="NAME",
                        help="how queries were scored, or all (default: as each run was configured)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write there instead of on the screen")


def run(parsed: argparse.Namespace) -> None:
    """Print the table, or write it. Raises ResultsError."""
    from runs.tables.table import build_table, write_table

    write_table(build_table(parsed.runs, scoring=parsed.scoring, published=parsed.published), parsed.format, parsed.out)


if __name__ == "__main__":
    from clip_fsar import start

    start("table")
