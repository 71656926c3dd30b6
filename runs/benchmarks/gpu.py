"""Measures everything that a GPU is needed for, in one run of under ten minutes.

It runs the suite's tests marked `gpu`, and measures training steps of ViT-B/16 and RN50 in every way that the keys
offer, OTAM alone, decoding and loading with transforms on the CPU and on the GPU, evaluation from ready features, and
two ranks where there are two GPUs. Weights are random, clips are rendered: no network and no data are needed.

A work that fails, or for which no time is left, is listed with its reason, and the others go on. The JSON is written
after each work. Goals stand beside what was measured.

Each part gets a share of the minutes that are left; each work runs in a process apart, which is ended when its part's
time is over. Shares of the card's rate are of dense bfloat16 matrix products, timed beside every turn. The plain step
is written_plainly of runs/benchmarks/steps.py, measured first in the same run.
"""

import argparse
import sys
from pathlib import Path

DEFAULT_MINUTES = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --minutes, --device, --quick, --only, --data, --out."""
    from runs.benchmarks.arguments import positive

    parser.add_argument("--minutes", type=positive, default=DEFAULT_MINUTES, help="in all (default: %(default)g)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda",
                        help="default: cuda; cpu only with --quick")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether every part runs, not how fast")
    parser.add_argument("--only", nargs="+", metavar="PART", default=[""],
                        help="parts whose names begin so: tests rates step alignment loading evaluation ranks")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where clips are rendered (default: data)")
    parser.add_argument("--out", type=Path, default=Path("output/gpu.json"), metavar="FILE.json",
                        help="default: output/gpu.json")


def check_device(device: str, quick: bool) -> None:
    """Raise BenchmarkError where the machine lacks the device, or the CPU would be busy for hours."""
    import torch

    from utils.errors import BenchmarkError

    if device == "cpu" and not quick:
        raise BenchmarkError("--device cpu: expected --quick beside it, as full sizes take a CPU hours")
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: expected a GPU that torch can use, found none. Run it on a machine with "
                             "one (goals are for an H100 or H200); --device cpu --quick tries every part, tiny, on "
                             "the CPU")


def run(parsed: argparse.Namespace) -> int:
    """Measure, write, print; 1 where nothing could be measured. Raises BenchmarkError, Stopped."""
    check_device(parsed.device, parsed.quick)
    from runs.benchmarks.gpu_goals import report
    from runs.benchmarks.gpu_parts import chosen, measure_parts, parts_of
    from runs.benchmarks.record import check_writable
    from runs.benchmarks.suite import quiet

    parts = chosen(parts_of(parsed.device, parsed.quick, parsed.data), parsed.only)
    check_writable(parsed.out)
    quiet()
    record = measure_parts(parts, parsed.out, parsed.minutes, {"device": parsed.device, "quick": parsed.quick})
    sys.stdout.write(f"{report(record)}\nWritten to {parsed.out}\n")
    return int(not record.findings)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where the other commands lie, and what starts them
    from clip_fsar import start

    start("benchmark", "gpu")
