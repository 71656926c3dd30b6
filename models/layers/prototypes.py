"""Prototypes are class means. N supports, K ways."""

import torch
from torch import Tensor


def class_means(values: Tensor, labels_N: Tensor, way: int) -> Tensor:
    """Average the supports of each class.

    Args:
        values: [N, ...]; labels_N: episode label 0..way-1 of each.

    Returns:
        [way, ...].
    """
    weights = torch.nn.functional.one_hot(labels_N.long(), way).to(values.dtype)
    weights = weights / weights.sum(dim=0, keepdim=True)
    return torch.tensordot(weights.T, values, dims=1)
