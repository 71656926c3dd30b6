"""Render the demo's videos and split lists, and own clips of its kind for predict.py; nothing is downloaded."""

import argparse
import sys
import time
from pathlib import Path

from datasets.demo.own import render_own
from datasets.demo.render import class_names, render_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips and the split lists")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one per CPU core)")


def run(arguments: argparse.Namespace) -> None:
    """Render the data set and say in one line what lies where. Raises DemoError."""
    start = time.perf_counter()
    lists = render_demo(arguments.out, seed=arguments.seed, workers=arguments.workers)
    render_own(arguments.out / "own", arguments.seed)
    sizes = {split: len(path.read_text(encoding="utf-8").splitlines()) for split, path in lists.items()}
    counts = ", ".join(f"{split} {size} in {len(class_names(split))} classes" for split, size in sizes.items())
    sys.stdout.write(f"demo data set in {arguments.out}: {sum(sizes.values())} clips ({counts}), "
                     f"{time.perf_counter() - start:.0f} s\n")
