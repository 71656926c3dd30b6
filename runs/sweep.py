"""Run every combination of settings: python runs/sweep.py --cfg X.yaml --grid KEY=V1,V2 [--jobs N] [KEY VALUE ...]"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# As in runs/run.py: the generic package names must resolve to this checkout.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from runs.sweeps.execute import Outcome, execute, is_done  # noqa: E402
from runs.sweeps.grid import Combination, default_directory, plan  # noqa: E402
from runs.sweeps.slurm import script  # noqa: E402
from runs.table import build_table  # noqa: E402
from utils.errors import FewShotError, LaunchError, described  # noqa: E402

EXAMPLES = """examples:
  python runs/sweep.py --cfg configs/projects/demo/CLIPFSAR_Demo_1shot.yaml --grid TRAIN.SHOT=1,3,5 \\
      --grid PROTOCOL=upstream,clean --grid RANDOM_SEED=0,1,2 --jobs 2
  python runs/sweep.py --cfg A.yaml --cfg B.yaml --grid RANDOM_SEED=0,1,2 NUM_GPUS 1 --dry-run
  python runs/sweep.py --cfg A.yaml --grid 'SOLVER.STEPS=[0,4,6],[0,2,3]' --slurm sweep.sh --jobs 4

Each combination is a run of runs/run.py in a directory of its own, named by what varies, with its output in
output.log. The same command again skips what is done and goes on with what was stopped. Quote values that the shell
would change.
"""


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text!r}")
    return int(text)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """--cfg, --grid, --jobs, --slurm, --out, --dry-run, KEY VALUE pairs."""
    parser = argparse.ArgumentParser(
        prog="runs/sweep.py", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run every combination of settings, each once, and put the results into a table.", epilog=EXAMPLES)
    parser.add_argument("--cfg", required=True, action="append", type=Path, metavar="YAML",
                        help="project file; several: each with every combination")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=V1,V2,...",
                        help="a setting that varies, and its values; several: every combination of them")
    parser.add_argument("--jobs", type=_jobs, metavar="N", help="runs at the same time (default: 1)")
    parser.add_argument("--slurm", type=Path, metavar="FILE", help="write an sbatch array script instead of running")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="directory of the sweep (default: output/sweep_<project>)")
    parser.add_argument("--dry-run", action="store_true", help="check everything, show what would run, and stop")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings of every combination")
    return parser.parse_intermixed_args(arguments)


def _show(combinations: Sequence[Combination]) -> None:
    """The commands, and what is done already."""
    for combination in combinations:
        state = "done" if is_done(combination) else "to run"
        sys.stdout.write(f"{state}: {combination.name}\n  {shlex.join(combination.command())}\n")
    sys.stdout.write(f"{len(combinations)} combinations, {sum(map(is_done, combinations))} of them done\n")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"{path}: cannot be written ({error.strerror})") from error


def _write_slurm(file: Path, text: str, out: Path, count: int) -> None:
    """The script, and the directory its logs go to, which Slurm does not make."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(f"--out: {out}: cannot be made ({error.strerror})") from error
    _write(file, text)
    sys.stdout.write(f"{count} tasks, one a combination. Fill in partition, time and GPUs in {file}, then:\n"
                     f"  sbatch {shlex.quote(str(file))}\n"
                     "Relative paths in settings are taken from the checkout. The table comes when this command is "
                     "started again without --slurm: what is done is not run again.\n")


def _write_tables(done: Sequence[Combination], out: Path) -> None:
    """table.md and table.csv of what is done; the first on the screen, too."""
    from runs.tables.formats import FORMATS  # pandas loads only when there is something to write

    table = build_table([combination.directory for combination in done])
    text = FORMATS["markdown"](table)
    _write(out / "table.md", text)
    _write(out / "table.csv", FORMATS["csv"](table))
    sys.stdout.write(f"\n{text}\nWritten to {out}/table.md and table.csv\n")


def _report(outcome: Outcome, total: int) -> None:
    """What became of the sweep, the failures once more: the first may have scrolled away."""
    sys.stdout.write(f"{len(outcome.done)} of {total} combinations done, {len(outcome.failed)} failed\n")
    sys.stdout.flush()
    for failure in outcome.failed:
        sys.stderr.write(f"failed: {failure.combination.directory} ({failure.reason})\n")


def sweep(parsed: argparse.Namespace) -> int:
    """Plan, then show, write the Slurm script, or run; returns the exit status."""
    combinations = plan(parsed.cfg, parsed.grid, parsed.overrides, parsed.out)
    out = parsed.out or default_directory(parsed.cfg)
    if parsed.slurm:
        text = script(combinations, out, parsed.jobs)
        if parsed.dry_run:
            sys.stdout.write(text)
        else:
            _write_slurm(parsed.slurm, text, out, len(combinations))
        return 0
    if parsed.dry_run:
        _show(combinations)
        return 0
    outcome = execute(combinations, parsed.jobs or 1)
    _report(outcome, len(combinations))
    if outcome.interrupted:
        sys.stderr.write("interrupted; the same command goes on: it skips what is done, and the runs that were stopped "
                         "go on from their last checkpoints\n")
        return 130
    if outcome.done:
        _write_tables(outcome.done, out)
    return 1 if outcome.failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0; 1 after a message that says what to do, or when a combination failed; 130 after Ctrl-C."""
    parsed = parse_arguments(arguments)
    try:
        return sweep(parsed)
    except FewShotError as error:
        sys.stderr.write(f"\n{described(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted before anything ran\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
