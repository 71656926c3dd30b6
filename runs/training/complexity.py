"""Count parameters, and FLOPs by fvcore."""

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.builder import FewShotModel
from models.encoders.base import frames_together
from models.heads.base import Role


def _attention_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count the multiply-adds of softmax(Q K^T) V, which fvcore does not know. Q [..., L, E], K [..., S, E]"""
    query, key = (one.type().sizes() for one in inputs[:2])
    return 2 * math.prod(query) * key[-2]


def module_flops(module: nn.Module, *example: Tensor) -> int:
    """Count the FLOPs (fvcore: one multiply-add is one) of a module's forward pass of `example`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore uses torch.jit.script, which torch deprecates
        from fvcore.nn import FlopCountAnalysis
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # else evaluation runs attention as one operation, which counts as 0
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            analysis = FlopCountAnalysis(module, example).unsupported_ops_warnings(False)
            return int(analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_flops).total())
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@torch.no_grad()
def clip_flops(model: FewShotModel, frames: int, size: int, role: Role = "support") -> dict[str, int]:
    """Count the FLOPs (fvcore: one multiply-add is one) of each of the head's parts as one clip passes them.

    Args:
        frames: T. size: side of the picture in pixels. role: of the clip.
    """
    head, device, was_training = model.head, next(model.parameters()).device, model.training
    calls: list[tuple[str, tuple[Tensor, ...]]] = []
    hooks = [part.register_forward_pre_hook(lambda _, given, name=name: calls.append((name, given)))
             for name, part in head.parts().items()]
    model.eval()
    # A tower that takes single frames does the same for each: one of them is traced, and counts T times.
    together = frames_together(head.backbone, frames)
    alone = frames // together
    encoded = head.encode(torch.zeros(1, together, 3, size, size, device=device))
    of_frames = len(calls)
    features = {name: value.repeat_interleave(alone, dim=1) for name, value in encoded.items()}
    text_PD = torch.zeros(1, head.dim, device=device) if head.reads_text and role == "support" else None
    head.in_role(head.clip_features(features), text_PD, role)
    for hook in hooks:
        hook.remove()
    counts = dict.fromkeys(head.parts(), 0)
    for number, (name, given) in enumerate(calls):
        counts[name] += module_flops(head.parts()[name], *given) * (alone if number < of_frames else 1)
    model.train(was_training)
    return counts


def parameter_counts(model: FewShotModel) -> tuple[int, int]:
    """Count all parameters and those that training changes."""
    idle = model.head.untrained()
    sizes = {name: (p.numel(), p.requires_grad and name not in idle) for name, p in model.head.named_parameters()}
    trained = sum(size for size, is_trained in sizes.values() if is_trained) if model.head.trains else 0
    return sum(size for size, _ in sizes.values()), trained


def complexity_line(model: FewShotModel, frames: int, size: int) -> str:
    """Say in one line how many parameters a model has and how many FLOPs a clip takes."""
    total, trained = parameter_counts(model)
    flops = ", ".join(f"{count / 1e9:.3f} in the {name}" for name, count in clip_flops(model, frames, size).items())
    return (f"{total / 1e6:.2f} M parameters ({trained / 1e6:.2f} M trained); GFLOP that a clip of {frames} frames "
            f"takes: {flops}")
