"""Implement CrossTransformer for clips: spatially-aware few-shot transfer (Doersch et al., NeurIPS 2020), over frames.

All support frames of a class are one pool. A query frame attends to the pool by keys, and is compared, by the cosine,
with the mixture of the pool's values that it attends to; a query's score for the class is the sum over its frames.

P clips, T frames, D features, E width of keys and values, B episodes, M queries, K ways, S shots.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.heads.base import FeatureBatch, Features, Head, Scoring, Setting
from models.layers.similarity import full_precision, unit
from models.registries import HEADS
from utils.config.fields import NUMBERS, TRAINING, key
from utils.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CrossTransformerOptions:
    """Holds what can be set, VIDEO.HEAD.OPTIONS."""

    HIDDEN_DIM: int = key("E, width of keys and values", default=1024, minimum=1, affects=NUMBERS)
    FRAMES_DIVISOR: int | None = key("the sum over frames is divided by it; null: the clip's frames; published: 8",
                                     default=8, minimum=1, affects=NUMBERS)
    ONLY_PUBLISHED: bool = key("refuse switches and episodes with which the public code fails", default=True,
                               affects=TRAINING)


@HEADS.register("CNN_CrossTransformer")
class CrossTransformer(Head):
    """Scores queries by their frames' cosines with what they attend to in each class."""

    title, Options = "CrossTransformer", CrossTransformerOptions
    scorings = (Scoring("similarity", "similarity of aligned frames", "logits"),)
    options: CrossTransformerOptions

    def __init__(self, encoder: Encoder, setting: Setting, options: CrossTransformerOptions | None = None):
        super().__init__(encoder, setting, options)
        if self.options.ONLY_PUBLISHED and len(set(setting.episodes)) > 1:
            raise ConfigError(["TRAIN.SHOT_TEST, TRAIN.WAY_TEST: expected those of training, as the public code's "
                               f"scores for other episodes are wrong, found (ways, shots) {setting.episodes[1]} and "
                               f"{setting.episodes[0]}; VIDEO.HEAD.OPTIONS.ONLY_PUBLISHED false (protocol clean) "
                               "allows it"])
        self.key_head = nn.Conv1d(encoder.dim, self.options.HIDDEN_DIM, 1, bias=False)
        self.query_head = self.key_head  # one module under two names, as published
        self.value_head = nn.Conv1d(encoder.dim, self.options.HIDDEN_DIM, 1, bias=False)

    def clip_features(self, encoded: Features) -> Features:
        """Return keys and values of frames. [P, T, E] each"""
        frames_PDT = encoded["frames"].transpose(1, 2)
        return {name: full_precision(head(frames_PDT).transpose(1, 2))
                for name, head in (("keys", self.key_head), ("values", self.value_head))}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the summed cosines of query frames and what they attend to, over the divisor. [B, M, K]"""
        keys, values = (rearrange(batch.support[name], "b k s t e -> b k (s t) e") for name in ("keys", "values"))
        query_keys, query_values = batch.query["keys"], batch.query["values"]
        frames = query_keys.shape[2]
        with torch.autocast(device_type=keys.device.type, enabled=False):
            scores = torch.einsum("bmte,bkue->bmktu", query_keys, keys) / math.sqrt(keys.shape[-1])
            if batch.given_BKS is not None:
                there = batch.given_BKS.repeat_interleave(frames, dim=2)
                scores = scores.masked_fill(~there[:, None, :, None], -torch.inf)
            aligned = torch.einsum("bmktu,bkue->bmkte", scores.softmax(dim=-1), values)
            cosines = (unit(aligned) * unit(query_values).unsqueeze(2)).sum(dim=-1)
        return {"similarity": cosines.sum(dim=-1) / (self.options.FRAMES_DIVISOR or frames)}
