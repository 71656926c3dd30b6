"""Implement CLIP-FSAR: CLIP-guided prototype modulating (Wang et al., IJCV 2023).

A visual tower g gives frame features; the text features of the class names do two things:
 - video-text contrast: class_logits = scale * cos(mean over frames of g, text of each training class);
 - prototype modulation: support tokens [T frames ; class text] and query tokens [T frames] pass the modulator h;
   prototypes are class means of modulated supports (or modulated class means: MERGE_BEFORE).
Queries meet prototypes frame by frame with costs 1 - cos, joined by OTAM in both directions;
logits = -distance.

Evaluation gives three scorings at once, which must never be mixed: prototypes (-distance), text (softmax over the ways
of scale * cosine with the class texts), and their product, fused (COMBINE).

N = way*shot supports, M queries, K ways, S shots, T frames, D features, G classes of a split, P clips, B episodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.heads.base import Alignment, FeatureBatch, Features, Head, Role, Scoring, Setting, needed
from models.layers.alignment import ALIGNMENTS, visiting_probabilities
from models.layers.modulator import MODULATORS
from models.layers.similarity import cos_similarity, frame_costs, full_precision
from models.registries import HEADS
from utils.config.fields import NUMBERS, SCORING, TRAINING, key
from utils.episode import Episode, EpisodeOutput
from utils.phases import phase

DEFAULT_TEXT_WEIGHT = 0.9


@dataclass(frozen=True, slots=True)
class ClipFsarOptions:
    """Holds the switches of the method, VIDEO.HEAD.OPTIONS."""

    MERGE_BEFORE: bool = key("average the supports of a class before modulating, not after", default=False,
                             affects=NUMBERS)
    SINGLE_DIRECT: bool = key("OTAM in one direction (query to support) only", default=False, affects=NUMBERS)
    TRANSFORMER_DEPTH: int = key("layers of the modulator", default=1, minimum=1, maximum=1000, affects=NUMBERS)
    MODULATOR: str = key("prototype modulator; identity: CLIP without training, text at CLIP's own logit scale",
                         default="transformer", registry=MODULATORS, affects=NUMBERS)
    ALIGNMENT: str = key("distance of two frame sequences, from the alignments registry", default="otam",
                         registry=ALIGNMENTS, affects=NUMBERS)
    SMOOTHING: float = key("lambda of the soft minimum in OTAM", default=0.5, above=0.0, affects=NUMBERS)
    USE_CLASSIFICATION: bool = key("add the video-text contrast to the loss", default=True, affects=TRAINING)
    USE_CLASSIFICATION_VALUE: float = key("weight of the video-text contrast", default=1.5, minimum=0, affects=TRAINING)
    USE_CLASSIFICATION_ONLY: bool = key("the video-text contrast is the whole loss", default=False, affects=TRAINING)
    EVAL_TEXT: bool = key("evaluation: classify by text alone", default=False, affects=SCORING)
    COMBINE: bool = key("evaluation: fuse text and prototypes, p_text^a * p_vis^(1-a)", default=False, affects=SCORING)
    TEXT_COFF: float | None = key("weight a of the text in COMBINE; null or 0: 0.9, as published", default=None,
                                  minimum=0.0, maximum=1.0, affects=SCORING)
    COMBINE_FRAMES: int | None = key("T of COMBINE's p_vis = softmax((T - distance) / T); null: the clip's frames",
                                     default=8, minimum=1, affects=SCORING)

    @property
    def text_weight(self) -> float:
        """Gives the weight a that COMBINE uses."""
        return self.TEXT_COFF or DEFAULT_TEXT_WEIGHT

    def problems_of_training(self) -> list[str]:
        """Return the options that a training cannot have, and why."""
        return [] if self.MODULATOR != "identity" else [
            "MODULATOR: identity is CLIP without training; expected transformer for a training, or TRAIN.ENABLE false"]

    def without_effect(self) -> dict[str, str]:
        """Return the options that others switch off, and why."""
        rules = (("COMBINE", self.COMBINE and self.EVAL_TEXT, "EVAL_TEXT is on, and wins"),
                 ("TEXT_COFF", self.TEXT_COFF == 0, f"0 means {DEFAULT_TEXT_WEIGHT}, as published"),
                 ("TEXT_COFF", self.TEXT_COFF is not None and not self.COMBINE, "COMBINE is off"),
                 ("USE_CLASSIFICATION_ONLY", self.USE_CLASSIFICATION_ONLY and not self.USE_CLASSIFICATION,
                  "USE_CLASSIFICATION is off"))
        return {name: why for name, is_off, why in rules if is_off}


@HEADS.register("CNN_OTAM_CLIPFSAR")
class ClipFsar(Head):
    """Scores queries as CLIP-FSAR does. State names are the published ones: `scale`, `backbone.*`, `context2.*`."""

    title, Options, reads_text = "CLIP-FSAR", ClipFsarOptions, True
    options: ClipFsarOptions

    def __init__(self, encoder: Encoder, setting: Setting, options: ClipFsarOptions | None = None):
        super().__init__(encoder, setting, options)
        self.trains = self.options.MODULATOR != "identity"
        self.scale = nn.Parameter(torch.ones(1) * (1.0 if self.trains else encoder.logit_scale or 1.0))
        self.context2 = MODULATORS[self.options.MODULATOR](encoder.dim, self.options.TRANSFORMER_DEPTH)
        self.distance = partial(ALIGNMENTS[self.options.ALIGNMENT], smoothing=self.options.SMOOTHING,
                                single_direction=self.options.SINGLE_DIRECT)
        self.scorings = (
            Scoring("prototypes", "prototypes", "distance"),
            Scoring("fused", "prototypes fused with text", "probabilities", {"text_weight": self.options.text_weight}),
            Scoring("text", "text only", "probabilities"))

    @property
    def headline(self) -> str:
        """Names the scoring of a test: EVAL_TEXT asks for text, COMBINE for fused."""
        return "text" if self.options.EVAL_TEXT else "fused" if self.options.COMBINE else "prototypes"

    def parts(self) -> dict[str, nn.Module]:
        """Return tower and modulator."""
        return {"encoder": self.backbone, "modulator": self.context2}

    def modulate(self, tokens_PLD: Tensor) -> Tensor:
        """Pass tokens through the modulator h; the shape stays."""
        with phase("modulator"):
            return self.part("modulator")(tokens_PLD)

    def modulate_support(self, support_NTD: Tensor, text_ND: Tensor | None) -> Tensor:
        """Modulate frames by their class text, if there is one: first T outputs of h([frames ; text]). [N, T, D]"""
        if text_ND is None and not self.training:
            return self.modulate(support_NTD)
        return self.modulate(torch.cat([support_NTD, needed(text_ND).unsqueeze(1)], dim=1))[:, :-1]

    def in_role(self, features: Features, text_PD: Tensor | None, role: Role) -> Features:
        """Modulate the frames, but for supports that are merged first; of queries the plain mean is kept, too.

        Where supports are merged first, training modulates its queries after them, as published: dropout draws so.
        """
        frames_PTD = features["frames"]
        if self.options.MERGE_BEFORE and (role == "support" or self.training):
            return features
        if role == "support":
            return {"frames": self.modulate_support(frames_PTD, text_PD)}
        return {"frames": self.modulate(frames_PTD), "pooled": full_precision(frames_PTD).mean(dim=1)}

    def prototypes(self, batch: FeatureBatch) -> Tensor:
        """Return modulated prototypes. [B, K, T, D]"""
        means_BKTD = batch.prototypes("frames")
        if not self.options.MERGE_BEFORE:
            return means_BKTD
        text = None if batch.text_BKD is None else batch.text_BKD.flatten(0, 1)
        modulated = self.modulate_support(means_BKTD.flatten(0, 1), text)
        return modulated.unflatten(0, means_BKTD.shape[:2])

    def distances(self, batch: FeatureBatch) -> Tensor:
        """Return alignment distances of modulated queries and prototypes, in float32. [B, M, K]"""
        prototypes_BKTD, query_BMTD = self.prototypes(batch), batch.query["frames"]
        if self.options.MERGE_BEFORE and self.training:
            query_BMTD = self.modulate(query_BMTD.flatten(0, 1)).unflatten(0, query_BMTD.shape[:2])
        with torch.autocast(device_type=query_BMTD.device.type, enabled=False), phase("alignment"):
            return self.distance(frame_costs(query_BMTD, prototypes_BKTD))

    def text_probabilities(self, pooled_BMD: Tensor, text_BKD: Tensor) -> Tensor:
        """Return the softmax over the ways of scale * cosine(mean frame, class text). [B, M, K]"""
        cosines = F.cosine_similarity(pooled_BMD.unsqueeze(-2), text_BKD.unsqueeze(-3), dim=-1)
        return (self.scale * cosines).softmax(dim=-1)

    def fuse(self, distances_BMK: Tensor, text_BMK: Tensor, frames: int) -> Tensor:
        """Return what COMBINE scores: p_text^a * p_vis^(1-a). [B, M, K]"""
        offset, weight = self.options.COMBINE_FRAMES or frames, self.options.text_weight
        visual_BMK = ((offset - distances_BMK) / offset).softmax(dim=-1)
        return text_BMK.pow(weight) * visual_BMK.pow(1 - weight)

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the three scorings; in training, and without texts, the first alone."""
        distances_BMK = self.distances(batch)
        if self.training or batch.text_BKD is None:
            return {"prototypes": -distances_BMK}
        text_BMK = self.text_probabilities(batch.query["pooled"], batch.text_BKD)
        fused_BMK = self.fuse(distances_BMK, text_BMK, batch.query["frames"].shape[2])
        return {"prototypes": -distances_BMK, "fused": fused_BMK, "text": text_BMK}

    def output(self, episode: Episode, encoded: Mapping[Role, Features], text_GD: Tensor | None) -> EpisodeOutput:
        """Add class_logits [N + M, G] in training, supports first: the video-text contrast."""
        output = super().output(episode, encoded, text_GD)
        if not self.training:
            return output
        frames_PTD = torch.cat([encoded["support"]["frames"], encoded["query"]["frames"]])
        return replace(output, aux={
            "class_logits": self.scale * cos_similarity(full_precision(frames_PTD).mean(dim=1), needed(text_GD))})

    def losses(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """Return (CE(logits) + weight * CE(class_logits)) / divisor as two terms, or one of the two alone."""
        options, losses = self.options, {}
        if not (options.USE_CLASSIFICATION and options.USE_CLASSIFICATION_ONLY):
            losses = super().losses(output, episode)
        if options.USE_CLASSIFICATION:
            contrast = F.cross_entropy(output.aux["class_logits"], episode.classes_P)
            losses["classification"] = self.weighted(contrast, options.USE_CLASSIFICATION_VALUE)
        return losses

    def untrained(self) -> set[str]:
        """Name the scale without the contrast; the modulator where the contrast is the whole loss."""
        behind = ("context2.",) if self.options.USE_CLASSIFICATION_ONLY else ()
        idle = behind if self.options.USE_CLASSIFICATION else ("scale",)
        return {name for name, _ in self.named_parameters() if name.startswith(idle)}

    def explain(self, batch: FeatureBatch) -> Alignment:
        """Return the costs of frames, and how probably an alignment of query to support visits each cell."""
        costs_KTT = frame_costs(batch.query["frames"], self.prototypes(batch))[0, 0]
        return Alignment(costs_KTT, visiting_probabilities(costs_KTT, self.distance))
