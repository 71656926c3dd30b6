"""Run every combination of settings, each once, and put the results into a table.

python runs/sweep.py --cfg X.yaml --grid KEY=V1,V2 [--jobs N] [KEY VALUE ...]
"""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  python runs/sweep.py --cfg configs/projects/demo/CLIPFSAR_Demo_1shot.yaml --grid TRAIN.SHOT=1,3,5 \\
      --grid PROTOCOL=upstream,clean --grid RANDOM_SEED=0,1,2 --jobs 2
  python runs/sweep.py --cfg A.yaml --cfg B.yaml --grid RANDOM_SEED=0,1,2 NUM_GPUS 1 --dry-run
  python runs/sweep.py --cfg configs/projects/demo --jobs 2
  python runs/sweep.py --cfg A.yaml --grid 'SOLVER.STEPS=[0,4,6],[0,2,3]' --slurm sweep.sh --jobs 4

Each combination is a run of runs/run.py in a directory of its own, named by what varies, with its output in
output.log. The same command again skips what is done and goes on with what was stopped. Quote values that the shell
would change.
"""


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --cfg, --grid, --jobs, --slurm, --out, --dry-run, KEY VALUE pairs."""
    parser.add_argument("--cfg", required=True, action="append", type=Path, metavar="YAML",
                        help="project file, or a directory of them; several: each with every combination")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=V1,V2,...",
                        help="a setting that varies, and its values; several: every combination of them")
    parser.add_argument("--jobs", type=_jobs, metavar="N", help="runs at the same time (default: 1)")
    parser.add_argument("--slurm", type=Path, metavar="FILE", help="write an sbatch array script instead of running")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="directory of the sweep (default: output/sweep_<project>)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, show what would run, and stop")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings of every combination")


def run(parsed: argparse.Namespace) -> int:
    """Run the sweep, show it, or write its Slurm script; 1 where a combination failed. Raises FewShotError."""
    from runs.sweeps.sweep import sweep

    return sweep(parsed)


if __name__ == "__main__":
    from clip_fsar import start

    start("sweep")
