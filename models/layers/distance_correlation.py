"""This is the representation of a frame by how its features' channels depend on each other over the patches.

Distances between channels, taken to a power and centred, are what distance correlation compares (Szekely et al., 2007;
for pictures: Xie et al., CVPR 2022, arXiv 2204.04567; with the power alpha: Long et al., AAAI 2026, arXiv 2512.11340).
It is written from the formula: D_ij = |X_i - X_j|^2 / 2P, A = (D + 1e-5)^alpha, centred by rows, columns and all.
"""

import torch
from torch import Tensor

EPSILON = 1e-5


def distance_covariance(x_XDP: Tensor, alpha: float) -> Tensor:
    """Return the upper triangle of the centred matrix A, row after row, [..., D (D + 1) / 2], without autocast.

    Args:
        x_XDP: D channels with P observations each, [..., D, P]. alpha: the power of the squared distance.
    """
    with torch.autocast(x_XDP.device.type, enabled=False):
        gram = x_XDP @ x_XDP.transpose(-1, -2) / (2 * x_XDP.shape[-1])
    own = gram.diagonal(dim1=-2, dim2=-1)
    powered = ((own.unsqueeze(-1) + own.unsqueeze(-2) - 2 * gram).clamp(min=0) + EPSILON) ** alpha
    centred = (powered - powered.mean(dim=-1, keepdim=True) - powered.mean(dim=-2, keepdim=True)
               + powered.mean(dim=(-2, -1), keepdim=True))
    rows, columns = torch.triu_indices(*gram.shape[-2:], device=gram.device)
    return centred[..., rows, columns]
