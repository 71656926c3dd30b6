"""Towers that need less memory in training, and what decides how their inputs may be batched."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from open_clip.modified_resnet import Bottleneck
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from utils.errors import ConfigError


def has_batch_statistics(tower: nn.Module) -> bool:
    """Whether a picture's features depend on the others of its pass: a batch norm in training mode."""
    return any(isinstance(module, _BatchNorm) and module.training for module in tower.modules())


@contextmanager
def _statistics_stay(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch norms in training mode normalise as ever, but leave their running statistics alone."""
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, value in zip(norms, tracked, strict=True):
            norm.track_running_stats = value


class CheckpointedBottleneck(Bottleneck):
    """A block of CLIP's ResNet that keeps its input only, and computes the rest again in the backward pass. Running
    statistics are of the first time alone."""

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """As Bottleneck."""
        if not torch.is_grad_enabled():
            return super().forward(frames_NCHW)
        return checkpoint(super().forward, frames_NCHW, use_reentrant=False, preserve_rng_state=False,
                          context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """(of the first time, of the second)"""
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm) and module.training]
        return nullcontext(), _statistics_stay(norms)


def checkpoint_blocks(tower: nn.Module) -> None:
    """Activation checkpointing of every block of a tower, in place (TRAIN.GRAD_CHECKPOINT).

    Raises ConfigError for a tower whose batch norms would count each batch twice.
    """
    bottlenecks = [module for module in tower.modules() if type(module) is Bottleneck]
    for block in bottlenecks:
        block.__class__ = CheckpointedBottleneck
    if bottlenecks:
        return
    if any(isinstance(module, _BatchNorm) for module in tower.modules()):
        raise ConfigError([f"TRAIN.GRAD_CHECKPOINT: expected CLIP's ResNets or a tower without batch norms, found "
                           f"{type(tower).__name__}: its statistics would count every batch twice"])
    tower.set_grad_checkpointing()
