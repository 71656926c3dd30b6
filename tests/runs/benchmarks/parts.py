"""A benchmark of the suite that measures what a test says."""

from collections.abc import Callable
from types import SimpleNamespace

from runs.benchmarks.suite import Benchmark


def part(measure: Callable, settings: Callable[[bool], dict] = lambda quick: {}) -> Benchmark:
    """A benchmark without videos whose module has these two functions."""
    class Part(Benchmark):
        def load(self):
            return SimpleNamespace(settings=settings, measure=measure)

    return Part("", None, (2, 1))
