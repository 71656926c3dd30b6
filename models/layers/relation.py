"""These are the attention layers and position tables of TRX, HyRSM, HyRSM++ and MoLo, by their published names.

They relate the frames of a clip to each other (`JointAttention` behind `PreNorm`), and the clips of an episode
(`InterRelation`); `Positions` and `TimeEncoding` tell frames apart. P clips, L tokens, D features, H heads, B episodes,
M queries, S support tokens.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.layers.attend import attend
from models.layers.modulator import FEED_FORWARD_DROPOUT, HIDDEN, FeedForward, PreNorm
from utils.config.fields import NUMBERS, TRAINING, key
from utils.errors import ConfigError

LENGTH = 20  # positions of the published table
CLASSES = 64  # of the published classifier where nothing is said


@dataclass(frozen=True, slots=True)
class RelationOptions:
    """Holds what these methods have in common, VIDEO.HEAD.OPTIONS."""

    HEAD: int | None = key("heads of the attention; null or 0: 8", default=None, minimum=0, affects=NUMBERS)
    POSITION_A: float | None = key("frames are scaled by sqrt(D / it); it counts with POSITION_B only, else 10",
                                   default=None, above=0.0, affects=NUMBERS)
    POSITION_B: float | None = key("weight of the positions; it counts with POSITION_A only, else 1", default=None,
                                   affects=NUMBERS)
    TEXTBOOK_POSITIONS: bool = key("both channels of a pair of the position table have one frequency, as in the "
                                   "Transformer's paper; false: each its own, as published", default=False,
                                   affects=NUMBERS)
    HAUSDORFF_MEAN: bool = key("Bi-MHM takes means over frames, as the papers write; false: sums, as published",
                               default=False, affects=NUMBERS)
    NUM_CLASS: int | None = key("outputs of the classifier; null: the classes of the train list", default=CLASSES,
                                minimum=1, affects=NUMBERS)
    USE_CLASSIFICATION: bool = key("add the classification of training classes to the loss", default=False,
                                   affects=TRAINING)
    USE_CLASSIFICATION_VALUE: float | None = key("weight of the classification", default=None, minimum=0.0,
                                                 affects=TRAINING)
    USE_CLASSIFICATION_ONLY: bool = key("the classification is the whole loss", default=False, affects=TRAINING)
    USE_LOCAL: bool = key("classify every frame, not the clip", default=False, affects=TRAINING)
    ONLY_PUBLISHED: bool = key("refuse switches and episodes with which the public code fails", default=True,
                               affects=TRAINING)

    @property
    def heads(self) -> int:
        """Gives H."""
        return self.HEAD or 8

    def problems(self) -> list[str]:
        """Return what does not go together, a line each."""
        if self.USE_CLASSIFICATION and self.USE_CLASSIFICATION_VALUE is None:
            return ["USE_CLASSIFICATION_VALUE: expected a weight, as USE_CLASSIFICATION is on, found none"]
        return []

    def without_effect(self) -> dict[str, str]:
        """Return the options that others switch off, and why."""
        off = {}
        for one, other in (("POSITION_A", "POSITION_B"), ("POSITION_B", "POSITION_A")):
            if getattr(self, one) is not None and getattr(self, other) is None:
                off[one] = f"{other} is not set"
        if not self.USE_CLASSIFICATION:
            off |= dict.fromkeys(("USE_CLASSIFICATION_VALUE", "USE_CLASSIFICATION_ONLY", "USE_LOCAL"),
                                 "USE_CLASSIFICATION is off")
        return off

    def positions(self, dim: int, tokens: int) -> "Positions":
        """Build the positions of clips of so many tokens. Raises ConfigError where the published table is too short."""
        if tokens > LENGTH and self.ONLY_PUBLISHED:
            raise ConfigError([f"DATA.NUM_INPUT_FRAMES: expected clips of at most {LENGTH} tokens, as the public code "
                               f"fails with more, found {tokens}; VIDEO.HEAD.OPTIONS.ONLY_PUBLISHED false (protocol "
                               "clean) makes the table longer"])
        both = self.POSITION_A is not None and self.POSITION_B is not None
        scale, weight = (self.POSITION_A, self.POSITION_B) if both else (10.0, 1.0)
        return Positions(dim, cast(float, scale), cast(float, weight), textbook=self.TEXTBOOK_POSITIONS,
                         length=max(LENGTH, tokens))

    def classifier(self, dim: int, classes: int) -> nn.Linear:
        """Build the classifier. Raises ConfigError where it has fewer outputs than the train list has classes."""
        outputs = classes or CLASSES if self.NUM_CLASS is None else self.NUM_CLASS
        if self.USE_CLASSIFICATION and outputs < classes:
            raise ConfigError([f"VIDEO.HEAD.OPTIONS.NUM_CLASS: expected at least {classes}, the classes of the train "
                               f"list, found {outputs}"])
        return nn.Linear(dim, outputs)


class Positions(nn.Module):
    """Scale tokens by sqrt(D / scale) and add `weight` times a table of sines and cosines. [P, L, D] -> [P, L, D]"""

    pe: Tensor

    def __init__(self, dim: int, scale: float, weight: float, *, textbook: bool, length: int, dropout: float = 0.1):
        super().__init__()
        self.factor, self.weight, self.dropout = math.sqrt(dim / scale), weight, nn.Dropout(dropout)
        channel = torch.arange(dim, dtype=torch.float64)
        exponent = (channel - channel % 2) / dim if textbook else 2 * channel / dim
        angle_LD = torch.arange(length, dtype=torch.float64).unsqueeze(1) / 10000 ** exponent
        table_LD = torch.where(channel % 2 == 0, angle_LD.sin(), angle_LD.cos())
        self.register_buffer("pe", table_LD.float().unsqueeze(0))

    def forward(self, x_PLD: Tensor) -> Tensor:
        return self.dropout(x_PLD * self.factor + self.weight * self.pe[:, :x_PLD.shape[1]])


class TimeEncoding(nn.Module):
    """Add a tenth of the usual sines and cosines to frames, then drop some numbers. [P, T, D] -> [P, T, D]"""

    pe: Tensor

    def __init__(self, dim: int, frames: int, dropout: float = 0.1):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        rate = torch.exp(torch.arange(0, dim, 2).float() * -(math.log(10000.0) / dim))
        angle = torch.arange(int(1.5 * frames)).float().unsqueeze(1) * rate
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]
        self.register_buffer("pe", (0.1 * table).unsqueeze(0))

    def forward(self, x_PTD: Tensor) -> Tensor:
        return self.dropout(x_PTD + self.pe[:, :x_PTD.shape[1]])


class JointAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come from one projection. [P, L, D] -> [P, L, D]"""

    def __init__(self, dim: int, heads: int, dropout: float = 0.2):
        super().__init__()
        if dim % heads:
            raise ConfigError([f"VIDEO.HEAD.OPTIONS.HEAD: expected a divisor of the feature width {dim}, found "
                               f"{heads}"])
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Identity() if heads == 1 else nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))

    def forward(self, x_PLD: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x_PLD).chunk(3, dim=-1)
        return self.to_out(attend(q, k, v, self.heads))


