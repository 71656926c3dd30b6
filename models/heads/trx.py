"""Implement TRX: temporal-relational cross-transformers (Perrett et al., CVPR 2021).

A clip is the set of its ordered tuples of 2, and of 3, frames. For each size, tuples of a query attend to
the tuples of all clips of a class: keys choose, values are mixed into a prototype of that query tuple for that class.
The distance of query and class is the mean over query tuples of the squared distance
of value and prototype; logits = -distance, averaged over the sizes.

A tuple's vector is its frames end to end, so a linear map of it is a sum of maps of single frames, one for each place
in the tuple: frames are mapped once, and tuples are sums.

P clips, T frames, D features, E width of keys and values, R frames of a tuple, N tuples of a clip, B episodes,
M queries, K ways, S shots.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
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

    def __init__(self, dim: int, frames: int, size: int, width: int):
        super().__init__()
        self.size = size
        self.pe = TimeEncoding(dim, frames)
        self.k_linear, self.v_linear = nn.Linear(dim * size, width), nn.Linear(dim * size, width)
        self.norm_k, self.norm_v = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tuples = nn.ParameterList(nn.Parameter(torch.tensor(one), requires_grad=False)
                                       for one in combinations(range(frames), size))

    def by_place(self, frames_PTD: Tensor) -> Tensor:
        """Return what each frame adds to keys and to values in each place of a tuple. [P, T, 2, R, E]"""
        weight_REaD = torch.stack([rearrange(linear.weight, "e (r d) -> r e d", r=self.size)
                                   for linear in (self.k_linear, self.v_linear)])
        return torch.einsum("ptd,ared->ptare", self.pe(frames_PTD), weight_REaD)

    def keys_and_values(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return normed keys and values of all tuples in lexicographic order, [..., T, 2, R, E] -> [..., N, E] each."""
        order = torch.tensor(list(combinations(range(places.shape[-4]), self.size)), device=places.device)
        parts = [places.select(-2, place).index_select(-3, order[:, place]) for place in range(self.size)]
        keys, values = torch.stack(parts).sum(dim=0).unbind(dim=-2)
        return self.norm_k(keys + self.k_linear.bias), values + self.v_linear.bias

    def distances(self, query: tuple[Tensor, Tensor], support: tuple[Tensor, Tensor], there_BKN: Tensor | None
                  ) -> Tensor:
        """Return distances [B, M, K] of queries [B, M, N, E] and the joined tuples of classes [B, K, S * N, E]."""
        (query_keys, query_values), (keys, values) = query, support
        scores = torch.einsum("bmne,bkue->bmknu", query_keys, keys) / math.sqrt(keys.shape[-1])
        if there_BKN is not None:
            scores = scores.masked_fill(~there_BKN[:, None, :, None], -torch.inf)
        prototypes = torch.einsum("bmknu,bkue->bmkne", scores.softmax(dim=-1), values)
        return (query_values.unsqueeze(2) - prototypes).square().sum(dim=-1).mean(dim=-1)


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
        """Return the frames' parts in keys and values, by transformer. [P, T, 2, R, E] each"""
        return {str(i): one.by_place(encoded["frames"]) for i, one in self.each()}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return minus the distances, averaged over the transformers. [B, M, K]"""
        found = []
        with torch.autocast(device_type=batch.query["0"].device.type, enabled=False):
            for i, one in self.each():
                query, (keys, values) = (one.keys_and_values(full_precision(side[str(i)]))
                                         for side in (batch.query, batch.support))
                there = batch.given_BKS
                if there is not None:
                    there = there.repeat_interleave(query[0].shape[2], dim=2)
                found.append(one.distances(query, (keys.flatten(2, 3), values.flatten(2, 3)), there))
        return {"tuples": -torch.stack(found).mean(dim=0)}

    def untrained(self) -> set[str]:
        """Name the norms of values, which nothing reads."""
        return {f"transformers.{i}.norm_v.{name}" for i in range(len(self.transformers)) for name in ("weight", "bias")}
