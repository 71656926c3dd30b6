"""Implement TSN for few shots: temporal segment networks (Wang et al., ECCV 2016) with prototypes by cosine.

A clip is the mean of its frames; a query's score for a class is the mean of its cosines with the clips of the class.
There is nothing to learn but the tower.

P clips, T frames, D features, B episodes, M queries, K ways, S shots.
"""

from dataclasses import dataclass

from torch import Tensor

from models.heads.base import FeatureBatch, Features, Head, Role, Scoring
from models.layers.exported import Exportable, Pairwise
from models.layers.similarity import cos_similarity, full_precision
from models.registries import HEADS
from utils.config.fields import NUMBERS, key


@dataclass(frozen=True, slots=True)
class TsnOptions:
    """Holds what can be set, VIDEO.HEAD.OPTIONS."""

    COSINE_SCALE: float = key("the cosines are multiplied by it; published: 1, so the softmax is nearly flat",
                              default=1.0, above=0.0, affects=NUMBERS)


@HEADS.register("CNN_TSN")
class Tsn(Head):
    """Scores a query by its mean cosine with the clips of each class."""

    title, Options = "TSN", TsnOptions
    scorings = (Scoring("cosine", "cosine", "logits"),)

    def in_role(self, features: Features, text_PD: Tensor | None, role: Role) -> Features:
        """Return the mean over frames. [P, D]"""
        return {"clip": full_precision(features["frames"]).mean(dim=1)}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return cosines with single clips, averaged over the shots. [B, M, K]"""
        cosines_BMN = cos_similarity(batch.query["clip"], batch.support["clip"].flatten(1, 2))
        return {"cosine": batch.over_clips(cosines_BMN) * self.options.COSINE_SCALE}

    def exportable(self, scoring: str) -> Exportable:
        """Return the comparison of mean frames, clip by clip."""
        return Exportable(Pairwise(lambda queries, references: cos_similarity(
            queries.mean(dim=1), references.mean(dim=1)) * -self.options.COSINE_SCALE), "never")