class TokenTransformer(nn.Module):
    """Compute x = x + attention(norm(x)); x = x + feed_forward(x). [P, L, D] -> [P, L, D]"""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([PreNorm(dim, JointAttention(dim, heads)),
                                                    FeedForward(dim, HIDDEN, FEED_FORWARD_DROPOUT)])])

    def forward(self, x_PLD: Tensor) -> Tensor:
        attention, feed_forward = cast(nn.ModuleList, self.layers[0])
        x_PLD = x_PLD + attention(x_PLD)
        return x_PLD + feed_forward(x_PLD)


class InterRelation(nn.Module):
    """Relate, for each query apart, the tokens of all supports and of that query; a norm comes last."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        inner = dim // heads * heads
        self.heads = heads
        self.w_qs, self.w_ks, self.w_vs = (nn.Linear(dim, inner, bias=False) for _ in range(3))
        self.fc = nn.Linear(inner, dim)
        self.layer_norm = nn.LayerNorm(dim)
        self.attention = nn.ModuleDict({"dropout": nn.Dropout(0.1)})  # of the weights
        self.dropout = nn.Dropout(0.05)
        for projection in (self.w_qs, self.w_ks, self.w_vs):
            nn.init.normal_(projection.weight, std=math.sqrt(2 / (dim + dim // heads)))
        nn.init.xavier_normal_(self.fc.weight)

    def forward(self, support_BSD: Tensor, query_BMD: Tensor, there_BS: Tensor | None = None) -> Tensor:
        """Return related tokens, the query's own last, [B, M, S + 1, D]; `there_BS` says which supports are there."""
        def sequences(support: Tensor, query: Tensor) -> Tensor:
            supports_BMSD = support.unsqueeze(1).expand(-1, query.shape[1], -1, -1)
            return torch.cat([supports_BMSD, query.unsqueeze(2)], dim=2)

        q, k, v = (rearrange(sequences(w(support_BSD), w(query_BMD)), "b m l (h d) -> b m h l d", h=self.heads)
                   for w in (self.w_qs, self.w_ks, self.w_vs))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if there_BS is not None:
            scores = scores.masked_fill(~F.pad(there_BS, (0, 1), value=True)[:, None, None, None], -torch.inf)
        mixed = rearrange(self.attention["dropout"](scores.softmax(dim=-1)) @ v, "b m h l d -> b m l (h d)")
        return self.layer_norm(sequences(support_BSD, query_BMD) + self.dropout(self.fc(mixed)))


def temporal_relation(frames: int, window: int, balance: float, device: torch.device | None = None
                      ) -> tuple[Tensor, Tensor]:
    """Return R and L of a clip, float32 as published. [T, T] each"""
    place_T = torch.arange(frames, device=device)
    apart_TT = (place_T.unsqueeze(0) - place_T.unsqueeze(1)).abs().float()
    near_TT = apart_TT <= window
    relation_TT = torch.where(near_TT, 1 / (apart_TT ** 2 + 1), 1 - torch.exp(-(apart_TT - window) ** 2 / balance))
    return relation_TT, near_TT.float()
