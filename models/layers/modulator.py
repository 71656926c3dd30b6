"""The prototype modulator is a small Transformer without positions over [frames ; text] (CLIP-FSAR).

Parameter names are the published ones (`layers.<i>.0.norm`, `layers.<i>.0.fn.to_q`, `layers.<i>.1.net.0`, ...).
Shapes: B sequences, L tokens, D features, H heads.
"""

from typing import cast

from torch import Tensor, nn

from models.layers.attend import attend
from models.registries import MODULATORS

HEADS = 8
HIDDEN = 2048
ATTENTION_DROPOUT = 0.2
FEED_FORWARD_DROPOUT = 0.05


class Attention(nn.Module):
    """Multi-head attention: its projections have no bias, its output has bias and dropout. [B, L, D] -> [B, L, D]."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.to_out(attend(self.to_q(x_BLD), self.to_k(x_BLD), self.to_v(x_BLD), self.heads))


class PreNorm(nn.Module):
    """Apply one LayerNorm, shared by queries, keys and values, before `fn`."""

    def __init__(self, dim: int, fn: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.fn(self.norm(x_BLD))


class FeedForward(nn.Module):
    """Apply linear, GELU and linear layers with dropout; no norm comes before them."""

    def __init__(self, dim: int, hidden: int, dropout: float):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim),
                                 nn.Dropout(dropout))

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.net(x_BLD)


@MODULATORS.register("transformer")
class TemporalTransformer(nn.Module):
    """Compute x = x + attention(norm(x)); x = x + feed_forward(x); `depth` times. [B, L, D] -> [B, L, D].

    `dim` is D, a multiple of HEADS; `depth` is TRAIN.TRANSFORMER_DEPTH.
    """

    def __init__(self, dim: int, depth: int = 1):
        super().__init__()
        if dim % HEADS:
            raise ValueError(f"expected a feature width that {HEADS} heads divide, found {dim}")
        self.layers = nn.ModuleList(nn.ModuleList([PreNorm(dim, Attention(dim, HEADS, ATTENTION_DROPOUT)),
                                                   FeedForward(dim, HIDDEN, FEED_FORWARD_DROPOUT)])
                                    for _ in range(depth))

    def forward(self, x_BLD: Tensor) -> Tensor:
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            x_BLD = x_BLD + attention(x_BLD)
            x_BLD = x_BLD + feed_forward(x_BLD)
        return x_BLD


@MODULATORS.register("identity")
class Identity(nn.Identity):
    """Leave tokens as they are: CLIP-FSAR without training. It takes what the other takes."""
