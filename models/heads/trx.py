"""Implement TRX: temporal-relational cross-transformers (Perrett et al., CVPR 2021).

A clip is the set of its ordered tuples of 2, and of 3, frames. For each size, tuples of a query attend to
the tuples of all clips of a class: keys choose, values are mixed into a prototype of that query tuple for that class.
The distance of query and class is the mean over query tuples of the squared distance
of value and prototype; logits = -distance, averaged over the sizes.

A tuple's vector is its frames end to end, so a linear map of it is a sum of maps of single frames, one for each place
in the tuple: tuple n = sum over x of A[n, x] place[x], A of zeros and ones. Inner products of tuples are then A G A',
with G those of places (24 x 24 for 3 of 8 frames, in place of 56 x 56), and all that is computed is inner products:
|v - sum_u w_u v_u|^2 = |v|^2 - 2 sum_u w_u v.v_u + sum_uu' w_u w_u' v_u.v_u'.

P clips, T frames, D features, E width of keys and values, R frames of a tuple, N tuples of a clip, X = T * R
places, B episodes, M queries, K ways, S shots.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.heads.base import FeatureBatch, Features, Head, Scoring, Setting
from models.layers.relation import TimeEncoding
from models.layers.similarity import full_precision
from models.registries import HEADS
from utils.config.fields import NUMBERS, TRAINING, key
from utils.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TrxOptions:
    """Holds what can be set, VIDEO.HEAD.OPTIONS."""

    TUPLE_SIZES: tuple[int, ...] = key("frames of a tuple, one transformer each", default=(2, 3), affects=NUMBERS)
    OUT_DIM: int = key("E, width of keys and values", default=1152, minimum=1, affects=NUMBERS)
    ONLY_PUBLISHED: bool = key("refuse switches and episodes with which the public code fails", default=True,
                               affects=TRAINING)


class TemporalCrossTransformer(nn.Module):
    """Compares the tuples of one size. `norm_v` and `tuples` are never used: published checkpoints hold them."""

    members_NX: Tensor  # A, 1 where a place is in a tuple

    def __init__(self, dim: int, frames: int, size: int, width: int):
        super().__init__()
        self.size = size
        self.pe = TimeEncoding(dim, frames)
        self.k_linear, self.v_linear = nn.Linear(dim * size, width), nn.Linear(dim * size, width)
        self.norm_k, self.norm_v = nn.LayerNorm(width), nn.LayerNorm(width)
        order_NR = torch.tensor(list(combinations(range(frames), size)))  # lexicographic
        self.tuples = nn.ParameterList(nn.Parameter(one, requires_grad=False) for one in order_NR)
        members_NX = F.one_hot(order_NR * size + torch.arange(size), frames * size).sum(dim=1)
        self.register_buffer("members_NX", members_NX.float(), persistent=False)

    def clip_features(self, frames_PTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of places [P, 2, X, E]; of tuples what divides keys, what the norm's bias adds to
        their attention, and the squared length of values [P, 3, N]."""
        weight_REaD = torch.stack([rearrange(linear.weight, "e (r d) -> r e d", r=self.size)
                                   for linear in (self.k_linear, self.v_linear)])
        places = full_precision(torch.einsum("ptd,ared->patre", self.pe(frames_PTD), weight_REaD).flatten(2, 3))
        with torch.autocast(device_type=places.device.type, enabled=False):
            keys, values = (part + linear.bias / self.size for part, linear in
                            zip(places.unbind(dim=1), (self.k_linear, self.v_linear), strict=True))
            members_NX, centred = self.members_NX, keys - keys.mean(dim=-1, keepdim=True)
            scale = ((members_NX @ centred).square().mean(dim=-1) + self.norm_k.eps).rsqrt()
            keys = centred * self.norm_k.weight
            shift = scale * (keys @ self.norm_k.bias @ members_NX.T)
            return torch.stack([keys, values], dim=1), torch.stack(
                [scale, shift, (members_NX @ values).square().sum(dim=-1)], dim=1)

    def distances(self, query: tuple[Tensor, Tensor], support: tuple[Tensor, Tensor], there_BKS: Tensor | None
                  ) -> Tensor:
        """Return distances [B, M, K] of queries and of classes, [B, M, ...] and [B, K, S, ...] of clip_features."""
        (places_BMaXE, tuples_BMaN), (places_BKSaXE, tuples_BKSaN) = query, support
        ways, shots, _, places, width = places_BKSaXE.shape[1:]
        members_NX = self.members_NX
        (query_keys, query_values), (keys, values) = (
            (one[..., 0, :, :], one[..., 1, :, :]) for one in (places_BMaXE, places_BKSaXE))
        dots_keys, dots_values = (
            rearrange(of_query.flatten(1, 2) @ of_support.flatten(1, 3).transpose(1, 2),
                      "b (m x) (k sy) -> b m k x sy", x=places, k=ways)
            for of_query, of_support in ((query_keys, keys), (query_values, values)))
        scores = (members_NX @ dots_keys).unflatten(-1, (shots, places)) @ members_NX.T  # [B, M, K, N, S, N']
        scale, shift = (tuples_BKSaN[:, None, :, None, :, i] for i in (0, 1))
        scores = (scores * tuples_BMaN[:, :, None, 0, :, None, None] * scale + shift) / math.sqrt(width)
        if there_BKS is not None:
            scores = scores.masked_fill(~there_BKS[:, None, :, None, :, None], -torch.inf)
        weights = (scores.flatten(-2).softmax(dim=-1).unflatten(-1, scores.shape[-2:]) @ members_NX).flatten(-2)
        values = values.flatten(2, 3)
        of_classes = (values @ values.transpose(-1, -2)).unsqueeze(1)
        parts = (weights @ of_classes - 2 * (members_NX @ dots_values)) * weights
        return (parts.sum(dim=-1) + tuples_BMaN[:, :, None, 2]).mean(dim=-1)


