"""Compute learning rates as functions of the iteration (SOLVER)."""

import math
from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Give the learning rate of an iteration: a policy of progress with a linear warm-up."""

    base_lr: float  # after the warm-up
    steps_iter: int  # iterations of one unit of progress
    steps: tuple[float, ...]  # progress at which each factor of base_lr starts (policy steps_with_relative_lrs)
    factors: tuple[float, ...]
    warmup: float  # its length in progress
    warmup_start_lr: float  # at iteration 0
    policy: str = "steps_with_relative_lrs"  # or cosine, or cosine_late: that of the iteration before
    end: float = 10.0  # progress at which cosine ends
    double: bool = True  # published progress, floor(i / steps_iter) + i / steps_iter; else i / steps_iter

    def progress(self, iteration: int) -> float:
        """Return the progress at an iteration (from 0)."""
        passed = iteration / self.steps_iter
        return iteration // self.steps_iter + passed if self.double else passed

    def _policy(self, progress: float) -> float:
        if self.policy.startswith("cosine"):
            return self.base_lr * (math.cos(math.pi * min(progress / self.end, 1.0)) + 1.0) * 0.5
        return self.base_lr * self.factors[max(bisect_right(self.steps, progress) - 1, 0)]

    def __call__(self, iteration: int) -> float:
        """Return the learning rate of an iteration (from 0)."""
        progress = self.progress(max(iteration - 1, 0) if self.policy == "cosine_late" else iteration)
        if progress >= self.warmup:
            return self._policy(progress)
        rise = self._policy(self.warmup) - self.warmup_start_lr
        return self.warmup_start_lr + rise * progress / self.warmup
