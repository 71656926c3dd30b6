"""OTAM on a GPU: the alignment of models/layers/alignment/otam.py as Triton kernels (Cao et al., "Few-Shot Video
Classification via Temporal Alignment", CVPR 2020). Importing this module needs Triton with `gather` (3.2 or later).

One launch covers all sequences and both directions: program (i, k) holds one column of sequence i's table, a lane for
each row, and walks over the columns; direction k = 1 swaps the strides of the costs, so nothing is transposed or
copied. With A = -C/lambda, a = -d/lambda and x (+) y = log(exp x + exp y), a cell inside the table is

    A[l, m] = a[l, m] + (A[l, m-1] (+) A[l-1, m-1]),

which needs the column before it only. The first column also admits the cell above, A[l, 1] = a[l, 1] + (log 2 (+)
A[l-1, 1]), which is one scan; the last, zero-cost column admits every row of column M, all but the last row twice, so
it is one sum. All of it is in float32 and in log space: no weight of a whole path is ever formed, so none can
underflow, whatever T, costs and lambda. From column 2 on a column is kept relative to its largest entry, with a running
offset beside it: what the gradient needs are differences within a column, and these stay exact where A itself grows to
thousands.

The gradient is the probability V that a path visits a cell. It goes backwards over the columns: V[l, m-1] takes from
V[l, m] and V[l+1, m] the part that came from there, a logistic function of a difference of two neighbours of the table.
So every part lies in 0..1 and the parts of a cell sum to 1, however large the costs.

The table is kept rather than recomputed: the way back starts at the last column, so recomputing would write the same
table to memory first. It takes 4 bytes a cell and direction, and it is all that the gradient reads: the costs are not
saved. The sums of the two directions are float32 atomic additions of at most two terms onto zero, hence deterministic.
"""

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from utils.errors import AlignmentBackendError

if not hasattr(tl, "gather"):
    raise ImportError(f"OTAM's kernels need triton 3.2 or later, found {triton.__version__}")

TYPES = (torch.float32, torch.float16, torch.bfloat16)
LOG2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))


@triton.jit
def _join(x, y):
    """Compute log(exp(x) + exp(y)) for finite x or y; the result is NaN where either is."""
    apart = x - y
    return tl.where(apart > 0, x, y) + tl.log(1 + tl.exp(-tl.abs(apart)))


@triton.jit
def _then_join(scale1, shift1, scale2, shift2):
    """Compose two maps x -> shift (+) (scale + x)."""
    return scale1 + scale2, _join(shift2, scale2 + shift1)


@triton.jit
def _then_add(scale1, shift1, scale2, shift2):
    """Compose two maps x -> shift + scale * x."""
    return scale1 * scale2, shift2 + scale2 * shift1


