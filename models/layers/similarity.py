"""These are the similarities of vectors and of frame sequences, as the published code computes them."""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Products:
    """Holds inner products of frames of queries and of supports: all that is needed of frames that were never made.

    Args:
        cross: of query frames (rows) and support frames, [B, M, U, T, T], U supports.
        support: of the frames of a support, as each query sees them, [B, M, U, T, T].
        query: of the frames of a query, [B, M, T, T].
    """

    cross: Tensor
    support: Tensor
    query: Tensor

    @property
    def costs(self) -> Tensor:
        """Gives 1 - cosine of every query frame with every support frame. [B, M, U, T, T]"""
        return 1 - cosines(self.cross, self.query.unsqueeze(2), self.support)


def cosines(products: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosines of vectors from their inner products, [..., A, B]; a norm counts as 1e-12 at least.

    Args:
        rows, columns: the inner products of each side with itself, [..., A, A] and [..., B, B].
    """
    of_rows, of_columns = (own.diagonal(dim1=-2, dim2=-1).clamp(min=1e-24).sqrt() for own in (rows, columns))
    return products / of_rows.unsqueeze(-1) / of_columns.unsqueeze(-2)


def full_precision(x: Tensor) -> Tensor:
    """The tensor in float32 where it is narrower, as under autocast; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
