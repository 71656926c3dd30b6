"""Times works in turns, so that what else the machine does falls on all alike."""

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from utils.config.layers import REPOSITORY

Work = Callable[[], object]
Found = TypeVar("Found")


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it (a GPU works on after a call has returned)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Work, device: torch.device | None = None, calls: int = 1) -> float:
    """Return the mean seconds of one of `calls` calls, waiting for the device before and after."""
    device = device or torch.device("cpu")
    wait_for(device)
    start = time.perf_counter()
    for _ in range(calls):
        work()
    wait_for(device)
    return (time.perf_counter() - start) / calls


def seconds_over(work: Work, device: torch.device, least: float) -> float:
    """Return the mean seconds of a call, over as many as take `least` seconds, after one that tells how many."""
    once = seconds(work, device)
    return once if once >= least else seconds(work, device, math.ceil(least / once))


def timed(work: Callable[[], Found]) -> tuple[float, Found]:
    """Return the seconds of one call, and what it returns."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def new_python(*arguments: str) -> Work:
    """Prepare a new python process with these arguments, whose start and imports count."""
    return lambda: subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=True, capture_output=True)


def least_in_turns(works: Sequence[Work], rounds: int, repeats: int,
                   device: torch.device | None = None) -> Iterator[list[float]]:
    """Yield for each of `rounds` the least seconds of each work over `repeats` calls in a row, and one to warm up."""
    for _ in range(rounds):
        yield [min(seconds(work, device) for _ in range(repeats + 1)) for work in works]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch so many threads inside the block, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
