"""Every benchmark, one table, one JSON file; and what has changed since an earlier file.

python runs/benchmarks/run.py --out output/benchmarks.json
python runs/benchmarks/run.py --compare OLD.json [--strict]         (measures, then compares)
python runs/benchmarks/run.py --read NEW.json --compare OLD.json    (measures nothing)

Videos are rendered under --data the first time. A row's figure is the median of its repeats. --compare flags changes
over 5 % (--threshold) that lie outside the spread of the repeats of both runs; others over 5 % are "within noise". On
another machine only ratios ("times", "%") are judged, with other settings nothing.
"""

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

sys.path[0] = str(Path(__file__).resolve().parents[2])

from tqdm import tqdm  # noqa: E402

from runs.benchmarks import (  # noqa: E402
    bench_alignment,
    bench_decode,
    bench_evaluation,
    bench_loader,
    bench_ranks,
    bench_step,
)
from runs.benchmarks.arguments import not_negative  # noqa: E402
from runs.benchmarks.comparing import THRESHOLD, WORSE, changes, in_words, is_judged  # noqa: E402
from runs.benchmarks.progress import Bar  # noqa: E402
from runs.benchmarks.record import (  # noqa: E402
    Finding,
    Record,
    check_writable,
    new_record,
    read_record,
    write_record,
)
from runs.benchmarks.rows import Done, table  # noqa: E402
from utils.command import command  # noqa: E402
from utils.errors import BenchmarkError, FewShotError, described  # noqa: E402
from utils.signals import Stopped, number_of  # noqa: E402


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A part of the suite.

    Args:
        module: has settings(quick) -> arguments of its measure(...) -> rows.
        folders: of its videos, under --data, all and --quick; None: it has none.
        weight: seconds it takes on two cores, all and --quick, videos rendered: for the time left.
    """

    module: ModuleType
    folders: tuple[str, str] | None
    weight: tuple[float, float]

    def measure(self, data: Path, done: Done, quick: bool) -> Finding:
        """Run it. Raises FewShotError."""
        settings, start = self.module.settings(quick), time.perf_counter()
        place = {} if self.folders is None else {"data": data / self.folders[quick]}
        rows = self.module.measure(**place, done=done, **settings)
        return Finding(settings, rows, time.perf_counter() - start)


SUITE = {
    "decode": Benchmark(bench_decode, ("bench_loader", "bench_loader"), (20, 12)),
    "loader": Benchmark(bench_loader, ("bench_loader", "bench_loader"), (95, 30)),
    "alignment": Benchmark(bench_alignment, None, (1, 1)),
    "step": Benchmark(bench_step, None, (75, 50)),
    "evaluation": Benchmark(bench_evaluation, ("bench_evaluation", "bench_evaluation_quick"), (300, 25)),
    "ranks": Benchmark(bench_ranks, ("bench_ranks", "bench_ranks"), (240, 60)),
}


def run_suite(names: Sequence[str], data: Path, out: Path, quick: bool) -> Record:
    """Measure and write, after every benchmark; one that cannot run here is listed with its reason."""
    record, bar, written = new_record(), Bar({name: SUITE[name].weight[quick] for name in names}), False
    try:
        for name in names:
            try:
                record.findings[name] = SUITE[name].measure(data, bar.start(name), quick)
            except (FewShotError, OSError) as error:
                record.failed[name] = described(error)
                tqdm.write(f"{name}: {described(error)}", file=sys.stderr)
            bar.end(name)
            write_record(out, record)
            written = True
    except KeyboardInterrupt as stop:
        text = f"benchmarks that had ended are in {out}" if written else "no benchmark had ended, nothing was written"
        raise Stopped(number_of(stop), text) from stop
    finally:
        bar.close()
    return record


def _names(text: str) -> list[str]:
    """Names of --only, in the suite's order."""
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in SUITE]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SUITE)}, found {', '.join(map(repr, unknown))}")
    return [name for name in SUITE if name in wanted]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="runs/benchmarks/run.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, default=list(SUITE), metavar="NAME,...", help=", ".join(SUITE))
    parser.add_argument("--quick", action="store_true", help="small settings: whether everything runs, not how fast")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where rendered videos lie (default: data)")
    parser.add_argument("--out", type=Path, default=Path("output/benchmarks.json"), metavar="FILE.json",
                        help="default: output/benchmarks.json")
    parser.add_argument("--read", type=Path, metavar="NEW.json", help="take this file's figures, measure nothing")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="flag what has changed since")
    parser.add_argument("--threshold", type=not_negative, default=THRESHOLD, metavar="PERCENT", help="default: 5")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where --compare finds something worse, "
                        "or nothing that it can judge")
    parsed = parser.parse_args(arguments)
    if parsed.strict and not parsed.compare:
        parser.error("--strict needs --compare OLD.json")
    return parsed


def suite(parsed: argparse.Namespace) -> int:
    """Measure or read, print, compare; the exit status. Raises BenchmarkError."""
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


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0; 1 where a benchmark gave no figures, or where --strict says so. Raises BenchmarkError."""
    parsed = parse_arguments(arguments)
    logging.getLogger().setLevel(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)
    return suite(parsed)


if __name__ == "__main__":
    sys.exit(command(main))
