"""Implement HyRSM: hybrid relation guided set matching (Wang et al., CVPR 2022).

Intra-relation: self-attention over the frames of each clip. Inter-relation: for each query apart, the
means of all supports and of the query attend to each other, and every frame is mapped anew together with what its clip
became there, so supports look different to each query. Set matching: Bi-MHM.

`CNN_HyRSM_1shot` relates single clips and averages their distances; `CNN_HyRSM_5shot` relates class means.

N supports, P clips, T frames, D features, B episodes, M queries, K ways, S shots, U support tokens (K * S, or K).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.heads.base import Alignment, FeatureBatch, Features, Head, Role, Scoring, Setting
from models.layers.alignment import mean_hausdorff, visiting_probabilities
from models.layers.modulator import PreNorm
from models.layers.relation import InterRelation, JointAttention, RelationOptions
from models.layers.similarity import Products, full_precision
from models.registries import HEADS
from utils.episode import Episode, EpisodeOutput
from utils.phases import phase


@dataclass(frozen=True, slots=True)
class HyrsmOptions(RelationOptions):
    """Holds the switches of the method, VIDEO.HEAD.OPTIONS."""

    def problems(self) -> list[str]:
        """Add that the public code fails unless frames are classified: it has T times more class scores than labels."""
        found = RelationOptions.problems(self)
        if self.ONLY_PUBLISHED and self.USE_CLASSIFICATION and (self.USE_CLASSIFICATION_ONLY or not self.USE_LOCAL):
            found += ["USE_LOCAL: expected true, and USE_CLASSIFICATION_ONLY false, with USE_CLASSIFICATION, as the "
                      "public code fails otherwise; ONLY_PUBLISHED false (protocol clean) allows it"]
        return found


@HEADS.register("CNN_HyRSM_1shot")
class Hyrsm(Head):
    """Scores queries by set matching of related frames."""

    title, Options = "HyRSM", HyrsmOptions
    scorings = (Scoring("set_matching", "set matching distance", "distance"),)
    merges_shots: ClassVar[bool] = False  # whether the clips of a class are averaged before they are related
    options: RelationOptions

    def __init__(self, encoder: Encoder, setting: Setting, options: RelationOptions | None = None):
        super().__init__(encoder, setting, options)
        dim, heads = encoder.dim, self.options.heads
        self.pe: nn.Module = self.options.positions(dim, setting.frames)
        self.temporal_atte_before = PreNorm(dim, JointAttention(dim, heads))
        self.temporal_atte = InterRelation(dim, heads)
        self.layer2 = nn.Sequential(nn.Conv1d(2 * dim, dim, 1))
        self.classification_layer: nn.Module | None = self.options.classifier(dim, setting.train_classes)

    @property
    def mapping(self) -> nn.Conv1d:
        """Gives the map of [frame ; related clip], by its published name layer2.0."""
        return cast(nn.Conv1d, self.layer2[0])

    def parts(self) -> dict[str, nn.Module]:
        """Return tower and inter-relation."""
        return {"encoder": self.backbone, "relation": self.temporal_atte}

    def clip_features(self, encoded: Features) -> Features:
        """Return intra-related frames f, and the half of layer2 that sees them alone: its map of [f ; r] is a sum."""
        x_PTD = self.pe(encoded["frames"])
        frames_PTD = (x_PTD + self.temporal_atte_before(x_PTD)).relu()
        mapped = F.linear(frames_PTD, self.mapping.weight[:, :self.dim, 0], self.mapping.bias)
        return {"frames": frames_PTD, "mapped": mapped}

    def supports(self, batch: FeatureBatch) -> tuple[Features, Tensor | None]:
        """Return the features that are related, each [B, U, ...], and which of them are there (None: all)."""
        if self.merges_shots:
            return {name: batch.prototypes(name) for name in batch.support}, None
        there = None if batch.given_BKS is None else batch.given_BKS.flatten(1)
        return {name: value.flatten(1, 2) for name, value in batch.support.items()}, there

    def relate(self, support: Features, query: Features, there_BU: Tensor | None = None) -> Products:
        """Return the inner products of frames as each query sees them: it sees supports as m + h, one h for all frames
        of a clip, so they are sums of those of m and h, and the [B, M, U, T, D] frames need not be made."""
        with phase("relation"):
            tokens = self.part("relation")(support["frames"].mean(dim=2), query["frames"].mean(dim=2), there_BU).relu()
        shift_BMUD = F.linear(tokens, self.mapping.weight[:, self.dim:, 0])
        with torch.autocast(device_type=tokens.device.type, enabled=False), phase("alignment"):
            h, own_h = full_precision(shift_BMUD).split([shift_BMUD.shape[2] - 1, 1], dim=2)
            m, q = full_precision(support["mapped"]), full_precision(query["mapped"]) + own_h
            m_h = torch.einsum("butd,bmud->bmut", m, h)
            cross = (q.flatten(1, 2) @ m.flatten(1, 2).transpose(1, 2)).unflatten(2, m.shape[1:3])
            return Products(
                cross.unflatten(1, q.shape[1:3]).transpose(2, 3) + (h @ q.transpose(-1, -2)).unsqueeze(-1),
                ((m @ m.transpose(-1, -2)).unsqueeze(1) + h.square().sum(dim=-1)[..., None, None]
                 + m_h.unsqueeze(-1) + m_h.unsqueeze(-2)), q @ q.transpose(-1, -2))

    def distances(self, related: Products) -> Tensor:
        """Return set matching distances of related frames. [B, M, U]"""
        with torch.autocast(device_type=related.cross.device.type, enabled=False), phase("alignment"):
            return mean_hausdorff(related.costs, average=self.options.HAUSDORFF_MEAN)

    def scores(self, batch: FeatureBatch, distances_BMU: Tensor) -> dict[str, Tensor]:
        """Return minus the distances of classes, which are means over single clips unless shots were merged."""
        return {"set_matching": -(distances_BMU if self.merges_shots else batch.over_clips(distances_BMU))}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return minus the set matching distances. [B, M, K]"""
        support, there = self.supports(batch)
        return self.scores(batch, self.distances(self.relate(support, batch.query, there)))

    def output(self, episode: Episode, encoded: Mapping[Role, Features], text_GD: Tensor | None) -> EpisodeOutput:
        """Add class_logits [(N + M) * T, classes], supports first, and what the method regularises."""
        features = {role: self.clip_features(one) for role, one in encoded.items()}
        batch = self.batch_of(episode, text_GD, features)
        support, there = self.supports(batch)
        related = self.relate(support, batch.query, there)
        scores = {name: values[0] for name, values in self.scores(batch, self.distances(related)).items()}
        aux = self.regularised(related, there)
        if self.classification_layer is not None:
            frames = torch.cat([features[role]["frames"] for role in ("support", "query")])
            aux["class_logits"] = self.classification_layer(frames).flatten(0, 1)
        return replace(EpisodeOutput(scores["set_matching"], scores), aux=aux)

    def regularised(self, related: Products, there_BU: Tensor | None) -> dict[str, Tensor]:
        """Return what the loss has beside classes and distances: nothing."""
        return {}

    def losses(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """Return CE(logits) + V * CE(class_logits of every frame), over the divisor."""
        options, losses = self.options, {}
        if not (options.USE_CLASSIFICATION and options.USE_CLASSIFICATION_ONLY):
            losses = super().losses(output, episode)
        if options.USE_CLASSIFICATION:
            classes = episode.classes_P.repeat_interleave(episode.query_MTCHW.shape[1])
            loss = F.cross_entropy(output.aux["class_logits"], classes)
            losses["classification"] = self.weighted(loss, options.USE_CLASSIFICATION_VALUE or 0.0)
        return losses

    def untrained(self) -> set[str]:
        """Name the classifier where it is not in the loss, or all that is behind it where it is alone there."""
        behind = ("temporal_atte.", "layer2.") if self.options.USE_CLASSIFICATION_ONLY else ()
        idle = behind if self.options.USE_CLASSIFICATION else ("classification_layer.",)
        return {name for name, _ in self.named_parameters() if name.startswith(idle)}

    def explain(self, batch: FeatureBatch) -> Alignment:
        """Return the costs of related frames, and which support frame each query frame is nearest to."""
        support, there = self.supports(batch)
        costs_UTT = self.relate(support, batch.query, there).costs[0, 0]
        found = (costs_UTT.double(), visiting_probabilities(costs_UTT, mean_hausdorff))
        if self.merges_shots:
            return Alignment(*found)
        return Alignment(*(batch.over_shots(x.unflatten(0, batch.sizes).unsqueeze(0))[0] for x in found))


@HEADS.register("CNN_HyRSM_5shot")
class Hyrsm5Shot(Hyrsm):
    """Is HyRSM for several shots: class means are related."""

    merges_shots = True
