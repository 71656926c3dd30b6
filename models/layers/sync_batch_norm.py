"""BN.SYNC: batch statistics over the frames of all ranks. torch's own SyncBatchNorm knows GPUs only.

N frames of this rank, C channels.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: object) -> Tensor:
        ctx.group, total = group, own.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class RankBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics, in training, are those of the inputs of all ranks; gradients flow through them.

    Without other ranks, and in evaluation, it is nn.BatchNorm2d. State names are the same.

    Args:
        group: the process group it exchanges over (set by `over_ranks`).
    """

    group: object = None

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        """The same shape."""
        if not self.training:
            return super().forward(frames_NCHW)
        frames = frames_NCHW.float()  # autocast: statistics of low precision would not add up
        count = frames.new_tensor([frames.numel() / frames.shape[1]])
        sums_C1 = _SumOverRanks.apply(torch.cat([frames.sum(dim=(0, 2, 3)), count]), self.group)
        mean_C, total = sums_C1[:-1] / sums_C1[-1], sums_C1[-1].detach()
        centred = frames - mean_C[:, None, None]
        variance_C = _SumOverRanks.apply(centred.square().sum(dim=(0, 2, 3)), self.group) / total
        self._follow(mean_C.detach(), variance_C.detach(), float(total))
        normed = centred * torch.rsqrt(variance_C + self.eps)[:, None, None]
        return (normed * self.weight[:, None, None] + self.bias[:, None, None]).to(frames_NCHW.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor, total: float) -> None:
        """Move the running statistics; their variance is the unbiased one, as in nn.BatchNorm2d."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C * total / max(total - 1, 1), self.momentum)


def over_ranks(model: nn.Module, group: object = None) -> None:
    """Turn every nn.BatchNorm2d of a model into a RankBatchNorm2d, in place."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = RankBatchNorm2d
            module.group = group
