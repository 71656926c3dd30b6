"""This file makes what an evaluation on a CPU calls: copies of a head's parts that give the same in less time.

A batch norm that no longer learns multiplies and shifts channels, as the weights and bias of the convolution before it
can; an attention pool need not compute what it drops; and products are left to whom they are fast by (products.py).

P clips, T frames, C/H/W image.
"""

import copy
from collections import Counter
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.encoders.base import encode_clips
from models.heads.base import Head
from models.layers.batch_norm import replace_modules
from models.layers.products import products_lag, shorten_pool, use_onednn

ROUNDING = 1e-4  # of the largest feature: two ways of computing the same differ by less


def _visits(tower: nn.Module, clip_PTCHW: Tensor) -> tuple[dict[nn.Module, nn.Module], Tensor]:
    """Return each batch norm with the convolution whose output it was given when a clip passed, and what came out.

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
        output = encode_clips(tower, clip_PTCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return {norm: conv for norm, conv in pairs.items() if calls[norm] == calls[conv] == 1}, output


def _fold(tower: nn.Module, clip_PTCHW: Tensor) -> bool:
    """Fold the batch norms of a tower, in place; return whether what it gives of a clip is still the same."""
    pairs, expected = _visits(tower, clip_PTCHW)
    folded: dict[nn.Module, nn.Module] = {}
    for norm, conv in pairs.items():
        assert isinstance(norm, _BatchNorm) and isinstance(conv, _ConvNd)
        if norm.running_mean is not None:
            folded[conv], folded[norm] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    for conv in folded.values():
        if isinstance(conv, nn.Conv2d):
            conv.to(memory_format=torch.channels_last)
    replace_modules(tower, folded.get)
    found = encode_clips(tower, clip_PTCHW)
    return torch.allclose(found, expected, rtol=0, atol=ROUNDING * float(expected.abs().max()))


def _copy(head: Head) -> Head:
    """Return a head with the same weights, whose parts are other objects."""
    made = copy.copy(head)
    made._modules = dict(head._modules)
    memo: dict[int, Any] = {id(one): one for one in chain(head.parameters(), head.buffers())}  # these are not copied
    for name, part in head.named_children():
        made._modules[name] = copy.deepcopy(part, memo)
    return made


@torch.no_grad()
def faster_on_cpu(head: Head, clip_PTCHW: Tensor | None = None) -> Head:
    """Return a head that computes the same as one in evaluation mode, but for rounding, in less time on a CPU.

    It shares the head's weights, but for those that are folded: where weights change, it is made anew.

    Args:
        clip_PTCHW: any clip of the size that will be encoded, which finds out what can be folded; None: nothing is.
    """
    made = _copy(head)
    folds = clip_PTCHW is not None and any(isinstance(module, _BatchNorm) for module in head.backbone.modules())
    if folds and not _fold(made.backbone, cast(Tensor, clip_PTCHW)):
        made = _copy(head)  # something else, too, wanted a convolution's output before its batch norm
    shorten_pool(made)
    if products_lag():
        use_onednn(made)
    return made


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
    alone = 1 if getattr(head.backbone, "takes_clips", False) else frames  # others take any number of frames
    return faster_on_cpu(head, torch.randn(1, frames // alone, 3, size, size,
                                           generator=torch.Generator().manual_seed(0)))
