"""Parameter groups in the published order, and the optimizer over them.

A published optimizer_state counts parameters in that order, which differs from open_clip's: in a ViT block the
attention comes before ln_1. Ours is written in the published order too, so states travel both ways.
"""

import re
from collections.abc import Iterable

import torch
from torch import nn

_BLOCK = re.compile(r"^(.*\.resblocks\.\d+)\.(\w+)")
_BLOCK_ORDER = ("attn", "ln_1", "mlp", "ln_2")


def published_order(names: Iterable[str]) -> list[str]:
    """Parameter names with the parts of each ViT block in the published order; all else stays in place."""
    ordered: list[str] = []
    block: list[tuple[int, str]] = []
    current = None
    for name in [*names, ""]:
        match = _BLOCK.match(name)
        prefix = match.group(1) if match else None
        if prefix != current:
            ordered.extend(n for _, n in sorted(block, key=lambda item: item[0]))
            block, current = [], prefix
        if match:
            part = match.group(2)
            block.append((_BLOCK_ORDER.index(part) if part in _BLOCK_ORDER else len(_BLOCK_ORDER), name))
        elif name:
            ordered.append(name)
    return ordered


def parameter_groups(model: nn.Module, *, weight_decay: float, norm_weight_decay: float) -> list[dict]:
    """The four published groups (two of them empty): `bn` or `norm` in the name, then the rest.

    Each has params, names and weight_decay. Parameters that need no gradient are left out.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    norms, rest = [], []
    for name in published_order(parameters):
        (norms if "bn" in name or "norm" in name else rest).append(name)
    layout = ((norms, norm_weight_decay), ([], weight_decay), (rest, weight_decay), ([], 0.0))
    return [{"params": [parameters[n] for n in names], "names": list(names), "weight_decay": decay}
            for names, decay in layout]


def build_optimizer(model: nn.Module, *, method: str, weight_decay: float, norm_weight_decay: float, lr: float,
                    momentum: float = 0.9, dampening: float = 0.0, nesterov: bool = True,
                    fused: bool = False) -> torch.optim.Optimizer:
    """Adam (betas 0.9, 0.999, L2 weight decay), AdamW or SGD over the published groups.

    `fused`: all of a parameter's arithmetic in one pass over memory, the same but for rounding.
    """
    groups = parameter_groups(model, weight_decay=weight_decay, norm_weight_decay=norm_weight_decay)
    groups = [{k: v for k, v in group.items() if k != "names"} for group in groups]
    if method == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, dampening=dampening,
                               nesterov=nesterov and momentum > 0 and dampening == 0, fused=fused)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[method]
    return kind(groups, lr=lr, betas=(0.9, 0.999), fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
