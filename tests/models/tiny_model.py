"""CLIP-FSAR with a tiny tower."""

import torch
from torch import nn

from models.builder import FewShotModel
from models.encoders.base import Encoder
from models.encoders.clip import build_towers
from models.heads import HEADS
from models.heads.base import Setting


def model_of(tower: dict, dropout: float = 0.0) -> FewShotModel:
    """A model in training mode."""
    torch.manual_seed(0)
    encoder = Encoder(build_towers(tower).visual, 32, 32, None, "random", "random")
    model = FewShotModel(HEADS["CNN_OTAM_CLIPFSAR"](encoder, Setting(4, 5)), {"train": torch.randn(5, 32)})
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model.train()
