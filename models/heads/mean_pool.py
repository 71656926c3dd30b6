"""Adapt TSN to few shots: a clip is the mean of its frames, a class the mean of its clips; cosines compare them.

Temporal segment networks average the frames of a clip (Wang et al., ECCV 2016); prototypes are class means, as in
prototypical networks (Snell et al., NeurIPS 2017). P clips, T frames, D features, B episodes, M queries, K ways.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from models.heads.base import FeatureBatch, Features, Head, Role, Scoring
from models.registries import HEADS
from utils.config.fields import NUMBERS, key


@dataclass(frozen=True, slots=True)
class MeanPoolOptions:
    """Holds what can be set, VIDEO.HEAD.OPTIONS."""

    TEMPERATURE: float = key("the cosine is divided by it", default=0.1, above=0.0, affects=NUMBERS)


@HEADS.register("MEAN_POOL")
class MeanPool(Head):
    """Scores a query by the cosine of its mean frame with the mean frame of each class. It reads no text."""

    title, Options = "mean pooling", MeanPoolOptions
    scorings = (Scoring("cosine", "cosine", "logits"),)

    def in_role(self, features: Features, text_PD: Tensor | None, role: Role) -> Features:
        """Return the mean over frames. [P, D]"""
        return {"clip": features["frames"].mean(dim=1)}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return cosines over the temperature. [B, M, K]"""
        cosines = F.cosine_similarity(batch.query["clip"].unsqueeze(2), batch.prototypes("clip").unsqueeze(1), dim=-1)
        return {"cosine": cosines / self.options.TEMPERATURE}
