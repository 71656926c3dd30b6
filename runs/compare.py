"""Compare two tests of the same episodes, query by query: python runs/compare.py RUN_A RUN_B"""

import argparse
from pathlib import Path

EXAMPLES = "example: python runs/compare.py output/A output/B --scoring fused"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RUN_A, RUN_B, --scoring."""
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="directory of a tested run")
    parser.add_argument("run_b", type=Path, metavar="RUN_B")
    parser.add_argument("--scoring", metavar="NAME", help="default: what each run was configured for")


def run(parsed: argparse.Namespace) -> None:
    """Print the comparison. Raises ResultsError."""
    from runs.evaluation.paired import compare, in_words
    from utils.command import printed

    found = compare(parsed.run_a, parsed.run_b, parsed.scoring)
    printed(in_words(found, parsed.run_a, parsed.run_b))


if __name__ == "__main__":
    from clip_fsar import start

    start("compare")
