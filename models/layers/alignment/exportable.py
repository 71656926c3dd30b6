"""OTAM as a module that torch.export and ONNX can take: the same distance as otam.py, without gradients.

otam.py has the recursion. Here every row is an expression of the row above, in float64 and in exp space, with no branch
on data and nothing written in place:

    P = cumsum(-d / lambda) along a row; w = exp(A); w[l, .] = exp(P) * (1 + cumsum(reach(w[l-1, .]) / exp(P before))).

Exp space holds every path where (L + M + 1) * largest cost / lambda is below LINEAR_RANGE: the caller says how large
costs can be, and sizes and lambda beyond that are refused when the module is made.

Shapes: costs [..., L, M], L query frames, M support frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.alignment.otam import LARGEST_COST, LINEAR_RANGE
from utils.errors import ExportError


class ExportableOtam(nn.Module):
    """Computes `otam_distance` of costs [..., frames, frames] -> [...], in the type of the costs.

    Args:
        frames: of a clip, T = L = M. smoothing: lambda of the soft minimum. single_direction: queries to supports only.
        largest: the largest cost, in absolute value, that may come. Larger ones are not noticed.

    Raises ExportError where exp space cannot hold the weight of every path.
    """

    def __init__(self, frames: int, smoothing: float = 0.5, single_direction: bool = False,
                 largest: float = LARGEST_COST):
        super().__init__()
        longest = (2 * frames + 1) * largest / smoothing if smoothing > 0 else float("inf")
        if frames < 1 or not longest < LINEAR_RANGE:
            raise ExportError(f"OTAM of {frames} frames with lambda {smoothing:g} cannot be exported: expected frames "
                              f"and lambda above 0 and (2 * frames + 1) * {largest:g} / lambda below "
                              f"{LINEAR_RANGE:g}, found {longest:g}; take fewer frames or a larger lambda")
        self.smoothing, self.single_direction = smoothing, single_direction

    def _one_way(self, costs: Tensor) -> Tensor:
        """Return distances in float64; `row` holds w of columns 0..M+1."""
        prefix = F.pad(costs.double() / -self.smoothing, (0, 1)).cumsum(dim=-1)
        weight, before = prefix.exp(), F.pad(-prefix[..., :-1], (1, 0)).exp()
        row = F.pad(weight[..., 0, :], (1, 0), value=1.0)
        for step in range(1, costs.shape[-2]):
            reach = torch.cat([row[..., :1] + row[..., 1:2], row[..., 1:-2], row[..., -2:-1] + row[..., -1:]], dim=-1)
            row = F.pad(((reach * before[..., step, :]).cumsum(dim=-1) + 1) * weight[..., step, :], (1, 0), value=1.0)
        return row[..., -1].log() * -self.smoothing

    def forward(self, costs: Tensor) -> Tensor:
        """Return the distances."""
        found = self._one_way(costs)
        return (found if self.single_direction else found + self._one_way(costs.transpose(-1, -2))).to(costs.dtype)
