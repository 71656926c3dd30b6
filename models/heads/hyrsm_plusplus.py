"""Implement HyRSM++: hybrid relation guided temporal set matching (Wang et al., arXiv 2301.03330).

To HyRSM (hyrsm.py) it adds temporal coherence: within a clip, frames that are near in time should be
near in features, and distant ones apart. For frames i, j of a window w and a balance b,

    L = 1 where |i - j| <= w, else 0;    R = 1 / ((i - j)^2 + 1) in the window, 1 - exp(-(|i - j| - w)^2 / b) outside;
    cost = mean over all i, j of  L R D + c (1 - L) max(R - D, 0),    D = 1 - cosine of frames i and j.

`CNN_HyRSM_plusplus_semi` lets clips without labels, of which it is sure, join the class means.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from models.encoders.base import Encoder
from models.heads.base import FeatureBatch, Features, Setting
from models.heads.hyrsm import Hyrsm, HyrsmOptions
from models.layers.relation import temporal_relation
from models.layers.similarity import Products, cosines
from models.registries import HEADS
from utils.config.fields import NUMBERS, SCORING, TRAINING, key
from utils.episode import Episode, EpisodeOutput
from utils.errors import HeadError


@dataclass(frozen=True, slots=True)
class PlusPlusOptions(HyrsmOptions):
    """Holds the switches of the method, VIDEO.HEAD.OPTIONS."""

    NO_POSITION: bool | None = key("no positions, no scaling of frames; null: not set. It gives way to POSITION_A and "
                                   "_B", default=None, affects=NUMBERS)
    PRESENT_IS_ON: bool = key("NO_POSITION false means on, too, as published", default=True, affects=NUMBERS)
    WINDOW_SIZE: int = key("frames at most so far apart should be alike", default=3, minimum=0, affects=TRAINING)
    TEMPORAL_BALANCE: float = key("b: how fast distant frames should differ", default=23.0, above=0.0,
                                  affects=TRAINING)
    BALANCE_COEFFICIENT: float | None = key("c: weight of distant frames; null or 0: 1", default=None, minimum=0.0,
                                            affects=TRAINING)
    TEMPORAL_LOSS_WEIGHT: float | None = key("weight of temporal coherence; null or 0: none", default=None,
                                             minimum=0.0, affects=TRAINING)
    LOSSES_NEED_CLASSIFICATION: bool = key("without USE_CLASSIFICATION there is no temporal coherence either, as "
                                           "published", default=True, affects=TRAINING)

    @property
    def coherent(self) -> bool:
        """Tells whether temporal coherence is in the loss."""
        alone = self.USE_CLASSIFICATION and self.USE_CLASSIFICATION_ONLY
        return bool(self.TEMPORAL_LOSS_WEIGHT) and not alone and (
            self.USE_CLASSIFICATION or not self.LOSSES_NEED_CLASSIFICATION)

    @property
    def without_positions(self) -> bool:
        """Tells whether frames stay as they are."""
        asked = self.NO_POSITION is not None if self.PRESENT_IS_ON else bool(self.NO_POSITION)
        return asked and (self.POSITION_A is None or self.POSITION_B is None)


@HEADS.register("CNN_HyRSM_plusplus_1shot")
class PlusPlus(Hyrsm):
    """Scores queries as HyRSM does, and regularises the frames of each clip in time."""

    title, Options = "HyRSM++", PlusPlusOptions
    options: PlusPlusOptions
    always_classifies = False

    def __init__(self, encoder: Encoder, setting: Setting, options: PlusPlusOptions | None = None):
        super().__init__(encoder, setting, options)
        if self.options.without_positions:
            self.pe = torch.nn.Identity()
        if not (self.options.USE_CLASSIFICATION or self.always_classifies):
            self.classification_layer = None

    def coherence(self, products: Tensor) -> Tensor:
        """Return the cost of each sequence of frames, from their inner products. [..., T, T] -> [...]"""
        options, distance = self.options, 1 - cosines(products, products, products)
        relation, near = (each.to(distance) for each in temporal_relation(
            distance.shape[-1], options.WINDOW_SIZE, options.TEMPORAL_BALANCE, distance.device))
        far = (options.BALANCE_COEFFICIENT or 1.0) * (1 - near) * (relation - distance).relu()
        return (near * relation * distance + far).mean(dim=(-2, -1))

    def regularised(self, related: Products, there_BU: Tensor | None) -> dict[str, Tensor]:
        """Return the cost of supports as each query sees them, plus that of queries."""
        support_BMU, query = self.coherence(related.support), self.coherence(related.query).mean()
        if there_BU is None:
            return {"temporal": support_BMU.mean() + query}
        return {"temporal": torch.where(there_BU, support_BMU.mean(dim=1), 0).sum() / there_BU.sum() + query}

    def losses(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """Add temporal coherence to HyRSM's losses."""
        losses = super().losses(output, episode)
        if self.options.coherent:
            losses["temporal"] = self.weighted(output.aux["temporal"], cast(float, self.options.TEMPORAL_LOSS_WEIGHT))
        return losses


