"""OTAM: ordered temporal alignment with a soft minimum (Cao et al., "Few-Shot Video Classification via Temporal
Alignment", CVPR 2020), with the boundary of the published CLIP-FSAR code.

Costs d[l, m] (l query frame, m support frame) get one zero-cost column on each side. With M real columns:

    C[l, 0] = 0;    C[0, m] = d[0, 1] + ... + d[0, m];
    C[l, m] = d[l, m] + softmin(C[l-1, m-1], C[l, m-1])    and, in columns 1 and M+1 only, C[l-1, m];
    softmin(a...) = -lambda log(sum exp(-a / lambda));     distance = C[last row, M+1].

In A = -C/lambda every row is linear (in exp space) in the row above, so one row is one log-cumulative-sum:
with a = -d/lambda and P its running sum, A[l, m] = P[m] + logcumsumexp([0, b[j] - P[j-1]])[m], where b[j] joins the
entries of the row above that reach column j. The gradient of the distance with respect to d[l, m] is the probability
that a path visits the cell, which the mirrored recursion (B, from the end backwards) gives: exp(A + B - A_end).
Both passes run in float64. Where the largest cost that may come lets exp space hold every path (see LINEAR_RANGE), rows
are plain cumulative sums there; otherwise they are log-cumulative-sums, so nothing underflows, whatever T and lambda.
Sizes decide it, not the costs themselves, which a GPU would have to be waited for.

Shapes: costs [..., L, M]; inside, S sequences flattened: [S, L, M].
"""

import importlib
import math
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.errors import AlignmentBackendError

LINEAR_RANGE = 600.0  # largest exponent of a path's weight; float64 holds exp(-708)
LARGEST_COST = 2.1  # of 1 - cos, with room for rounding
# torch.exp hands arrays of this size to MKL's threads, which cost milliseconds a call on a busy machine; exp2 does not.
LOG2E = 1 / math.log(2)


def otam_reference(costs: Tensor, smoothing: float = 0.5) -> Tensor:
    """Compute the recursion C above cell by cell, [..., L, M] -> [...]: it is slow, to be read and tested against."""
    padded = F.pad(costs, (1, 1))
    rows, columns = padded.shape[-2:]
    table = [[torch.zeros_like(padded[..., 0, 0])] * columns for _ in range(rows)]
    for m in range(1, columns):
        table[0][m] = table[0][m - 1] + padded[..., 0, m]
    for row in range(1, rows):
        for m in range(1, columns):
            reach = [table[row - 1][m - 1], table[row][m - 1]]
            if m in (1, columns - 1):
                reach.append(table[row - 1][m])
            soft = -smoothing * torch.logsumexp(torch.stack(reach) / -smoothing, dim=0)
            table[row][m] = padded[..., row, m] + soft
    return table[-1][-1]


def _log_forward(a_SLM: Tensor, prefix_SLM: Tensor) -> Tensor:
    """Compute A = -C/lambda of every cell, columns 0..M+1. [S, L, M+2]"""
    row = F.pad(prefix_SLM[:, 0], (1, 0))
    rows = [row]
    for step in range(1, a_SLM.shape[1]):
        reach = row[:, :-1].clone()
        reach[:, 0] = torch.logaddexp(row[:, 0], row[:, 1])
        reach[:, -1] = torch.logaddexp(row[:, -2], row[:, -1])
        before = F.pad(prefix_SLM[:, step, :-1], (1, 0))
        row = torch.logcumsumexp(F.pad(reach - before, (1, 0)), dim=1)
        row[:, 1:] += prefix_SLM[:, step]
        rows.append(row)
    return torch.stack(rows, dim=1)


def _log_backward(a_SLM: Tensor, prefix_SLM: Tensor) -> Tensor:
    """Compute B, the log of the summed weights of all ways from a cell to the end, columns 1..M+1. [S, L, M+1]"""
    below = torch.full_like(a_SLM[:, 0], -torch.inf)
    below[:, -1] = 0.0
    rows = []
    for step in range(a_SLM.shape[1] - 1, -1, -1):
        tail = torch.logcumsumexp((below + prefix_SLM[:, step]).flip(1), dim=1).flip(1)
        row = tail - prefix_SLM[:, step]
        rows.append(row)
        entry = row + a_SLM[:, step]
        below = F.pad(entry[:, 1:], (0, 1), value=-torch.inf)
        below[:, 0] = torch.logaddexp(below[:, 0], entry[:, 0])
        below[:, -1] = entry[:, -1]
    return torch.stack(rows[::-1], dim=1)


def _exp(values: Tensor) -> Tensor:
    return (values * LOG2E).exp2_()


def _linear_forward(prefix_SLM: Tensor) -> Tensor:
    """Compute exp(A) of every cell, columns 0..M+1. [S, L, M+2]"""
    weight, before = _exp(prefix_SLM), _exp(F.pad(-prefix_SLM[..., :-1], (1, 0)))
    table = prefix_SLM.new_ones(prefix_SLM.shape[0], prefix_SLM.shape[1], prefix_SLM.shape[2] + 1)
    table[:, 0, 1:] = weight[:, 0]
    for step in range(1, prefix_SLM.shape[1]):
        above = table[:, step - 1]
        reach = above[:, :-1].clone()
        reach[:, 0] += above[:, 1]
        reach[:, -1] += above[:, -1]
        torch.mul((reach * before[:, step]).cumsum(dim=1).add_(1), weight[:, step], out=table[:, step, 1:])
    return table


