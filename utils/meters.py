"""Keep the running figures of a training loop."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import psutil
import torch

WINDOW = 50


class Meter:
    """Average over the last `window` episodes (with one rank: iterations): figures, seconds an iteration, the share of
    them spent waiting for data, the time left.

    Of `total` iterations `start` were done before. `values` are the last figures by name, filled in place: a restart
    hands over those of before, so that its means are those of a run that was never interrupted.
    """

    def __init__(self, total: int, start: int = 0, values: dict[str, list[float]] | None = None, window: int = WINDOW):
        self.total, self.done, self._waited = total, start, 0.0
        self._values = {} if values is None else values
        self._ticks: deque[tuple[float, int, float]] = deque([self._tick()], maxlen=window + 1)
        self._window = window

    def _tick(self) -> tuple[float, int, float]:
        """Return (now, iterations done, seconds waited so far)."""
        return time.perf_counter(), self.done, self._waited

    def wait(self, seconds: float) -> None:
        """Note how long the next iterations' data took to come."""
        self._waited += seconds

    def update(self, iterations: int = 1, **values: float | Sequence[float]) -> None:
        """Count more iterations with these figures; several of a name where there were several episodes."""
        self.done += iterations
        self._ticks.append(self._tick())
        for name, value in values.items():
            figures = self._values.setdefault(name, [])
            figures.extend([value] if isinstance(value, float) else value)
            del figures[:-self._window]

    def pause(self) -> None:
        """Leave out the time since the last iteration (a validation)."""
        self._ticks.clear()
        self._ticks.append(self._tick())

    def mean(self, name: str) -> float:
        """Return the mean of a figure over the window."""
        values = self._values.get(name, ())
        return sum(values) / len(values) if values else float("nan")

    @property
    def seconds(self) -> float:
        """Return the seconds an iteration takes, over the window."""
        (start, before, _), (end, done, _) = self._ticks[0], self._ticks[-1]
        return (end - start) / max(done - before, 1)

    @property
    def waiting(self) -> float:
        """Return the share of that time, 0..1, in which the loop waited for data."""
        (start, _, before), (end, _, waited) = self._ticks[0], self._ticks[-1]
        return (waited - before) / (end - start) if end > start else 0.0

    @property
    def eta(self) -> str:
        """Return the time left, h:mm:ss, without validations."""
        left = int(self.seconds * (self.total - self.done))
        return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"


def memory_line(device: torch.device) -> str:
    """Return the resident memory of this process and its workers, and the peak of the GPU, in GiB, as a line."""
    process = psutil.Process()
    resident = process.memory_info().rss
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            resident += child.memory_info().rss
    line = f"memory: {resident / 2**30:.2f} GiB resident with workers"
    if device.type == "cuda":
        line += f", {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB peak on the GPU"
    return line
