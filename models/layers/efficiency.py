"""Towers that need less memory in training, and what decides how their inputs may be batched."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from open_clip.modified_resnet import Bottleneck
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from utils.errors import CompileError, ConfigError


def has_batch_statistics(tower: nn.Module) -> bool:
    """Whether a picture's features depend on the others of its pass: a batch norm in training mode."""
    return any(isinstance(module, _BatchNorm) and module.training for module in tower.modules())


@contextmanager
def compiling() -> Iterator[None]:
    """In this block errors of torch.compile, which works at the first forward and backward pass, are CompileErrors."""
    try:
        yield
    except TorchDynamoException as error:
        first = str(error).strip().splitlines()[0]
        raise CompileError(f"TRAIN.COMPILE: torch.compile fails on this machine ({type(error).__name__}: {first}). "
                           "TRAIN.COMPILE false trains without it") from error


@contextmanager
def _statistics_stay(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch norms in training mode normalise as ever, but their running statistics are afterwards what they were."""
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


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
