"""Bi-MHM: the bidirectional mean Hausdorff metric of two frame sequences (Wang et al., "Hybrid Relation Guided Set
Matching for Few-shot Action Recognition", CVPR 2022). It asks for no order of the frames.
"""

from torch import Tensor

from utils.errors import HeadError


def mean_hausdorff(costs: Tensor, *, smoothing: float | None = None, single_direction: bool = False,
                   average: bool = False) -> Tensor:
    """Compute the sum over rows of their smallest cost, plus the sum over columns of theirs. [..., L, M] -> [...]

    Args:
        costs: L query frames, M support frames.
        smoothing: nothing is smoothed; it is there because other alignments take it.
        single_direction: the sum over the query frames (rows) alone.
        average: take means instead of sums, as the papers write; the published code sums.

    Raises HeadError where a side has no frames.
    """
    if 0 in costs.shape[-2:]:
        raise HeadError(f"expected at least one frame on each side, found costs of shape {list(costs.shape)}")
    rows, columns = costs.amin(dim=-1), costs.amin(dim=-2)
    parts = [part.mean(dim=-1) if average else part.sum(dim=-1) for part in (rows, columns)]
    return parts[0] if single_direction else parts[0] + parts[1]
