"""A learner of any model, and where its first pass stands."""

import torch
from torch import nn

from runs.training.step import Learner, LoopOptions, PassPosition

START = PassPosition(0, 0, 1e-3)


def learner_of(model: nn.Module, device: str = "cpu", **options) -> Learner:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], fused=device == "cuda")
    numbers = LoopOptions(iterations=8, validate_every=8, iterations_a_step=2, log_every=1, **options)
    return Learner(model.train(), optimizer, numbers, lambda episode: "", torch.device(device))
