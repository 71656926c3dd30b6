"""OTAM forward and backward against a cell-by-cell loop: python runs/benchmarks/bench_alignment.py

With a GPU also the Triton kernels against the plain code on it.
"""

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from models.layers.alignment.otam import otam_distance, otam_reference  # noqa: E402
from runs.benchmarks.arguments import whole  # noqa: E402
from runs.benchmarks.rows import LOWER, Done, Row, silent  # noqa: E402
from runs.benchmarks.timing import Work, least_in_turns  # noqa: E402
from utils.command import command  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CUDA_FRAMES = (8, 16, 32, 64)


def both_directions(costs: Tensor) -> Tensor:
    """Sum of the loop over costs and their transpose."""
    return otam_reference(costs) + otam_reference(costs.transpose(-1, -2))


def works_cpu(shape: tuple[int, ...]) -> tuple[Work, Work]:
    """(the loop, ours) on costs of `shape` [M, K, T, T]: forward and backward, both directions."""
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return (lambda: both_directions(costs).sum().backward()), (lambda: otam_distance(costs).sum().backward())


def works_cuda(shape: tuple[int, ...]) -> tuple[Work, Work]:
    """(the plain code, the Triton kernels) on the GPU: forward and backward, both directions."""
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).cuda().requires_grad_()

    def step(backend: str) -> None:
        otam_distance(costs, backend=backend).sum().backward()

    return partial(step, "plain"), partial(step, "triton")


def least(works: tuple[Work, Work], repeats: int, device: torch.device = CPU) -> list[float]:
    """Least seconds of each work over `repeats` calls in a row."""
    return next(least_in_turns(works, 1, repeats, device))


def settings(quick: bool) -> dict[str, Any]:
    """Arguments of `measure` in the suite."""
    return {"queries": 25, "ways": 5, "frames": 8, "rounds": 3 if quick else 5, "repeats": 3 if quick else 8}


def measure(done: Done = silent, *, queries: int, ways: int, frames: int, rounds: int, repeats: int) -> list[Row]:
    """Rows of the loop and ours, and with a GPU of the kernels; a value a round, the least of `repeats` calls."""
    cuda = torch.cuda.is_available()
    rows = _rows(f"OTAM of {frames} frames against cell by cell", ("cell by cell", "OTAM"),
                 least_in_turns(works_cpu((queries, ways, frames, frames)), rounds, repeats))
    done(1 / 3 if cuda else 1)
    for place, length in enumerate(CUDA_FRAMES if cuda else ()):
        found = least_in_turns(works_cuda((queries, ways, length, length)), rounds, repeats, CUDA)
        rows += _rows(f"OTAM of {length} frames on the GPU, kernels against plain code", ("plain", "kernels"), found)
        done((1 + 2 * (place + 1) / len(CUDA_FRAMES)) / 3)
    return rows


def _rows(name: str, works: tuple[str, str], found: Iterable[list[float]]) -> list[Row]:
    """The ratio of two works and the milliseconds of each, from their seconds by round."""
    times = list(found)
    each = [Row(f"{name}: {work}", "ms", [1e3 * pair[place] for pair in times], LOWER)
            for place, work in enumerate(works)]
    return [Row(name, "times", [slow / fast for slow, fast in times]), *each]


def cuda_lines(queries: int, ways: int, repeats: int) -> list[str]:
    """What the GPU takes for clips of 8 to 64 frames, or why it was not run."""
    if not torch.cuda.is_available():
        return ["OTAM on CUDA: no GPU here, the Triton kernels were not measured"]
    lines = [f"OTAM on {torch.cuda.get_device_name()}, forward+backward, both directions:"]
    for frames in CUDA_FRAMES:
        shape = (queries, ways, frames, frames)
        plain, kernels = least(works_cuda(shape), repeats, CUDA)
        lines.append(f"  {' x '.join(map(str, shape))}: plain {plain * 1e3:.3f} ms, Triton {kernels * 1e3:.3f} ms, "
                     f"ratio {plain / kernels:.1f}")
    return lines


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("queries", 25), ("ways", 5), ("frames", 8), ("repeats", 20)):
        parser.add_argument(f"--{name}", type=whole(), default=value)
    args = parser.parse_args()
    shape = (args.queries, args.ways, args.frames, args.frames)
    loop, ours = least(works_cpu(shape), args.repeats)
    sys.stdout.write(f"OTAM forward+backward, both directions, {' x '.join(map(str, shape))}: cell by cell "
                     f"{loop * 1e3:.2f} ms, here {ours * 1e3:.2f} ms, ratio {loop / ours:.1f}\n")
    sys.stdout.write("\n".join(cuda_lines(args.queries, args.ways, args.repeats)) + "\n")


if __name__ == "__main__":
    sys.exit(command(main))