def _linear_backward(a_SLM: Tensor, prefix_SLM: Tensor) -> Tensor:
    """Compute exp(B), columns 1..M+1. [S, L, M+1]"""
    weight, inverse, cell = _exp(prefix_SLM), _exp(-prefix_SLM), _exp(a_SLM)
    table = torch.empty_like(a_SLM)
    below = torch.zeros_like(a_SLM[:, 0])
    below[:, -1] = 1.0
    for step in range(a_SLM.shape[1] - 1, -1, -1):
        tail = (below * weight[:, step]).flip(1).cumsum(dim=1).flip(1)
        torch.mul(tail, inverse[:, step], out=table[:, step])
        entry = table[:, step] * cell[:, step]
        below = F.pad(entry[:, 1:], (0, 1))
        below[:, 0] += entry[:, 0]
        below[:, -1] = entry[:, -1]
    return table


class _Otam(torch.autograd.Function):
    """The distance of flattened sequences; its gradient is how probably a path visits each cell."""

    @staticmethod
    def forward(ctx: Any, costs_SLM: Tensor, smoothing: float, largest: float) -> Tensor:
        a_SLM = F.pad(costs_SLM.double() / -smoothing, (0, 1))
        prefix_SLM = a_SLM.cumsum(dim=2)
        ctx.linear = (a_SLM.shape[1] + a_SLM.shape[2]) * largest / smoothing < LINEAR_RANGE
        table = _linear_forward(prefix_SLM) if ctx.linear else _log_forward(a_SLM, prefix_SLM)
        ctx.save_for_backward(a_SLM, prefix_SLM, table)
        end = table[:, -1, -1].log2() / LOG2E if ctx.linear else table[:, -1, -1]
        return (end * -smoothing).to(costs_SLM.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, None, None]:
        a_SLM, prefix_SLM, table = ctx.saved_tensors
        if ctx.linear:
            visits = table[:, :, 1:-1] * _linear_backward(a_SLM, prefix_SLM)[..., :-1] / table[:, -1:, -1:]
        else:
            visits = (table[:, :, 1:-1] + _log_backward(a_SLM, prefix_SLM)[..., :-1] - table[:, -1:, -1:]).exp()
        return visits.to(grad_S.dtype) * grad_S[:, None, None], None, None


def _check(costs: Tensor, smoothing: float) -> None:
    if 0 in costs.shape[-2:]:
        raise ValueError(f"expected at least one frame on each side, found costs of shape {list(costs.shape)}")
    if smoothing <= 0:
        raise ValueError(f"expected a smoothing above 0, found {smoothing}")


def soft_alignment(costs: Tensor, smoothing: float = 0.5, largest: float = math.inf) -> Tensor:
    """Return distances [...] of costs [..., L, M] in this direction only; `largest` is that of otam_distance.

    Raises ValueError: no frames, lambda <= 0.
    """
    _check(costs, smoothing)
    flat = costs.reshape(-1, *costs.shape[-2:])
    return _Otam.apply(flat, smoothing, largest).reshape(costs.shape[:-2])


@cache
def _kernels() -> ModuleType | ImportError:
    """Import the Triton kernels, or return why that fails: Triton is optional, and absent on many systems."""
    try:
        return importlib.import_module("models.layers.alignment.otam_triton")
    except ImportError as error:
        return error


def _fused(costs: Tensor, backend: str) -> ModuleType | None:
    """Return the kernels' module if `backend` wants it used for these costs, else None."""
    if backend not in ("auto", "plain", "triton"):
        raise ValueError(f"expected one of the backends auto, plain, triton, found {backend!r}")
    if backend == "plain" or (backend == "auto" and not costs.is_cuda):
        return None
    kernels = _kernels()
    if isinstance(kernels, ImportError):
        if backend == "triton":
            raise AlignmentBackendError(f"OTAM's Triton kernel cannot be imported: {kernels}") from kernels
        return None
    return kernels if backend == "triton" or kernels.runs_on(costs) else None


def otam_distance(costs: Tensor, *, smoothing: float = 0.5, single_direction: bool = False,
                  backend: str = "auto", largest: float = math.inf) -> Tensor:
    """Compute the OTAM distance: that of the alignment plus that of its mirror (costs transposed).

    Args:
        costs: [..., L, M], L query frames, M support frames.
        smoothing: lambda of the soft minimum.
        single_direction: the alignment of queries to supports only.
        backend: "plain": this file; "triton": the kernels of otam_triton.py; "auto": the kernels where they can be
            imported and the costs are on a GPU, of float32 or narrower.
        largest: the largest cost, in absolute value, that may come: a small one makes plain code faster. Where larger
            ones come, distances are infinite or NaN.

    Returns:
        [...] distances of the type of `costs`.

    Raises AlignmentBackendError where the kernels are to be used and cannot be.
    """
    if (kernels := _fused(costs, backend)) is not None:
        _check(costs, smoothing)
        return kernels.fused_otam(costs, smoothing=smoothing, single_direction=single_direction)
    if single_direction:
        return soft_alignment(costs, smoothing, largest)
    mirrored = costs.transpose(-1, -2)
    if costs.shape[-1] == costs.shape[-2]:
        return soft_alignment(torch.stack([costs, mirrored]), smoothing, largest).sum(dim=0)
    return soft_alignment(costs, smoothing, largest) + soft_alignment(mirrored, smoothing, largest)
