"""Parameter and FLOP counts, by fvcore."""

import logging
import warnings

import torch
from torch import nn


def clip_flops(model: nn.Module, frames: int, size: int) -> dict[str, int]:
    """FLOPs (fvcore: one multiply-add is one) of a clip's pass through backbone and modulator.

    Args:
        frames: T. size: side of the picture in pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore uses torch.jit.script, which torch deprecates
        from fvcore.nn import FlopCountAnalysis
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = torch.zeros(1, 3, size, size, device=device)
        backbone = FlopCountAnalysis(model.head.backbone, picture).unsupported_ops_warnings(False)
        dim = model.head.backbone(picture).shape[-1]
        tokens = torch.zeros(1, frames + 1, dim, device=device)
        modulator = FlopCountAnalysis(model.head.context2, tokens).unsupported_ops_warnings(False)
        counts = {"backbone": int(backbone.total()) * frames, "modulator": int(modulator.total())}
    model.train(was_training)
    return counts


def complexity_line(model: nn.Module, frames: int, size: int) -> str:
    """Parameters and FLOPs in one line."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    flops = clip_flops(model, frames, size)
    return (f"{total / 1e6:.2f} M parameters ({trained / 1e6:.2f} M trained); a clip of {frames} frames takes "
            f"{flops['backbone'] / 1e9:.3f} GFLOP in the backbone, {flops['modulator'] / 1e9:.3f} in the modulator")
