"""These are the similarities of vectors and of frame sequences, as the published code computes them."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

EPSILON = 0.01  # added to the product of norms, not to each norm


def cos_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Compute cos(x, y) = x.y / (|x||y| + 0.01) of all pairs, [..., A, D] and [..., B, D] -> [..., A, B]."""
    norms = x.norm(dim=-1).unsqueeze(-1) * y.norm(dim=-1).unsqueeze(-2)
    return (x @ y.transpose(-1, -2)) / (norms + EPSILON)


def frame_costs(x: Tensor, y: Tensor) -> Tensor:
    """Compute 1 - cos(x, y) of all frames of all pairs of clips, [B, A, T, D] and [B, C, U, D] -> [B, A, C, T, U]."""
    frames = (rearrange(full_precision(clips), "b clips t d -> b (clips t) d") for clips in (x, y))
    return 1 - rearrange(cos_similarity(*frames), "b (a t) (c u) -> b a c t u", a=x.shape[1], c=y.shape[1])


def unit(x: Tensor) -> Tensor:
    """Return vectors divided by their norm, which counts as 1e-12 at least. [..., D]"""
    return F.normalize(full_precision(x), dim=-1, eps=1e-12)


def of_unit_vectors(products: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return inner products [..., A, B] of vectors divided by their norms, 1e-12 at least: cosines.

    Args:
        rows, columns: the vectors' inner products with their own kind, [..., A, A] and [..., B, B].
    """
    norms = (own.diagonal(dim1=-2, dim2=-1).clamp(min=1e-24).sqrt() for own in (rows, columns))
    return products / next(norms).unsqueeze(-1) / next(norms).unsqueeze(-2)


def full_precision(x: Tensor) -> Tensor:
    """The tensor in float32 where it is narrower, as under autocast; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
