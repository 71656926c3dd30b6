"""Measure where the time of a training step goes: named phases, which cost nothing unless somebody records them.

The loop has data wait, backward and optimizer; a head adds its parts, such as encoder. None lies within another.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch.profiler import record_function


class Recorder:
    """Add up the seconds of each phase while `recording` lasts. On a GPU each phase begins and ends with a wait for the
    device, so that its work is counted where it was asked for."""

    def __init__(self, device: torch.device):
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device = device

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block, and mark it in a trace of torch.profiler."""
        start = self._now()
        with record_function(name):
            yield
            end = self._now()
        self.seconds[name] += end - start


_RECORDER: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Record this thread's phases in this block."""
    token = _RECORDER.set(recorder)
    try:
        yield
    finally:
        _RECORDER.reset(token)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Time this block, or the function that it decorates, as a part of a step while somebody records."""
    recorder = _RECORDER.get()
    with recorder.phase(name) if recorder else nullcontext():
        yield
