"""Alignments give distances of two frame sequences: `ALIGNMENTS["otam"](costs, smoothing=0.5, single_direction=False)`.

Costs are 1 - cosine, so none exceeds LARGEST_COST: an alignment may rely on it, and must not read it from the costs.
`otam` is plain PyTorch; `otam_triton` the same distance by Triton kernels on a GPU, where Triton can be imported. They
become the default once a GPU has shown them to be faster. `otam_reference` goes cell by cell: slow, and easy to read.
`bimhm` matches frames without regard to their order.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.layers.alignment.bimhm import mean_hausdorff
from models.layers.alignment.otam import LARGEST_COST, otam_distance, otam_reference
from models.registries import ALIGNMENTS

ALIGNMENTS.register("otam")(partial(otam_distance, backend="plain", largest=LARGEST_COST))
ALIGNMENTS.register("otam_triton")(partial(otam_distance, largest=LARGEST_COST))
ALIGNMENTS.register("bimhm")(mean_hausdorff)


@ALIGNMENTS.register("otam_reference")
def both_directions(costs: Tensor, *, smoothing: float = 0.5, single_direction: bool = False) -> Tensor:
    """Compute the distance of `otam` by the readable recursion. [..., L, M] -> [...]"""
    forward = otam_reference(costs, smoothing)
    return forward if single_direction else forward + otam_reference(costs.transpose(-1, -2), smoothing)


__all__ = ["ALIGNMENTS", "LARGEST_COST", "mean_hausdorff", "otam_distance", "visiting_probabilities"]


def visiting_probabilities(costs_KTT: Tensor, distance: Callable[..., Tensor]) -> Tensor:
    """Tell how probably the alignment of a query to a class visits each cell, float64 [K, T, T].

    For OTAM with a soft minimum that is the gradient of the distance with respect to the costs (otam.py), so what is
    drawn is what was scored. It may be called where gradients are off, inside inference mode, too.

    Args:
        costs_KTT: costs of query frames (rows) against class frames (columns).
        distance: an entry of ALIGNMENTS, perhaps with its settings bound; it is asked for one direction only.
    """
    with torch.inference_mode(False), torch.enable_grad():
        costs = costs_KTT.detach().clone().double().requires_grad_()  # the clone is no inference tensor
        return torch.autograd.grad(distance(costs, single_direction=True).sum(), costs)[0]