@HEADS.register("CNN_HyRSM_plusplus_5shot")
class PlusPlus5Shot(PlusPlus):
    """Is HyRSM++ for several shots: class means are related."""

    merges_shots = True


@dataclass(frozen=True, slots=True)
class SemiOptions(PlusPlusOptions):
    """Holds the switches of the semi-supervised form, VIDEO.HEAD.OPTIONS."""

    SEMI_TEMPORAL: float | None = key("temperature of the probabilities of unlabelled clips", default=None, above=0.0,
                                      affects=SCORING)
    SEMI_THRESHOLD: float | None = key("an unlabelled clip joins the class of at least this probability", default=None,
                                       minimum=0.0, maximum=1.0, affects=SCORING)
    FIRST_NEEDS_OTHERS: bool = key("the first unlabelled clip does not join alone, as published", default=True,
                                   affects=SCORING)


@HEADS.register("CNN_HyRSM_plusplus_semi")
class PlusPlusSemi(PlusPlus):
    """Is HyRSM++ for several shots, whose class means also take in unlabelled clips that are near one class."""

    title, Options = "HyRSM++ (semi-supervised)", SemiOptions
    options: SemiOptions
    merges_shots, always_classifies = True, True

    @torch.no_grad()
    def joining(self, support: Features, unlabelled: Features) -> Tensor:
        """Return 1 where an unlabelled clip joins a class, else 0. [B, clips, K]"""
        options = self.options
        if options.SEMI_TEMPORAL is None or options.SEMI_THRESHOLD is None:
            raise HeadError("expected VIDEO.HEAD.OPTIONS.SEMI_TEMPORAL and SEMI_THRESHOLD, as episodes have unlabelled "
                            "clips, found none")
        chances = (-self.distances(self.relate(support, unlabelled)) / options.SEMI_TEMPORAL).softmax(dim=-1)
        kept = chances.amax(dim=-1) >= options.SEMI_THRESHOLD
        if options.FIRST_NEEDS_OTHERS:
            kept = kept & kept[:, 1:].any(dim=1, keepdim=True)
        return F.one_hot(chances.argmax(dim=-1), chances.shape[-1]) * kept.unsqueeze(-1)

    def supports(self, batch: FeatureBatch) -> tuple[Features, Tensor | None]:
        """Return the means of labelled and joining clips."""
        support, there = super().supports(batch)
        if batch.unlabelled is None:
            return support, there
        joins_BUK = self.joining(support, batch.unlabelled).to(support["frames"])
        shots = batch.sizes[1] if batch.given_BKS is None else batch.given_BKS.sum(dim=2)[..., None, None]
        total = shots + joins_BUK.sum(dim=1)[..., None, None]
        joined = {name: torch.einsum("buk,butd->bktd", joins_BUK, value) for name, value in batch.unlabelled.items()}
        return {name: (mean * shots + joined[name]) / total for name, mean in support.items()}, there
