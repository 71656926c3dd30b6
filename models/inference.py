"""This file makes what an evaluation on a CPU calls: copies of a head's parts that give the same in less time.

A batch norm that no longer learns multiplies and shifts channels, as the weights and bias of the convolution before it
can; an attention pool need not compute what it drops; and products are left to whom they are fast by (products.py).

P clips, T frames, C/H/W image.
"""

import copy
import logging
import math
from collections import Counter
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.encoders.base import encode_clips, frames_together
from models.heads.base import Head
from models.layers.batch_norm import FrozenBatchNorm, RankBatchNorm, replace_modules
from models.layers.products import products_lag, shorten_pool, use_onednn

ROUNDING = 1e-4  # of the largest feature: two ways of computing the same differ by less
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FORWARDS = (_BatchNorm.forward, FrozenBatchNorm.forward, RankBatchNorm.forward)  # others do more than normalise
_LOGGER = logging.getLogger(__name__)


def _visits(tower: nn.Module, clip_PTCHW: Tensor) -> dict[nn.Module, nn.Module]:
    """Return each batch norm with the convolution whose output it was given when a clip passed.

    Those that were called twice are left out.
    """
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # by the identity of an output, which is kept: no other gets it
    calls: Counter[nn.Module] = Counter()
    pairs: dict[nn.Module, nn.Module] = {}

    def after(conv: nn.Module, _given: Any, output: Tensor) -> None:
        calls[conv] += 1
        made[id(output)] = conv, output

    def before(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        calls[norm] += 1
        if id(given[0]) in made:
            pairs[norm] = made[id(given[0])][0]

    hooks = [module.register_forward_hook(after) if isinstance(module, _ConvNd) else
             module.register_forward_pre_hook(before)
             for module in tower.modules() if isinstance(module, (_ConvNd, _BatchNorm))]
    try:
        encode_clips(tower, clip_PTCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return {norm: conv for norm, conv in pairs.items() if calls[norm] == calls[conv] == 1}


def _folds(conv: nn.Module, norm: nn.Module) -> bool:
    """Tell whether a batch norm can be folded: both are torch's own, in evaluation mode, with plain weights."""
    own = type(conv) in _CONVOLUTIONS and isinstance(norm, _BatchNorm) and type(norm).forward in _FORWARDS
    return own and not conv.training and not norm.training and "weight" in conv._parameters and (
        norm.running_mean is not None)


def _fold(tower: nn.Module, clip_PTCHW: Tensor) -> None:
    """Fold the batch norms of a tower, in place."""
    if not any(isinstance(module, _BatchNorm) for module in tower.modules()):
        return
    folded: dict[nn.Module, nn.Module] = {}
    for norm, conv in _visits(tower, clip_PTCHW).items():
        if _folds(conv, norm):
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(_BatchNorm, norm))
            folded[conv], folded[norm] = fused, nn.Identity()
            if isinstance(fused, nn.Conv2d):
                fused.to(memory_format=torch.channels_last)
    replace_modules(tower, folded.get)


def _copy(head: Head) -> Head:
    """Return a head with the same weights, whose parts are other objects."""
    made = copy.copy(head)
    made._modules = dict(head._modules)
    memo: dict[int, Any] = {id(one): one for one in chain(head.parameters(), head.buffers())}  # these are not copied
    for name, part in head.named_children():
        made._modules[name] = copy.deepcopy(part, memo)
    return made


def _faster(head: Head, clip_PTCHW: Tensor | None) -> Head:
    """Return a faster copy; a clip finds out which batch norms can be folded."""
    made = _copy(head)
    if clip_PTCHW is not None:
        _fold(made.backbone, clip_PTCHW)
    shorten_pool(made)
    if products_lag():
        use_onednn(made)
    return made


@torch.no_grad()
def faster_on_cpu(head: Head, clip_PTCHW: Tensor | None = None) -> Head:
    """Return a head that computes the same as one in evaluation mode, but for rounding, in less time on a CPU.

    It shares the head's weights, but for those that are folded: where weights change, it is made anew. Where a tower
    cannot be copied, or a copy gives something else, it is the head itself.

    Args:
        clip_PTCHW: any clip of the size that will be encoded, which finds that out; None: none will be.
    """
    try:
        if clip_PTCHW is None:
            return _faster(head, None) if products_lag() else head
        # Folding is wrong where something else wants a convolution's output, too. Each copy is tried on a clip that
        # none has seen when it is made: a tower may give what it remembers.
        for folds, seen in ((clip_PTCHW, clip_PTCHW.flip(-1)), (None, clip_PTCHW.flip(-2))):
            made, expected = _faster(head, folds), encode_clips(head.backbone, seen)
            near = ROUNDING * float(expected.abs().max())
            if not math.isfinite(near):
                return head  # damaged weights, of which scores will tell
            if bool(((encode_clips(made.backbone, seen) - expected).abs() <= near).all()):
                return made
        reason = "a copy of it gives other features"
    except Exception as error:  # noqa: BLE001  (a tower of someone's own may raise anything when it is copied)
        reason = f"{type(error).__name__}: {error}"
    _LOGGER.info("%s is evaluated as it is, not by a faster copy: %s", type(head).__name__, reason)
    return head


def for_evaluation(head: Head, device: torch.device, clip: tuple[int, int] | None = None) -> Head:
    """Return what computes in an evaluation: on a CPU a faster copy of the head, on a GPU the head itself.

    Args:
        clip: T of the clips that it will encode, and the side of their pictures in pixels; None: it encodes none.
    """
    if device.type != "cpu":
        return head
    if clip is None:
        return faster_on_cpu(head)
    frames, size = clip
    return faster_on_cpu(head, torch.randn(1, frames_together(head.backbone, frames), 3, size, size,
                                           generator=torch.Generator().manual_seed(0)))
