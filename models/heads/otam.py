"""Implement OTAM: few-shot video classification via temporal alignment (Cao et al., CVPR 2020).

Frames of a query and of a support clip cost 1 - cos; the distance of the two clips is the cheapest
alignment that keeps their order, softened by lambda, in both directions. A class's distance is the
mean over its clips; logits = -distance. There is nothing to learn but the tower.

P clips, T frames, D features, B episodes, M queries, K ways, S shots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.heads.base import Alignment, FeatureBatch, Head, Scoring
from models.layers.alignment import ALIGNMENTS, visiting_probabilities
from models.layers.exported import Aligned, Exportable
from models.layers.similarity import frame_costs
from models.registries import HEADS
from utils.config.fields import NUMBERS, key
from utils.phases import phase


@dataclass(frozen=True, slots=True)
class OtamOptions:
    """Holds what can be set, VIDEO.HEAD.OPTIONS."""

    ALIGNMENT: str = key("distance of two frame sequences, from the alignments registry", default="otam",
                         registry=ALIGNMENTS, affects=NUMBERS)
    SMOOTHING: float = key("lambda of the soft minimum", default=0.1, above=0.0, affects=NUMBERS)


@HEADS.register("CNN_OTAM")
class Otam(Head):
    """Scores a query by its alignment with each clip of a class, averaged over the clips."""

    title, Options = "OTAM", OtamOptions
    scorings = (Scoring("aligned", "alignment distance", "distance"),)
    options: OtamOptions

    def distance(self, costs: Tensor, single_direction: bool = False) -> Tensor:
        """Return the alignment's distance of clips from the costs of their frames. [..., T, T] -> [...]"""
        return ALIGNMENTS[self.options.ALIGNMENT](costs, smoothing=self.options.SMOOTHING,
                                                  single_direction=single_direction)

    def costs(self, batch: FeatureBatch) -> Tensor:
        """Return 1 - cos of every query frame with every frame of every support clip. [B, M, K * S, T, T]"""
        return frame_costs(batch.query["frames"], batch.support["frames"].flatten(1, 2))

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return minus the distances of single clips, averaged over the shots. [B, M, K]"""
        device = batch.query["frames"].device.type
        with torch.autocast(device_type=device, enabled=False), phase("alignment"):
            distances_BMN = self.distance(self.costs(batch))
        return {"aligned": -batch.over_clips(distances_BMN)}

    def explain(self, batch: FeatureBatch) -> Alignment:
        """Return the costs, and how probably an alignment visits each cell, averaged over the clips of each class."""
        costs_NTT = self.costs(batch)[0, 0]
        found = (costs_NTT.double(), visiting_probabilities(costs_NTT, self.distance))
        return Alignment(*(batch.over_shots(each.unflatten(0, batch.sizes).unsqueeze(0))[0] for each in found))

    def exportable(self, scoring: str) -> Exportable:
        """Return the alignment, clip by clip."""
        return Exportable(Aligned(self.options.ALIGNMENT, self.setting.frames, self.options.SMOOTHING), "never")
