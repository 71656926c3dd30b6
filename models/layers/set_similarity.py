"""These compare a clip with the clips of a class by the similarities of their frames, without anything learned.

Chamfer (Bertrand et al., arXiv 2303.16084) takes the frames of a class as one set: each query frame with its nearest
one, and the other way round. Similarities come as [B, M, K, S, T, U]: T frames of the query, U of each of S clips;
`given` [B, K, S] says which of S are there (None: all are). B episodes, M queries, K ways.
"""

from itertools import combinations

import torch
from torch import Tensor

from models.layers.similarity import EPSILON


def _only(similarities: Tensor, given: Tensor | None, value: float) -> Tensor:
    return similarities if given is None else similarities.masked_fill(~given[:, None, :, :, None, None], value)


def query_chamfer(similarities: Tensor, given: Tensor | None = None) -> Tensor:
    """Return the mean over query frames of the largest similarity with a frame of the class. [B, M, K]"""
    return _only(similarities, given, -torch.inf).amax(dim=(3, 5)).mean(dim=-1)


def support_chamfer(similarities: Tensor, given: Tensor | None = None) -> Tensor:
    """Return the mean over the class's frames of the largest similarity with a query frame. [B, M, K]"""
    nearest = similarities.amax(dim=4).mean(dim=-1)
    if given is None:
        return nearest.mean(dim=-1)
    there = given.unsqueeze(1).to(nearest.dtype)
    return (nearest * there).sum(dim=-1) / there.sum(dim=-1)


def chamfer(similarities: Tensor, given: Tensor | None = None) -> Tensor:
    """Return half the sum of both sides. [B, M, K]"""
    return (query_chamfer(similarities, given) + support_chamfer(similarities, given)) / 2


def mean_similarity(similarities: Tensor, given: Tensor | None = None) -> Tensor:
    """Return the mean over query frames of the summed similarities with the class's frames. [B, M, K]"""
    return _only(similarities, given, 0.0).sum(dim=(3, 5)).mean(dim=-1)


def largest_similarity(similarities: Tensor, given: Tensor | None = None) -> Tensor:
    """Return the largest similarity of any two frames. [B, M, K]"""
    return _only(similarities, given, -torch.inf).amax(dim=(3, 4, 5))


def triple_similarities(query_BMTD: Tensor, support_BNUD: Tensor) -> Tensor:
    """Return similarities of all ordered triples of frames, their features end to end (Chamfer++). [B, M, N, t, u]"""
    dots = torch.einsum("bmtd,bnud->bmntu", query_BMTD, support_BNUD)
    rows, columns = (torch.tensor(list(combinations(range(clips.shape[2]), 3))).to(dots.device, non_blocking=True)
                     for clips in (query_BMTD, support_BNUD))
    joined = sum((dots[..., rows[:, i], :][..., columns[:, i]] for i in range(3)), torch.zeros_like(dots[..., :1, :1]))
    query, support = (clips.square().sum(dim=-1)[..., places].sum(dim=-1).sqrt()
                      for clips, places in ((query_BMTD, rows), (support_BNUD, columns)))
    return joined / (query[:, :, None, :, None] * support[:, None, :, None, :] + EPSILON)
