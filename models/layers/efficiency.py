"""This file lets towers need less memory in training, and tells whether clips of several episodes may share a pass."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from models.layers.batch_norm import replace_modules
from utils.errors import CompileError, ConfigError


@cache
def _blocks() -> tuple[type[nn.Module], ...]:
    """Return the kinds of blocks that draw nothing and leave their input alone."""
    from open_clip.modified_resnet import Bottleneck as ClipBottleneck
    from torchvision.models.mobilenetv2 import InvertedResidual
    from torchvision.models.resnet import BasicBlock, Bottleneck

    return ClipBottleneck, BasicBlock, Bottleneck, InvertedResidual


def has_batch_statistics(tower: nn.Module) -> bool:
    """Tell whether a frame's features depend on the others of its pass: a batch norm is in training mode."""
    return any(isinstance(module, _BatchNorm) and module.training for module in tower.modules())


@contextmanager
def compiling() -> Iterator[None]:
    """Turn errors of torch.compile, which works at the first forward and backward pass, into CompileErrors."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = str(error).strip().splitlines()[0]
        raise CompileError(f"TRAIN.COMPILE: torch.compile fails on this machine ({type(error).__name__}: {first}). "
                           "TRAIN.COMPILE false trains without it") from error


@contextmanager
def statistics_stay(module: nn.Module) -> Iterator[None]:
    """Put the running statistics of batch norms back after this block, in which they normalise as ever."""
    buffers = [buffer for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training
               for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Give what surrounds a block's first pass and its second one, whose batches must not be counted again."""
    return nullcontext(), statistics_stay(block)


class CheckpointedStage(nn.Sequential):
    """This stage keeps only the input of each block, and computes the rest again in the backward pass."""

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """Compute what nn.Sequential computes."""
        for block in self:
            if isinstance(block, _blocks()) and torch.is_grad_enabled():
                frames_NCHW = checkpoint(block, frames_NCHW, use_reentrant=False, preserve_rng_state=False,
                                         context_fn=partial(_contexts, block))
            else:
                frames_NCHW = block(frames_NCHW)
        return frames_NCHW


def _is_stage(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and any(isinstance(block, _blocks()) for block in module)


def checkpoint_blocks(tower: nn.Module) -> None:
    """Checkpoint the activations of every block of a tower, in place (TRAIN.GRAD_CHECKPOINT).

    Raises ConfigError for a tower whose blocks are not known, or whose batch norms would count each batch twice.
    """
    if any(_is_stage(module) for module in list(tower.modules())[1:]):
        replace_modules(tower, lambda m: CheckpointedStage(OrderedDict(m.named_children())) if _is_stage(m) else None)
        return
    start = getattr(tower, "set_grad_checkpointing", None)
    if start is None or any(isinstance(module, _BatchNorm) for module in tower.modules()):
        raise ConfigError([f"TRAIN.GRAD_CHECKPOINT: expected CLIP's towers, torchvision's ResNets or MobileNetV2, or a "
                           f"tower of open_clip without batch norms, found {type(tower).__name__}"])
    start()
