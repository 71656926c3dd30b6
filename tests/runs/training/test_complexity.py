"""FLOP counts: attention counts, in evaluation too."""

import pytest
import torch
from torch import nn

from runs.training.complexity import module_flops


class SelfAttention(nn.Module):
    """[B, L, 64] -> the same shape."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, x_BLD):
        return self.attention(x_BLD, x_BLD, x_BLD, need_weights=False)[0]


@pytest.mark.parametrize("training", [True, False])
def test_attention_counts_whatever_the_mode(training):
    """Four projections, Q K^T and the sum over values; torch's fast path of evaluation would hide all of them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    found = module_flops(SelfAttention().train(training), torch.zeros(2, 10, 64))
    assert found == 4 * 2 * 10 * 64 * 64 + 2 * 2 * 10 * 10 * 64
    assert torch.backends.mha.get_fastpath_enabled() == fast