@HEADS.register("CNN_TRX")
class Trx(Head):
    """Scores queries by minus the mean distance of their tuples from the prototypes that attention makes of a class."""

    title, Options = "TRX", TrxOptions
    scorings = (Scoring("tuples", "tuple distance", "distance"),)
    options: TrxOptions

    def __init__(self, encoder: Encoder, setting: Setting, options: TrxOptions | None = None):
        super().__init__(encoder, setting, options)
        if max(self.options.TUPLE_SIZES) > setting.frames:
            raise ConfigError([f"DATA.NUM_INPUT_FRAMES: expected at least {max(self.options.TUPLE_SIZES)} frames, as "
                               f"many as the longest tuple (VIDEO.HEAD.OPTIONS.TUPLE_SIZES), found {setting.frames}"])
        if self.options.ONLY_PUBLISHED and len({way for way, _ in setting.episodes}) > 1:
            raise ConfigError(["TRAIN.WAY_TEST: expected TRAIN.WAY, as the public code's scores for other numbers of "
                               f"classes are wrong, found {setting.episodes[1][0]} and {setting.episodes[0][0]}; "
                               "VIDEO.HEAD.OPTIONS.ONLY_PUBLISHED false (protocol clean) allows it"])
        self.transformers = nn.ModuleList(
            TemporalCrossTransformer(encoder.dim, setting.frames, size, self.options.OUT_DIM)
            for size in self.options.TUPLE_SIZES)

    def each(self) -> Iterator[tuple[int, TemporalCrossTransformer]]:
        """Yield the transformers with their numbers."""
        for i, one in enumerate(self.transformers):
            yield i, cast(TemporalCrossTransformer, one)

    def clip_features(self, encoded: Features) -> Features:
        """Return what each transformer keeps of clips: places [P, 2, X, E] and tuples [P, 3, N]."""
        kept = {i: one.clip_features(encoded["frames"]) for i, one in self.each()}
        return {f"{name}{i}": value for i, own in kept.items()
                for name, value in zip(("places", "tuples"), own, strict=True)}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return minus the distances, averaged over the transformers. [B, M, K]"""
        with torch.autocast(device_type=batch.query["places0"].device.type, enabled=False):
            found = [one.distances((batch.query[f"places{i}"], batch.query[f"tuples{i}"]),
                                   (batch.support[f"places{i}"], batch.support[f"tuples{i}"]), batch.given_BKS)
                     for i, one in self.each()]
        return {"tuples": -torch.stack(found).mean(dim=0)}

    def untrained(self) -> set[str]:
        """Name the norms of values, which nothing reads."""
        return {f"transformers.{i}.norm_v.{name}" for i in range(len(self.transformers)) for name in ("weight", "bias")}
