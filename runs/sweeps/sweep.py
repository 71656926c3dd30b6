"""A sweep from its settings to its table."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from runs.sweeps.execute import Outcome, execute, is_done
from runs.sweeps.grid import Combination, default_directory, plan
from runs.sweeps.slurm import script
from utils.command import printed
from utils.errors import ConfigError, LaunchError
from utils.signals import Stopped


def sweep(settings: argparse.Namespace) -> int:
    """Plan a sweep, then show it, write its Slurm script, or run it.

    Args:
        settings: cfg, grid, overrides, out, jobs, slurm, dry_run of the command line (runs/sweep.py).

    Returns:
        The exit status: 1 where a combination failed.

    Raises:
        ConfigError: settings that cannot be meant. LaunchError: a file that cannot be written. Stopped: by a signal.
    """
    out = settings.out or default_directory(settings.cfg)
    combinations = plan(_project_files(settings.cfg), settings.grid, settings.overrides, out)
    if settings.slurm:
        text = script(combinations, out, settings.jobs)
        if settings.dry_run:
            printed(text)
        else:
            _write_slurm(settings.slurm, text, out, len(combinations))
        return 0
    if settings.dry_run:
        _show(combinations)
        return 0
    outcome = execute(combinations, settings.jobs or 1)
    _report(outcome, len(combinations))
    if outcome.stopped_by:
        raise Stopped(outcome.stopped_by, "the same command goes on: it skips what is done, and the runs that were "
                                          "stopped go on from their last checkpoints")
    if outcome.done:
        _write_tables(outcome.done, out)
    if len({combination.project for combination in outcome.done}) > 1:
        _write_board(outcome.done, out)
    return 1 if outcome.failed else 0


def _project_files(given: Sequence[Path]) -> list[Path]:
    """Return the project files that --cfg names, those of a directory by name. Raises ConfigError on an empty one."""
    found: list[Path] = []
    for path in given:
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not files:
            raise ConfigError([f"--cfg: {path}: expected a directory with project files, found no .yaml file"])
        found += files
    return found


def _show(combinations: Sequence[Combination]) -> None:
    """Print the commands, and which of them are done already."""
    for combination in combinations:
        state = "done" if is_done(combination) else "to run"
        printed(f"{state}: {combination.name}\n  {shlex.join(combination.command())}\n")
    printed(f"{len(combinations)} combinations, {sum(map(is_done, combinations))} of them done\n")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"{path}: cannot be written ({error.strerror})") from error


def _write_slurm(file: Path, text: str, out: Path, count: int) -> None:
    """Write the script, and make the directory of its logs, which Slurm does not make."""
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
    """Write table.md and table.csv of what is done, and print the first."""
    from runs.tables.formats import FORMATS  # pandas loads only when there is something to write
    from runs.tables.table import build_table

    table = build_table([combination.directory for combination in done])
    text = FORMATS["markdown"](table)
    _write(out / "table.md", text)
    _write(out / "table.csv", FORMATS["csv"](table))
    sys.stdout.write(f"\n{text}\nWritten to {out}/table.md and table.csv\n")


def _write_board(done: Sequence[Combination], out: Path) -> None:
    """Write leaderboard.md and leaderboard.html of what is done, and print the first."""
    from runs.reporting.board import write_board
    from runs.sweeps.board import build_board, headings, markdown

    board = build_board([combination.directory for combination in done])
    text = markdown(board)
    _write(out / "leaderboard.md", text)
    tables = [(title, [(row.cells(), _address(row.result.file, out)) for row in rows]) for title, rows in board.tables]
    write_board(out / "leaderboard.html", f"Leaderboard of {len(done)} runs", headings(board), tables, board.notes)
    sys.stdout.write(f"\n{text}\nWritten to {out}/leaderboard.md; look at {out}/leaderboard.html\n")


def _address(results: Path, out: Path) -> str:
    """Return the address of a run's own page from a page in `out`."""
    page = results.with_name("report.html")
    return quote(str(page.relative_to(out))) if page.is_file() else ""


def _report(outcome: Outcome, total: int) -> None:
    """Print what became of the sweep, with the failures once more: the first may have scrolled away."""
    sys.stdout.write(f"{len(outcome.done)} of {total} combinations done, {len(outcome.failed)} failed\n")
    sys.stdout.flush()
    for failure in outcome.failed:
        sys.stderr.write(f"failed: {failure.combination.directory} ({failure.reason})\n")
