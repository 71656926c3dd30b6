"""This is a linear probe: logistic regression on the few clips of an episode, for many episodes at once."""

import torch
from torch import Tensor

STEPS = 100


def logistic_probe(support_BND: Tensor, labels_BNK: Tensor, query_BMD: Tensor, decay: Tensor | float
                   ) -> Tensor:
    """Return the logits of logistic regression on the supports of each episode. [B, M, K]

    It minimises cross entropy + decay / 2 * |W|^2 by accelerated descent; W is a mixture of the supports, as the best
    one is, so only its K * N weights are sought.

    Args:
        labels_BNK: one-hot; a row of zeros leaves a support out. decay: in float64 if it is a tensor.
    """
    gram = support_BND @ support_BND.transpose(-1, -2)
    there_BN1 = labels_BNK.sum(dim=-1, keepdim=True)
    count = there_BN1.sum(dim=1, keepdim=True)
    weights = ahead = torch.zeros_like(labels_BNK)
    step, inertia = 1 / (0.5 + decay), (1 - (2 * decay) ** 0.5) / (1 + (2 * decay) ** 0.5)
    for _ in range(STEPS):
        slope = there_BN1 * ((gram @ ahead).softmax(dim=-1) - labels_BNK) / count + decay * ahead
        following = ahead - step * slope
        ahead, weights = following + inertia * (following - weights), following
    return query_BMD @ support_BND.transpose(-1, -2) @ weights
