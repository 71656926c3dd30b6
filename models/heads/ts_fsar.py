"""Implement TS-FSAR: a side network beside a frozen CLIP, and distance correlation (Long et al., AAAI 2026).

A frame is the dependence of its channels on each other over its patches, weighted by their likeness to the class token
(alpha-DC). Frames of a query meet those of the class means; a task vector, of this query and all supports,
says how much each pair of places in time counts (TS-DCM). Two text scores, by CLIP's own features and by
those of the side network, are compared with class texts; a test fuses all three.

P clips, N supports, T frames, L tokens, d width of the side network, R = d (d + 1) / 2, E text width, B episodes,
M queries, K ways, S shots, G training classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.encoders.side_network import SideNetwork
from models.heads.base import FeatureBatch, Features, Group, Head, Role, Scoring, Setting, needed
from models.layers.distance_correlation import distance_covariance
from models.layers.similarity import cos_similarity, full_precision, unit
from models.registries import HEADS
from utils.config.fields import NUMBERS, SCORING, TRAINING, key
from utils.episode import Episode, EpisodeOutput
from utils.phases import phase

WEIGHT_DECAY = 0.1


@dataclass(frozen=True, slots=True)
class TsFsarOptions:
    """Holds the switches of the method, VIDEO.HEAD.OPTIONS."""

    OUTPUT_DIM: int | None = key("d, width of the side network; null: 256, or the tower's where that is smaller",
                                 default=None, minimum=1, affects=NUMBERS)
    TEMP_LAYERS: tuple[int, ...] = key("blocks, from 0, that attend over time", default=(6, 8, 10), affects=NUMBERS)
    DC_ALPHA: float = key("power of squared distances", default=0.4, above=0.0, affects=NUMBERS)
    RES_ALPHA: float = key("share of the attention in the adapter of CLIP's features", default=0.4, affects=NUMBERS)
    PCA_START: bool = key("side blocks start from the main components of the tower's weights", default=True,
                          affects=TRAINING)
    TEMP_CLIP: float = key("scale of the text score by CLIP's features", default=50.0, above=0.0, affects=NUMBERS)
    TEMP_SIDE: float = key("scale of the text score by side features", default=50.0, above=0.0, affects=NUMBERS)
    FUSE_VISION: float = key("exponent of the prototypes in the fused score", default=0.15, affects=SCORING)
    FUSE_CLIP: float = key("exponent of the text score by CLIP's features", default=0.8, affects=SCORING)
    FUSE_SIDE: float = key("exponent of the text score by side features", default=0.05, affects=SCORING)
    VIS_ALPHA: float = key("weight of the few-shot loss", default=1.0, minimum=0.0, affects=TRAINING)
    CLS_ALPHA: float = key("weight of the classification by alpha-DC", default=1.0, minimum=0.0, affects=TRAINING)
    SIDE_CLS_ALPHA: float = key("weight of the text loss of side features", default=1.0, minimum=0.0, affects=TRAINING)
    KD_ALPHA: float = key("weight of the text loss of CLIP's features, and of distilling it", default=6.0, minimum=0.0,
                          affects=TRAINING)
    KD_T: float = key("temperature of distilling", default=10.0, above=0.0, affects=TRAINING)
    DROPOUT: float = key("dropout before the classification", default=0.7, minimum=0.0, maximum=1.0, affects=TRAINING)
    GENERATOR_LR_SCALE: float = key("learning rate of the task weights, as a multiple", default=0.5, affects=TRAINING)
    ADAPTER_ALPHA: float = key("learning rate of the adapter, as a multiple", default=0.5, affects=TRAINING)


@HEADS.register("TS_FSAR")
class TsFsar(Head):
    """Scores queries by distance correlation with class means, by text twice, and by all three."""

    title, Options, reads_text = "TS-FSAR", TsFsarOptions, True
    scorings = (Scoring("prototypes", "prototypes", "logits"),
                Scoring("fused", "prototypes fused with two text scores", "probabilities"),
                Scoring("text", "text, by CLIP's features", "logits"),
                Scoring("side_text", "text, by side features", "logits"))
    options: TsFsarOptions
    backbone: SideNetwork

    def __init__(self, encoder: Encoder, setting: Setting, options: TsFsarOptions | None = None):
        super().__init__(encoder, setting, options)
        own = self.options
        tower = SideNetwork(encoder.visual, encoder.dim, own.OUTPUT_DIM, own.TEMP_LAYERS, own.RES_ALPHA,
                            classes=max(1, setting.train_classes))
        tower.visual.requires_grad_(False)
        if own.PCA_START:
            tower.start()
        self.backbone, self.class_dropout = tower, nn.Dropout(own.DROPOUT)
        self.ts_dcm = nn.ModuleDict({"generator": nn.Linear(tower.dim, setting.frames ** 2, bias=False)})

    @property
    def headline(self) -> str:
        """Names the scoring of a test: fused, as published."""
        return "fused"

    def encode(self, clips_PTCHW: Tensor) -> Features:
        """Return side tokens [P, T, L, d] and CLIP's features [P, T, E]."""
        with phase("encoder"):
            tokens, frames = self.part("encoder")(clips_PTCHW)
        return {"tokens": tokens, "frames": frames}

    def clip_features(self, encoded: Features) -> Features:
        """Return alpha-DC [P, T, R], class tokens [P, T, d], and both unit vectors [P, E] that meet texts."""
        tokens = full_precision(encoded["tokens"])
        first, patches = tokens[:, :, :1], tokens[:, :, 1:]
        weighted = F.cosine_similarity(first, patches, dim=-1).unsqueeze(-1) * patches
        tower = self.backbone
        return {"dependence": distance_covariance(weighted.transpose(-1, -2), self.options.DC_ALPHA),
                "token": first.squeeze(2), "clip": unit(tower.Adapter(encoded["frames"]).mean(dim=1)),
                "side": unit(tower.up_linear(tower.up_ln(first.squeeze(2))).mean(dim=1))}

    def prototype_scores(self, batch: FeatureBatch) -> Tensor:
        """Return the weighted sum of cosines of query frames and class-mean frames. [B, M, K]"""
        query_BMTR, class_BKTR = batch.query["dependence"], batch.prototypes("dependence")
        cosines = cos_similarity(query_BMTR.flatten(1, 2), class_BKTR.flatten(1, 2))
        cosines_BMTKT = cosines.unflatten(2, class_BKTR.shape[1:3]).unflatten(1, query_BMTR.shape[1:3])
        supports_BND = batch.support["token"].mean(dim=3).flatten(1, 2)
        given = None if batch.given_BKS is None else batch.given_BKS.flatten(1).unsqueeze(-1).to(supports_BND)
        support_BD = supports_BND.mean(1) if given is None else (supports_BND * given).sum(1) / given.sum(1)
        weights = self.ts_dcm["generator"](batch.query["token"].mean(dim=2) + support_BD.unsqueeze(1))
        return torch.einsum("bmtku,bmtu->bmk", cosines_BMTKT, weights.unflatten(-1, (query_BMTR.shape[2], -1)))

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the four scorings; in training the first alone."""
        options = self.options
        with torch.autocast(device_type=batch.query["token"].device.type, enabled=False), phase("alignment"):
            prototypes = self.prototype_scores(batch)
        if self.training:
            return {"prototypes": prototypes}
        text_BEK = unit(needed(batch.text_BKD)).transpose(-1, -2)
        clip = options.TEMP_CLIP * batch.query["clip"] @ text_BEK
        side = options.TEMP_SIDE * batch.query["side"] @ text_BEK
        fused = (prototypes.softmax(-1) ** options.FUSE_VISION * clip.softmax(-1) ** options.FUSE_CLIP
                 * side.softmax(-1) ** options.FUSE_SIDE)
        return {"prototypes": prototypes, "fused": fused, "text": clip, "side_text": side}

    def output(self, episode: Episode, encoded: Mapping[Role, Features], text_GD: Tensor | None) -> EpisodeOutput:
        """Add three kinds of class scores [N + M, G] in training, supports first: dc, clip and side."""
        if not self.training:
            return super().output(episode, encoded, text_GD)
        features = {role: self.clip_features(one) for role, one in encoded.items()}
        scores = self.match(self.batch_of(episode, text_GD, features))["prototypes"][0]
        clips = {name: torch.cat([features["support"][name], features["query"][name]])
                 for name in ("dependence", "clip", "side")}
        text_EG = unit(needed(text_GD)).transpose(0, 1)
        return replace(EpisodeOutput(scores, {"prototypes": scores}), aux={
            "dc": self.backbone.Linear(self.class_dropout(clips["dependence"].mean(dim=1))),
            "clip": self.options.TEMP_CLIP * clips["clip"] @ text_EG,
            "side": self.options.TEMP_SIDE * clips["side"] @ text_EG})

    def losses(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """Return the five losses; both sides of the distillation get gradients, as published."""
        options, aux = self.options, output.aux
        classes = episode.classes_P
        log_dc, log_clip = ((aux[name] / options.KD_T).log_softmax(dim=-1) for name in ("dc", "clip"))
        distilled = options.KD_T ** 2 * F.kl_div(log_dc, log_clip, reduction="batchmean", log_target=True)
        weights = {"dc": options.CLS_ALPHA, "side": options.SIDE_CLS_ALPHA, "clip": options.KD_ALPHA}
        return {"few_shot": self.weighted(F.cross_entropy(output.logits_MK, episode.query_labels_M), options.VIS_ALPHA),
                **{name: self.weighted(F.cross_entropy(aux[name], classes), own) for name, own in weights.items()},
                "kl": self.weighted(distilled, options.KD_ALPHA)}

    def parameter_groups(self) -> list[Group]:
        """Return the four published groups: classifiers, task weights, side network, adapter."""
        rules = (("head", ("Linear", "up_linear", "up_ln"), 1.0), ("side", ("side",), 1.0),
                 ("generator", ("generator",), self.options.GENERATOR_LR_SCALE),
                 ("adapter", ("Adapter",), self.options.ADAPTER_ALPHA))
        groups: dict[str, list[nn.Parameter]] = {name: [] for name, _, _ in rules}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                own = next(group for group, parts, _ in rules if any(part in name for part in parts))
                groups[own].append(parameter)
        return [Group(name, groups[name], scale, WEIGHT_DECAY) for name, _, scale in rules]
