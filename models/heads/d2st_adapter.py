"""Implement D2ST-Adapter: disentangled-and-deformable spatio-temporal adapters (Pei et al., ICCV 2025, 2312.01431).

All that is new lies in the tower (models/encoders/d2st.py): only adapters, a vector for each place in time, CLIP's
class token and last norm are trained. Frames of a query meet the class's mean frames by Bi-MHM with costs 1 - cosine;
logits = -distance. It reads no text.

P clips, N supports, T frames, D features, B episodes, M queries, K ways, S shots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.encoders.d2st import adapted
from models.heads.base import Alignment, FeatureBatch, Features, Head, Role, Scoring, Setting
from models.layers.alignment import mean_hausdorff, visiting_probabilities
from models.layers.similarity import unit
from models.registries import HEADS
from utils.config.fields import NUMBERS, TRAINING, key
from utils.episode import Episode, EpisodeOutput
from utils.errors import ConfigError
from utils.phases import phase

TRAINED = ("class_embedding", "temporal_embedding", "Adapter", "ln_post", "classification_layer")  # parts of names


@dataclass(frozen=True, slots=True)
class D2stOptions:
    """Holds the switches of the method, VIDEO.HEAD.OPTIONS."""

    ADAPTER_SCALE: float = key("channels of an adapter, as a share of its block's", default=0.25, above=0.0,
                               maximum=1.0, affects=NUMBERS)
    USE_CLASSIFICATION_VALUE: float | None = key("weight of the classification of training classes; null: none",
                                                 default=None, minimum=0.0, affects=TRAINING)
    HAUSDORFF_MEAN: bool = key("Bi-MHM takes means over frames; false: sums, as published", default=False,
                               affects=NUMBERS)


@HEADS.register("D2ST_ADAPTER")
class D2stAdapter(Head):
    """Scores queries by set matching with the class's mean frames."""

    title, Options = "D2ST-Adapter", D2stOptions
    scorings = (Scoring("set_matching", "set matching distance", "distance"),)
    options: D2stOptions

    def __init__(self, encoder: Encoder, setting: Setting, options: D2stOptions | None = None):
        super().__init__(encoder, setting, options)
        tower = adapted(encoder.visual, setting.frames, self.options.ADAPTER_SCALE)
        self.backbone, self.dim = tower, tower.dim
        if self.options.USE_CLASSIFICATION_VALUE is not None:
            if not setting.train_classes:
                raise ConfigError(["DATA.CLASSES: expected the names of the training classes, as "
                                   "USE_CLASSIFICATION_VALUE asks for a classifier of them, found none"])
            self.classification_layer = nn.Linear(self.dim, setting.train_classes)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(part in name for part in TRAINED))

    def costs(self, batch: FeatureBatch) -> Tensor:
        """Return 1 - cosine of every query frame with every frame of the class means. [B, M, K, T, T]"""
        query_BMTD, class_BKTD = unit(batch.query["frames"]), unit(batch.prototypes("frames"))
        return 1 - torch.einsum("bmtd,bkud->bmktu", query_BMTD, class_BKTD)

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return minus the distances. [B, M, K]"""
        with torch.autocast(device_type=batch.query["frames"].device.type, enabled=False), phase("alignment"):
            return {"set_matching": -mean_hausdorff(self.costs(batch), average=self.options.HAUSDORFF_MEAN)}

    def output(self, episode: Episode, encoded: Mapping[Role, Features], text_GD: Tensor | None) -> EpisodeOutput:
        """Add class_logits [N + M, classes], supports first."""
        output = super().output(episode, encoded, text_GD)
        if self.options.USE_CLASSIFICATION_VALUE is None:
            return output
        frames = torch.cat([encoded[role]["frames"] for role in ("support", "query")])
        return replace(output, aux={"class_logits": self.classification_layer(frames.mean(dim=1))})

    def losses(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """Return (CE(logits) + V * CE(class_logits)) / divisor, as two terms."""
        losses, weight = super().losses(output, episode), self.options.USE_CLASSIFICATION_VALUE
        if weight is not None:
            loss = F.cross_entropy(output.aux["class_logits"], episode.classes_P)
            losses["classification"] = self.weighted(loss, weight)
        return losses

    def explain(self, batch: FeatureBatch) -> Alignment:
        """Return the costs, and which prototype frame each query frame is nearest to."""
        costs_KTT = self.costs(batch)[0, 0]
        return Alignment(costs_KTT.double(), visiting_probabilities(costs_KTT, mean_hausdorff))
