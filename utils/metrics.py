"""Accuracy and its interval. E episodes, M queries, K ways."""

import math
from collections.abc import Sequence

from torch import Tensor

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def correct_queries(logits_MK: Tensor, labels_M: Tensor) -> Tensor:
    """Whether the best score is the query's own class. bool [M]. Ties and NaN go to argmax's first."""
    return logits_MK.argmax(dim=1) == labels_M


def mean_interval(values_E: Sequence[float]) -> tuple[float, float]:
    """(mean, half width of the 95 % interval of the mean over independent episodes); half width 0 for one value."""
    count = len(values_E)
    if not count:
        raise ValueError("expected at least one episode, found none")
    mean = math.fsum(values_E) / count
    if count == 1:
        return mean, 0.0
    variance = math.fsum((v - mean) ** 2 for v in values_E) / (count - 1)
    return mean, Z95 * math.sqrt(variance / count)
