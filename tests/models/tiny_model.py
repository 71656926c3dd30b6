"""CLIP-FSAR with a tiny tower."""

import torch
from torch import nn

from models.encoders.clip import build_towers
from models.heads.clip_fsar import ClipFsar, FewShotModel
from models.layers.alignment import otam_distance
from models.layers.modulator import TemporalTransformer


def model_of(tower: dict, dropout: float = 0.0) -> FewShotModel:
    """A model in training mode."""
    torch.manual_seed(0)
    visual = build_towers(tower).visual
    model = FewShotModel(ClipFsar(backbone=visual, modulator=TemporalTransformer(32), distance=otam_distance,
                                  text_features={"train": torch.randn(5, 32)}))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model.train()
