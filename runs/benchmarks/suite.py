"""The benchmarks, each alone or all as a suite with one table and one record."""

import argparse
import importlib
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from runs.benchmarks.arguments import add_settings
from runs.benchmarks.comparing import WORSE, changes, in_words, is_judged
from runs.benchmarks.progress import Bar
from runs.benchmarks.record import Finding, Record, check_writable, new_record, read_record, write_record
from runs.benchmarks.rows import Done, table
from utils.errors import BenchmarkError, FewShotError, described
from utils.signals import Stopped, number_of


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Says what one benchmark is, without importing it.

    Args:
        module: its file in runs/benchmarks, which has settings(quick) -> arguments of its measure(...) -> rows.
        folders: of its videos, under --data, for all and for --quick; None: it has none.
        weight: seconds it takes on two cores, all and --quick, once videos are rendered; None: not in the suite.
    """

    module: str
    folders: tuple[str, str] | None
    weight: tuple[float, float] | None

    def load(self) -> ModuleType:
        """Import the benchmark's module."""
        return importlib.import_module(f"runs.benchmarks.{self.module}")

    def measure(self, settings: dict[str, Any], folder: Path | None, done: Done) -> Finding:
        """Run the benchmark on its videos in `folder`. Raises FewShotError."""
        start = time.perf_counter()
        data = {} if folder is None else {"data": folder}
        rows = self.load().measure(**data, done=done, **settings)
        return Finding(settings, rows, time.perf_counter() - start)

    def folder(self, data: Path, quick: bool) -> Path | None:
        """The folder of its videos under `data`."""
        return None if self.folders is None else data / self.folders[quick]


BENCHMARKS = {
    "decode": Benchmark("bench_decode", ("bench_loader", "bench_loader"), (20, 12)),
    "loader": Benchmark("bench_loader", ("bench_loader", "bench_loader"), (95, 30)),
    "alignment": Benchmark("bench_alignment", None, (1, 1)),
    "step": Benchmark("bench_step", None, (75, 50)),
    "encode": Benchmark("bench_encode", None, (60, 5)),
    "evaluation": Benchmark("bench_evaluation", ("bench_evaluation", "bench_evaluation_quick"), (300, 25)),
    "ranks": Benchmark("bench_ranks", ("bench_ranks", "bench_ranks"), (240, 60)),
    "kinds": Benchmark("bench_kinds", ("bench_kinds", "bench_kinds"), None),
    "heads": Benchmark("bench_heads", None, None),
    "own": Benchmark("bench_own", ("bench_own", "bench_own"), None),
    "export": Benchmark("bench_export", None, None),
    "growth": Benchmark("bench_growth", None, None),
    "start": Benchmark("bench_start", ("bench_start", "bench_start"), None),
    "check": Benchmark("bench_check", ("bench_check", "bench_check"), None),
}
SUITE = {name: benchmark for name, benchmark in BENCHMARKS.items() if benchmark.weight}


def quiet() -> None:
    """Keep what the measured code logs and warns of off the screen."""
    logging.getLogger().setLevel(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)


class Single:
    """The command that runs one benchmark: an option for each of its settings, and its rows on the screen."""

    def __init__(self, name: str, benchmark: Benchmark):
        self.name, self.benchmark, self.module = name, benchmark, benchmark.load()
        self.__doc__ = self.module.__doc__

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the benchmark's settings."""
        if self.benchmark.folders:
            parser.add_argument("--data", type=Path, default=self.benchmark.folder(Path("data"), False),
                                help="folder of its videos, rendered there the first time (default: %(default)s)")
        add_settings(parser, self.module.settings(False))

    def run(self, parsed: argparse.Namespace) -> None:
        """Measure and print. Raises FewShotError."""
        quiet()
        settings = {name: getattr(parsed, name) for name in self.module.settings(False)}
        with Bar({self.name: 1.0}) as bar:
            found = self.benchmark.measure(settings, getattr(parsed, "data", None), bar.begin(self.name))
        sys.stdout.write(table((self.name, row) for row in found.rows))


def run_suite(names: Sequence[str], data: Path, out: Path, quick: bool) -> Record:
    """Measure, and write the record after every benchmark; one that cannot run here is listed with its reason.

    Raises Stopped, which says what has been written, and BenchmarkError where nothing can be written.
    """
    record, written = new_record(), False
    bar = Bar({name: (SUITE[name].weight or (1, 1))[quick] for name in names})
    try:
        for name in names:
            try:
                settings = SUITE[name].load().settings(quick)
                record.findings[name] = SUITE[name].measure(settings, SUITE[name].folder(data, quick), bar.begin(name))
            except (FewShotError, OSError) as error:
                record.failed[name] = described(error)
                tqdm.write(f"{name}: {described(error)}", file=sys.stderr)
            write_record(out, record)
            written = True
    except KeyboardInterrupt as stop:
        text = f"benchmarks that had ended are in {out}" if written else "no benchmark had ended, nothing was written"
        raise Stopped(number_of(stop), text) from stop
    finally:
        bar.close()
    return record


def names(text: str) -> list[str]:
    """Read the names of --only, and return them in the suite's order."""
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in SUITE]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SUITE)}, found {', '.join(map(repr, unknown))}")
    return [name for name in SUITE if name in wanted]


def suite(parsed: argparse.Namespace) -> int:
    """Measure or read, print, compare; returns the exit status.

    Args:
        parsed: only, quick, data, out, read, compare, threshold, strict of the command line (runs/benchmarks/run.py).

    Raises:
        BenchmarkError: a record that cannot be read or written, or --strict without anything that could be compared.
    """
    if parsed.strict and not parsed.compare:
        raise BenchmarkError("--strict: expected --compare OLD.json beside it, found none")
    quiet()
    old = read_record(parsed.compare) if parsed.compare else None  # before minutes of measuring
    if not parsed.read:
        check_writable(parsed.out)
    record = read_record(parsed.read) if parsed.read else run_suite(parsed.only, parsed.data, parsed.out, parsed.quick)
    if record.findings:
        sys.stdout.write(table(record.rows()))
    for name, reason in record.failed.items():
        sys.stdout.write(f"{name}: not measured: {reason}\n")
    sys.stdout.write("" if parsed.read else f"\nWritten to {parsed.out}\n")
    failed = bool(record.failed and not parsed.read)
    if old is not None:
        found = list(changes(old, record, parsed.threshold))
        sys.stdout.write("\n" + in_words(old, record, found, parsed.threshold))
        if parsed.strict and not any(map(is_judged, found)):
            raise BenchmarkError(f"--strict: nothing was compared: none of the {len(found)} rows could be judged "
                                 f"against {parsed.compare}")
        failed |= parsed.strict and any(change.verdict == WORSE for change in found)
    return int(failed)
