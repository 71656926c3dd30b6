"""Parameter and FLOP counts, by fvcore."""

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def _attention_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Multiply-adds of softmax(Q K^T) V: fvcore does not know torch's attention. Q [..., L, E], K [..., S, E]"""
    query, key = (one.type().sizes() for one in inputs[:2])
    return 2 * math.prod(query) * key[-2]


def module_flops(module: nn.Module, example: Tensor) -> int:
    """FLOPs (fvcore: one multiply-add is one) of a module's forward pass of `example`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore uses torch.jit.script, which torch deprecates
        from fvcore.nn import FlopCountAnalysis
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # else evaluation runs attention as one operation, which counts as 0
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = FlopCountAnalysis(module, example).unsupported_ops_warnings(False)
            return int(found.set_op_handle("aten::scaled_dot_product_attention", _attention_flops).total())
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def clip_flops(model: nn.Module, frames: int, size: int) -> dict[str, int]:
    """FLOPs (fvcore: one multiply-add is one) of a clip's pass through backbone and modulator.

    Args:
        frames: T. size: side of the picture in pixels.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.no_grad():
        picture = torch.zeros(1, 3, size, size, device=device)
        dim = model.head.backbone(picture).shape[-1]
        tokens = torch.zeros(1, frames + 1, dim, device=device)
        counts = {"backbone": module_flops(model.head.backbone, picture) * frames,
                  "modulator": module_flops(model.head.context2, tokens)}
    model.train(was_training)
    return counts


def complexity_line(model: nn.Module, frames: int, size: int) -> str:
    """Parameters and FLOPs in one line."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    flops = clip_flops(model, frames, size)
    return (f"{total / 1e6:.2f} M parameters ({trained / 1e6:.2f} M trained); a clip of {frames} frames takes "
            f"{flops['backbone'] / 1e9:.3f} GFLOP in the backbone, {flops['modulator'] / 1e9:.3f} in the modulator")