@triton.jit
def _logistic(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _previous_lane(x, lane, first):
    """Return x of the lane before; `first` in lane 0."""
    return tl.where(lane == 0, first, tl.gather(x, tl.maximum(lane - 1, 0), 0))


@triton.jit
def _forward_kernel(costs, table, distances, frames, supports, stride_n, stride_t, stride_s, factor, smoothing,
                    KEEP: tl.constexpr, BLOCK: tl.constexpr):
    """costs [N, T, S] by strides -> distances [N] (added to); table [N, directions, columns, rows] if KEEP."""
    sequence, mirrored = tl.program_id(0).to(tl.int64), tl.program_id(1) == 1
    rows, columns = tl.where(mirrored, supports, frames), tl.where(mirrored, frames, supports)
    row_stride, column_stride = tl.where(mirrored, stride_s, stride_t), tl.where(mirrored, stride_t, stride_s)
    row = tl.arange(0, BLOCK)
    inside = row < rows
    cell = costs + sequence * stride_n + row.to(tl.int64) * row_stride
    kept = table + (sequence * tl.num_programs(1) + tl.program_id(1)) * frames * supports + row

    step = tl.load(cell, mask=inside, other=0.0).to(tl.float32) * factor
    _, column = tl.associative_scan((step, step + tl.where(row == 0, 0.0, LOG2)), 0, _then_join)
    if KEEP:
        tl.store(kept, column, mask=inside)
    offset = 0.0
    for _ in range(1, columns):
        cell += column_stride
        step = tl.load(cell, mask=inside, other=0.0).to(tl.float32) * factor
        column = step + _join(column, _previous_lane(column, row, NEVER))
        highest = tl.max(tl.where(inside, column, NEVER), 0)
        column -= highest
        offset += highest
        if KEEP:
            kept += rows
            tl.store(kept, column, mask=inside)
    ends = tl.where(inside, column + tl.where(row == rows - 1, 0.0, LOG2), NEVER)
    highest = tl.max(ends, 0)
    total = offset + highest + tl.log(tl.sum(tl.exp(ends - highest), 0))
    tl.atomic_add(distances + sequence, -smoothing * total, sem="relaxed")


@triton.jit
def _backward_kernel(table, grad_distances, grad, frames, supports, BLOCK: tl.constexpr):
    """table [N, directions, columns, rows], grad_distances [N] -> grad [N, T, S] (added to). Lane 0 is the last row."""
    sequence, mirrored = tl.program_id(0).to(tl.int64), tl.program_id(1) == 1
    rows, columns = tl.where(mirrored, supports, frames), tl.where(mirrored, frames, supports)
    row_stride, column_stride = tl.where(mirrored, 1, supports), tl.where(mirrored, supports, 1)
    lane = tl.arange(0, BLOCK)
    inside = lane < rows
    row = rows - 1 - lane
    kept = table + (sequence * tl.num_programs(1) + tl.program_id(1)) * frames * supports
    kept += (columns - 1).to(tl.int64) * rows + row
    cell = grad + sequence * frames * supports + row.to(tl.int64) * row_stride
    cell += (columns - 1).to(tl.int64) * column_stride

    column = tl.load(kept, mask=inside, other=NEVER)
    ends = column + tl.where(lane == 0, 0.0, LOG2)
    visits = tl.exp(ends - tl.max(ends, 0))
    visits *= tl.load(grad_distances + sequence) / tl.sum(visits, 0)
    for _ in range(1, columns):
        tl.atomic_add(cell, visits, mask=inside, sem="relaxed")
        kept -= rows
        cell -= column_stride
        column = tl.load(kept, mask=inside, other=0.0)
        above = tl.load(kept - 1, mask=row > 0, other=NEVER)
        below = tl.load(kept + 1, mask=inside & (lane > 0), other=0.0)
        visits = (visits * _logistic(column - above)
                  + _previous_lane(visits, lane, 0.0) * _logistic(column - below))
    # This is the first column. Paths may also move down inside it, so its visits are a scan over the rows.
    _, visits = tl.associative_scan((_logistic(column - LOG2), visits), 0, _then_add)
    tl.atomic_add(cell, visits, mask=inside, sem="relaxed")


def warps(block: int) -> int:
    """Return how many warps run `block` lanes: one warp needs no barriers and holds at most 8 lanes a thread."""
    return 1 if block <= 256 else 4


def _launch(kernel: Any, costs: Tensor, directions: int, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on all sequences of costs [N, T, S] and directions. Raises AlignmentBackendError if one fails."""
    block = triton.next_power_of_2(max(costs.shape[1:]))
    try:
        with torch.cuda.device(costs.device) if costs.is_cuda else nullcontext():
            kernel[(len(costs), directions)](*arguments, **constants, BLOCK=block, num_warps=warps(block))
    except Exception as error:  # noqa: BLE001  (compilers, drivers and the interpreter have no common base)
        raise AlignmentBackendError(
            f"OTAM's Triton kernel failed on costs of shape {list(costs.shape)}, {costs.dtype}, {costs.device}: "
            f"{type(error).__name__}: {error}. VIDEO.HEAD.ALIGNMENT otam does without it.") from error


class _FusedOtam(torch.autograd.Function):
    """Compute distances [N] of costs [N, T, S]; with `directions` 2 the alignment and its mirror are summed."""

    @staticmethod
    def forward(ctx: Any, costs_NTS: Tensor, smoothing: float, directions: int) -> Tensor:
        number, frames, supports = costs_NTS.shape
        keep = ctx.needs_input_grad[0]
        table = costs_NTS.new_empty(number if keep else 0, directions, frames * supports, dtype=torch.float32)
        distances = costs_NTS.new_zeros(number, dtype=torch.float32)
        if number:
            _launch(_forward_kernel, costs_NTS, directions, costs_NTS, table, distances, frames, supports,
                    *costs_NTS.stride(), -1 / smoothing, smoothing, KEEP=keep)
        ctx.save_for_backward(table)
        ctx.shape, ctx.dtype = costs_NTS.shape, costs_NTS.dtype
        return distances.to(costs_NTS.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:
        (table,) = ctx.saved_tensors
        grad_NTS = table.new_zeros(ctx.shape)
        if len(grad_NTS):
            _launch(_backward_kernel, grad_NTS, table.shape[1], table, grad_N.float().contiguous(), grad_NTS,
                    *ctx.shape[1:])
        return grad_NTS.to(ctx.dtype), None, None


def runs_on(costs: Tensor) -> bool:
    """Tell whether the kernels take these costs: float32 or narrower, on a GPU, or anywhere in Triton's interpreter."""
    interpreted = not isinstance(_forward_kernel, triton.JITFunction)
    return costs.dtype in TYPES and (costs.is_cuda or interpreted)


def fused_otam(costs: Tensor, *, smoothing: float, single_direction: bool) -> Tensor:
    """Compute what otam.otam_distance does, [..., T, S] of any strides -> [...], from float32 sums.

    Raises AlignmentBackendError for costs that the kernels do not take, and when they cannot be compiled or started.
    """
    if not runs_on(costs):
        raise AlignmentBackendError(f"OTAM's Triton kernel takes float32, float16 and bfloat16 on a GPU, found "
                                    f"{costs.dtype} on {costs.device}")
    flat = costs.reshape(-1, *costs.shape[-2:])
    return _FusedOtam.apply(flat, smoothing, 1 if single_direction else 2).reshape(costs.shape[:-2])
