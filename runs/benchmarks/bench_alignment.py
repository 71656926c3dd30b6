"""Measures OTAM forward and backward, both directions, against a cell-by-cell loop.

With a GPU also the Triton kernels against the plain code on it.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from models.layers.alignment import LARGEST_COST, both_directions, otam_distance
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.timing import Work, least_in_turns

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CUDA_FRAMES = (8, 16, 32, 64)


def works_cpu(shape: tuple[int, ...]) -> tuple[Work, Work]:
    """Return the loop and ours on costs of `shape` [M, K, T, T]: forward and backward, both directions."""
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return (lambda: both_directions(costs).sum().backward()), (
        lambda: otam_distance(costs, backend="plain", largest=LARGEST_COST).sum().backward())


def works_cuda(shape: tuple[int, ...]) -> tuple[Work, Work]:
    """Return the plain code and the Triton kernels on the GPU: forward and backward, both directions."""
    costs = torch.rand(shape, generator=torch.Generator().manual_seed(0)).cuda().requires_grad_()

    def step(backend: str) -> None:
        otam_distance(costs, backend=backend, largest=LARGEST_COST).sum().backward()

    return partial(step, "plain"), partial(step, "triton")


def least(works: tuple[Work, Work], repeats: int, device: torch.device = CPU) -> list[float]:
    """Return the least seconds of each work over `repeats` calls in a row."""
    return next(least_in_turns(works, 1, repeats, device))


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite."""
    return {"queries": 25, "ways": 5, "frames": 8, "rounds": 3 if quick else 5, "repeats": 3 if quick else 8}


def measure(done: Done = silent, *, queries: int, ways: int, frames: int, rounds: int, repeats: int) -> list[Row]:
    """Return the rows of the loop and of ours, and with a GPU of the kernels.

    Each round gives a row one value: the least time of `repeats` calls.
    """
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
    """Return rows of the ratio of two works and of the milliseconds of each, from their seconds by round."""
    times = list(found)
    each = [Row(f"{name}: {work}", "ms", [1e3 * pair[place] for pair in times], LOWER)
            for place, work in enumerate(works)]
    return [Row(name, "times", [slow / fast for slow, fast in times]), *each]
