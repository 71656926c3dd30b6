"""FLOP counts: attention counts, in evaluation too."""

import pytest
import torch
from torch import nn

from models.builder import FewShotModel
from runs.training.complexity import module_flops, parameter_counts
from tests.models.heads.small import head_of


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


def test_trained_parameters_are_those_that_training_changes():
    """Adapters in a frozen tower, idle classifiers, and rows that need no training."""
    total, trained = parameter_counts(FewShotModel(head_of("CNN_OTAM")))
    assert total == trained == 3 * 32 * 16 + 32 and parameter_counts(FewShotModel(head_of("FROZEN"))) == (total, 0)
    adapters = head_of("D2ST_ADAPTER")
    total, trained = parameter_counts(FewShotModel(adapters))
    assert 0 < trained == sum(p.numel() for p in adapters.parameters() if p.requires_grad) < total
    relation = head_of("CNN_HyRSM_1shot")
    total, trained = parameter_counts(FewShotModel(relation))
    assert total - trained == sum(p.numel() for p in relation.classification_layer.parameters()) > 0
