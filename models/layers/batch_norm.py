"""This file has two batch norms that torch lacks: a frozen one (BN.FREEZE), and one over all ranks (BN.SYNC).

Both take over the parameters and buffers of the batch norm that they stand for, so state names, the optimizer's
parameters and copies of the model are what they were. N frames of this rank, C channels, ... image.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.errors import ConfigError

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def replace_modules(model: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace every module below `model` for which `make` gives another one: the same one wherever it stands.

    `make` hands parameters, buffers and children on, so that their names, order and identity stay as they are.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if not path:
            continue
        if module not in made:
            made[module] = make(module)
        parent, _, name = path.rpartition(".")
        if (new := made[module]) is not None:
            setattr(model.get_submodule(parent), name, new)


def _replace(model: nn.Module, key: str, make: Callable[[_BatchNorm], _BatchNorm]) -> None:
    """Replace every batch norm of torch. Raises ConfigError naming `key` where a module has one of another make."""

    def replacement(module: nn.Module) -> nn.Module | None:
        if not isinstance(module, _BatchNorm) or isinstance(module, FrozenBatchNorm):
            return None
        if type(module) not in _KINDS:
            raise ConfigError([f"{key}: expected torch's own batch norms, found a {type(module).__name__}"])
        return make(module)

    replace_modules(model, replacement)


class _StandIn(_BatchNorm):
    """This batch norm takes inputs of any dimensions, and has the parameters, buffers and mode of another one."""

    def __init__(self, norm: _BatchNorm):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""


class FrozenBatchNorm(_StandIn):
    """This batch norm keeps its statistics and affine weights as they are, in training, too."""

    def __init__(self, norm: _BatchNorm):
        super().__init__(norm)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        """Stay in evaluation mode."""
        return super().train(False)


def freeze_batch_norm(model: nn.Module) -> None:
    """Replace every batch norm of a model by a FrozenBatchNorm (BN.FREEZE)."""
    _replace(model, "BN.FREEZE", FrozenBatchNorm)


class _SumOverRanks(torch.autograd.Function):
    """Add up a tensor over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: Any) -> Tensor:
        ctx.group, total = group, own.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class RankBatchNorm(_StandIn):
    """This batch norm takes its statistics, in training, over the inputs of all ranks; gradients flow through them.

    torch's own SyncBatchNorm knows GPUs only. In evaluation this is torch's batch norm. `group` exchanges them; None:
    all ranks.
    """

    def __init__(self, norm: _BatchNorm, group: object = None):
        super().__init__(norm)
        self.group = group

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [N, C, ...]; the same shape."""
        if not self.training:
            return super().forward(input)
        frames = input.float()  # autocast: statistics of low precision would not add up
        others = [0, *range(2, frames.ndim)]
        along_C = (-1, *[1] * (frames.ndim - 2))
        count = frames.new_full((1,), frames.numel() / frames.shape[1])
        sums_C1 = cast(Tensor, _SumOverRanks.apply(torch.cat([frames.sum(dim=others), count]), self.group))
        mean_C, total = sums_C1[:-1] / sums_C1[-1], sums_C1[-1].detach()
        centred = frames - mean_C.view(along_C)
        variance_C = cast(Tensor, _SumOverRanks.apply(centred.square().sum(dim=others), self.group)) / total
        self._follow(mean_C.detach(), variance_C.detach(), total)
        normed = centred * torch.rsqrt(variance_C + self.eps).view(along_C)
        if self.affine:
            normed = normed * self.weight.view(along_C) + self.bias.view(along_C)
        return normed.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor, total: Tensor) -> None:
        """Move the running statistics, if they are kept; their variance is the unbiased one, as in torch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.float()
        self.running_mean.lerp_(mean_C, share)
        self.running_var.lerp_(variance_C * total / (total - 1).clamp(min=1), share)


def over_ranks(model: nn.Module, group: object = None) -> None:
    """Replace every batch norm of a model, but frozen ones, by a RankBatchNorm (BN.SYNC)."""
    _replace(model, "BN.SYNC", lambda norm: RankBatchNorm(norm, group))
