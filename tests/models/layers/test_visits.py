"""Visiting probabilities of OTAM are those of all its alignments, listed one by one."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from models.layers.alignment import otam_distance, visiting_probabilities


def _every_path(rows: int, columns: int):
    """Every path of OTAM through the real cells, from the recursion of alignment/otam.py, walked backwards.

    Cells are (row, padded column); columns 0 and columns + 1 are padding. Paths end at the last row's last column.
    """
    def walk(row, column):
        if column == 0:
            yield []
            return
        if row == 0:
            before = [(0, column - 1)]
        else:
            before = [(row - 1, column - 1), (row, column - 1)]
            if column in (1, columns + 1):
                before.append((row - 1, column))
        for cell in before:
            for path in walk(*cell):
                yield [*path, (row, column)]

    for path in walk(rows - 1, columns + 1):
        yield [(row, column - 1) for row, column in path if 1 <= column <= columns]


def _visits(costs: np.ndarray, smoothing: float) -> np.ndarray:
    """Visiting probabilities by listing all paths with weight exp(-cost / smoothing)."""
    visits, total = np.zeros_like(costs), 0.0
    for path in _every_path(*costs.shape):
        weight = math.exp(-sum(costs[cell] for cell in path) / smoothing)
        total += weight
        for cell in path:
            visits[cell] += weight
    return visits / total


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (2, 5), (1, 4), (4, 1)])
def test_the_path_is_the_share_of_all_alignments_through_a_cell(shape, smoothing):
    costs = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))) * 2
    with torch.inference_mode():  # evaluation runs in it
        found = visiting_probabilities(costs, partial(otam_distance, smoothing=smoothing)).numpy()
    for k in range(2):
        np.testing.assert_allclose(found[k], _visits(costs[k].numpy(), smoothing), atol=1e-12)
    assert found[:, :, 1:].sum(axis=1) == pytest.approx(np.ones((2, shape[1] - 1)))  # each later column meets one
