"""Sort parameters into the published groups, and build the optimizer over them.

A published optimizer_state counts parameters in that order, which differs from open_clip's: in a ViT block the
attention comes before ln_1. Ours is written in the published order too, so states travel both ways.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

_BLOCK = re.compile(r"^(.*\.resblocks\.\d+)\.(\w+)")
_BLOCK_ORDER = ("attn", "ln_1", "mlp", "ln_2")


def published_order(names: Iterable[str]) -> list[str]:
    """Sort the parts of each ViT block into the published order; all other names stay in place."""

    def block(name: str) -> str | None:
        return found[1] if (found := _BLOCK.match(name)) else None

    def place(name: str) -> int:
        found = _BLOCK.match(name)
        return _BLOCK_ORDER.index(found[2]) if found and found[2] in _BLOCK_ORDER else len(_BLOCK_ORDER)

    return [name for _, together in groupby(names, block) for name in sorted(together, key=place)]


def parameter_groups(model: nn.Module, *, weight_decay: float, norm_weight_decay: float) -> list[dict[str, Any]]:
    """Return the four published groups (two of them empty): `bn` or `norm` in the name, then the rest.

    Each has params, names and weight_decay. Parameters that need no gradient are left out.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    names = published_order(parameters)
    norms = [name for name in names if "bn" in name or "norm" in name]
    rest = [name for name in names if name not in set(norms)]
    layout: list[tuple[list[str], float]] = [(norms, norm_weight_decay), ([], weight_decay), (rest, weight_decay),
                                             ([], 0.0)]
    return [{"params": [parameters[n] for n in group], "names": group, "weight_decay": decay}
            for group, decay in layout]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """Say which optimizer updates the weights, and how."""

    method: str  # adam (betas 0.9, 0.999, L2 weight decay), adamw or sgd
    lr: float  # the learning rate it starts with
    weight_decay: float
    norm_weight_decay: float  # of parameters with `bn` or `norm` in their name
    momentum: float = 0.9  # this and the next two: of sgd
    dampening: float = 0.0
    nesterov: bool = True
    eps: float = 1e-8  # of adam and adamw
    fused: bool = False  # all of a parameter's arithmetic in one pass over memory, the same but for rounding


def build_optimizer(model: nn.Module, settings: OptimizerSettings,
                    groups: list[dict[str, Any]] | None = None) -> torch.optim.Optimizer:
    """Return the optimizer over a method's own groups, or over the published ones.

    Each of `groups` has params, weight_decay and lr_scale, by which the learning rate is multiplied.
    """
    s = settings
    if groups is None:
        groups = parameter_groups(model, weight_decay=s.weight_decay, norm_weight_decay=s.norm_weight_decay)
        groups = [{k: v for k, v in group.items() if k != "names"} for group in groups]
    if s.method == "sgd":
        return torch.optim.SGD(groups, lr=s.lr, momentum=s.momentum, dampening=s.dampening,
                               nesterov=s.nesterov and s.momentum > 0 and s.dampening == 0, fused=s.fused)
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[s.method]
    return kind(groups, lr=s.lr, betas=(0.9, 0.999), eps=s.eps, fused=s.fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate, times its own lr_scale where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
