"""Runs Triton kernels interpreted: TRITON_INTERPRET=1 python -m tests.models.layers.otam_interpreted IN OUT

Triton decides on its first import whether kernels are interpreted, and a full run of the tests may have imported it
long before. IN holds a list of cases (see `run`), OUT gets one (distances, gradient) for each.
"""

import sys
import warnings

import torch

from models.layers.alignment import otam_distance


def run(case: dict) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Distances and the gradient of sum(weights * distances); weights None: distances alone, without a graph."""
    if case["weights"] is None:
        return otam_distance(case["costs"], backend="triton", **case["options"]), None
    costs = case["costs"].requires_grad_()
    distances = otam_distance(costs, backend="triton", **case["options"])
    (gradient,) = torch.autograd.grad(distances, costs, case["weights"])
    return distances.detach(), gradient


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "overflow encountered in exp")  # exp(large) = inf is meant: 1 / (1 + inf) = 0
    torch.save([run(case) for case in torch.load(sys.argv[1])], sys.argv[2])
