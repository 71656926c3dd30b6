"""This is cosine similarity as the published code computes it."""

import torch
from torch import Tensor

EPSILON = 0.01  # added to the product of norms, not to each norm


def cos_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Compute cos(x, y) = x.y / (|x||y| + 0.01) of all pairs, [..., A, D] and [..., B, D] -> [..., A, B]."""
    norms = x.norm(dim=-1).unsqueeze(-1) * y.norm(dim=-1).unsqueeze(-2)
    return (x @ y.transpose(-1, -2)) / (norms + EPSILON)


def full_precision(x: Tensor) -> Tensor:
    """The tensor in float32 where it is narrower, as under autocast; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
