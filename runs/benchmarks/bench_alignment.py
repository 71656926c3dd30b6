"""OTAM forward and backward against a cell-by-cell loop: python runs/benchmarks/bench_alignment.py

With a GPU also the Triton kernels against the plain code on it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from models.alignment import otam_distance  # noqa: E402


def cell_by_cell(costs: Tensor, smoothing: float = 0.5) -> Tensor:
    """The recursion of models/alignment/otam.py, one cell after the other, in one direction. [..., L, M] -> [...]"""
    padded = F.pad(costs, (1, 1))
    rows, columns = padded.shape[-2:]
    table = [[torch.zeros_like(padded[..., 0, 0])] * columns for _ in range(rows)]
    for m in range(1, columns):
        table[0][m] = table[0][m - 1] + padded[..., 0, m]
    for row in range(1, rows):
        for m in range(1, columns):
            reach = [table[row - 1][m - 1], table[row][m - 1]]
            if m in (1, columns - 1):
                reach.append(table[row - 1][m])
            soft = -smoothing * torch.logsumexp(torch.stack(reach) / -smoothing, dim=0)
            table[row][m] = padded[..., row, m] + soft
    return table[-1][-1]


def both_directions(costs: Tensor) -> Tensor:
    """Sum of the loop over costs and their transpose."""
    return cell_by_cell(costs) + cell_by_cell(costs.transpose(-1, -2))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Least time of one call over `repeats`, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(shape: tuple[int, ...], repeats: int) -> tuple[float, float]:
    """(seconds of the loop, seconds of ours), forward and backward, both directions."""
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loop = seconds(lambda: both_directions(costs).sum().backward(), repeats)
    ours = seconds(lambda: otam_distance(costs).sum().backward(), repeats)
    return loop, ours


def measure_cuda(shape: tuple[int, ...], repeats: int) -> tuple[float, float]:
    """(seconds of the plain code, seconds of the Triton kernels) on the GPU, forward and backward, both directions."""
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).cuda().requires_grad_()

    def step(backend: str) -> None:
        otam_distance(costs, backend=backend).sum().backward()
        torch.cuda.synchronize()

    return seconds(lambda: step("plain"), repeats), seconds(lambda: step("triton"), repeats)


def cuda_lines(queries: int, ways: int, repeats: int) -> list[str]:
    """What `measure_cuda` finds for clips of 8 to 64 frames, or why it was not run."""
    if not torch.cuda.is_available():
        return ["OTAM on CUDA: no GPU here, the Triton kernels were not measured"]
    lines = [f"OTAM on {torch.cuda.get_device_name()}, forward+backward, both directions:"]
    for frames in (8, 16, 32, 64):
        shape = (queries, ways, frames, frames)
        plain, kernels = measure_cuda(shape, repeats)
        lines.append(f"  {' x '.join(map(str, shape))}: plain {plain * 1e3:.3f} ms, Triton {kernels * 1e3:.3f} ms, "
                     f"ratio {plain / kernels:.1f}")
    return lines


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("queries", 25), ("ways", 5), ("frames", 8), ("repeats", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    shape = (args.queries, args.ways, args.frames, args.frames)
    loop, ours = measure(shape, args.repeats)
    sys.stdout.write(f"OTAM forward+backward, both directions, {' x '.join(map(str, shape))}: cell by cell "
                     f"{loop * 1e3:.2f} ms, here {ours * 1e3:.2f} ms, ratio {loop / ours:.1f}\n")
    sys.stdout.write("\n".join(cuda_lines(args.queries, args.ways, args.repeats)) + "\n")


if __name__ == "__main__":
    main()
