"""This file computes a model's linear layers and attentions by oneDNN's convolutions, where those are faster.

torch gives float32 products on a CPU to MKL, which uses AVX-512 on processors of Intel alone, and convolutions to
oneDNN, which uses it on all. A linear layer is a convolution of one pixel, so it can have oneDNN's speed. Numbers are
the same but for rounding, forward and backward; weights, their names and their gradients stay where they are.

F sequences, L tokens, C channels, H heads, N maps, h/w their size.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attend import attend
from models.layers.batch_norm import replace_modules

ROWS = 64  # of a product with fewer, little is gained and the calls around it cost more


@cache
def products_lag() -> bool:
    """Tell whether products are slower than convolutions here: MKL leaves this processor's AVX-512 unused."""
    of_mkl = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return of_mkl and torch.backends.cpu.get_cpu_capability() == "AVX512" and "GenuineIntel" not in _processor()


def _processor() -> str:
    """Return what the system says of its processor, where it says anything."""
    told = Path("/proc/cpuinfo")
    return told.read_text(errors="replace")[:4096] if told.exists() else platform.processor()


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a linear layer, [..., C] -> [..., outputs], with weights [outputs, C] and a bias [outputs] or None."""
    rows = x.shape[:-1].numel()
    if rows < ROWS or x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    column = x.reshape(1, rows, 1, -1).permute(0, 3, 1, 2)  # a picture of one column, its channels innermost
    return F.conv2d(column, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class OneDnnLinear(nn.Linear):
    """This linear layer is computed by `product`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return [..., outputs] of [..., C]."""
        return product(input, self.weight, self.bias)


class OneDnnAttention(nn.MultiheadAttention):
    """This attention of tokens to each other is computed with `product`; with masks or weights it is torch's own."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any
                ) -> tuple[Tensor, Tensor | None]:
        """Return what torch's attention returns."""
        wanted = {"need_weights": True, **options, "average_attn_weights": None}
        if (args or any(value is not None and value is not False for value in wanted.values())
                or not (query is key and key is value and query.ndim == 3 and self._qkv_same_embed_dim)
                or self.bias_k is not None or self.add_zero_attn or (self.training and self.dropout)):
            return super().forward(query, key, value, *args, **options)
        of_all = product(query, cast(Tensor, self.in_proj_weight), self.in_proj_bias)
        q, k, v = (of_all if self.batch_first else of_all.transpose(0, 1)).chunk(3, dim=-1)
        mixed = attend(q, k, v, self.num_heads)
        return self.out_proj(mixed if self.batch_first else mixed.transpose(0, 1)), None


class FirstTokenPool(nn.Module):
    """This is the attention pool of CLIP's ResNets; only the mean token, whose output is all it gives, asks.

    open_clip's lets all tokens ask, and drops their answers. [N, C, h, w] -> [N, D]

    Args:
        pool: open_clip's, whose weights it has.
    """

    def __init__(self, pool: nn.Module):
        super().__init__()
        for name, parameter in pool.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, child in pool.named_children():
            self.add_module(name, child)
        self.num_heads: int = cast(Any, pool).num_heads

    def forward(self, maps_NChw: Tensor) -> Tensor:
        """Return a vector of each map."""
        places = maps_NChw.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
        tokens = tokens + self.get_parameter("positional_embedding").to(tokens.dtype)
        q, k, v = (self.get_submodule(name)(asked)
                   for name, asked in (("q_proj", tokens[:, :1]), ("k_proj", tokens), ("v_proj", tokens)))
        return self.get_submodule("c_proj")(attend(q, k, v, self.num_heads))[:, 0]


_LINEAR = {nn.Linear: OneDnnLinear, nn.modules.linear.NonDynamicallyQuantizableLinear: OneDnnLinear,
           nn.MultiheadAttention: OneDnnAttention}
_POOL = "open_clip.modified_resnet.AttentionPool2d"  # by its name: open_clip is not imported where it is not used


def shorten_pool(model: nn.Module) -> None:
    """Replace the attention pool of a ResNet of CLIP, below `model`, by one that does not compute what is dropped."""
    replace_modules(model, lambda module: FirstTokenPool(module)
                    if f"{type(module).__module__}.{type(module).__name__}" == _POOL else None)


def use_onednn(model: nn.Module) -> None:
    """Have all linear layers and attentions of a model, in place, computed by oneDNN's convolutions."""
    for module in model.modules():
        if kind := _LINEAR.get(type(module)):
            module.__class__ = kind  # the same object: its weights, hooks and places in the model stay
