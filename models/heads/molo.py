"""Implement MoLo: motion-augmented long-short contrastive learning (Wang et al., CVPR 2023).

Motion: differences of neighbouring feature maps become motion tokens, and a decoder must draw from them
how the frames' pixels change. Long-short contrast: a learned token in front of a clip's tokens sees the
whole clip; the global token of one clip should match the local tokens of clips of its class. Scores: Bi-MHM of the
local appearance tokens, plus that of the motion tokens.

P clips, N supports, T frames, D features, C = D / 8, B episodes, M queries, K ways, h/w feature map, H/W picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.base import Encoder
from models.heads.base import Alignment, FeatureBatch, Features, Head, Role, Scoring, Setting
from models.layers.alignment import mean_hausdorff, visiting_probabilities
from models.layers.enlarge import Enlarge
from models.layers.relation import RelationOptions, TokenTransformer
from models.layers.similarity import cos_similarity, frame_costs, full_precision
from models.registries import HEADS
from utils.config.fields import NUMBERS, TRAINING, key
from utils.episode import Episode, EpisodeOutput
from utils.errors import ConfigError

KINDS = ("frames", "motion")  # the two streams of tokens


@dataclass(frozen=True, slots=True)
class MoloOptions(RelationOptions):
    """Holds the switches of the method, VIDEO.HEAD.OPTIONS."""

    SINGLE_DIRECT: bool = key("Bi-MHM in one direction only: from the query", default=False, affects=NUMBERS)
    LOGIT_BALANCE_COFF: float | None = key("weight of the motion distance; null or 0: 0.3", default=None,
                                           affects=NUMBERS)
    USE_CONTRASTIVE: bool = key("long-short contrast", default=False, affects=TRAINING)
    USE_CONTRASTIVE_COFF: float | None = key("its weight", default=None, minimum=0.0, affects=TRAINING)
    TEMP_COFF: float | None = key("fixed scale of its logits; null: learned", default=None, affects=TRAINING)
    USE_MOTION: bool = key("long-short contrast of motion tokens, too", default=False, affects=TRAINING)
    MOTION_COFF: bool = key("must be off: the published loss asks for what no head gives", default=False,
                            affects=TRAINING)
    USE_RECONS: bool = key("motion tokens must give the change of pixels", default=False, affects=TRAINING)
    RECONS_COFF: float | None = key("its weight", default=None, minimum=0.0, affects=TRAINING)
    RECONS_UNDIVIDED: bool = key("TRAIN.BATCH_SIZE does not divide the reconstruction, as published", default=True,
                                 affects=TRAINING)
    LOSSES_NEED_CLASSIFICATION: bool = key("without USE_CLASSIFICATION there are no other losses either, as published",
                                           default=True, affects=TRAINING)

    @property
    def extras(self) -> tuple[bool, bool, bool]:
        """Tells whether contrast, motion contrast and reconstruction are in the loss."""
        allowed = not (self.USE_CLASSIFICATION and self.USE_CLASSIFICATION_ONLY)
        if self.LOSSES_NEED_CLASSIFICATION:
            allowed = allowed and self.USE_CLASSIFICATION and self.USE_CONTRASTIVE
        contrast = allowed and self.USE_CONTRASTIVE
        return contrast, contrast and self.USE_MOTION, allowed and self.USE_RECONS

    def problems(self) -> list[str]:
        """Add weights that are missing, and what the public code cannot train."""
        found = RelationOptions.problems(self)
        found += [f"{weight}: expected a weight, as {switch} is on, found none"
                  for switch, weight in (("USE_CONTRASTIVE", "USE_CONTRASTIVE_COFF"), ("USE_RECONS", "RECONS_COFF"))
                  if getattr(self, switch) and getattr(self, weight) is None]
        if self.MOTION_COFF:
            found.append("MOTION_COFF: expected false: the public code's loss then asks for logits that no head gives")
        if self.USE_LOCAL and self.USE_CLASSIFICATION and self.ONLY_PUBLISHED:
            found.append("USE_LOCAL: expected false: the public code has other numbers of class scores and labels "
                         "then; ONLY_PUBLISHED false (protocol clean) allows it")
        return found


@HEADS.register("CNN_BiMHM_MoLo")
class Molo(Head):
    """Scores queries by set matching of appearance and of motion tokens."""

    title, Options, tower_output = "MoLo", MoloOptions, "map"
    scorings = (Scoring("set_matching", "set matching distance", "distance"),)
    options: MoloOptions

    def __init__(self, encoder: Encoder, setting: Setting, options: MoloOptions | None = None):
        super().__init__(encoder, setting, options)
        dim, inner, heads = encoder.dim, encoder.dim // 8, self.options.heads
        if setting.frames < 2:
            raise ConfigError(["DATA.NUM_INPUT_FRAMES: expected at least 2 frames, as motion is between two, found "
                               f"{setting.frames}"])
        if self.options.USE_CONTRASTIVE and self.options.TEMP_COFF is None:
            self.scale, self.scale_motion = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        self.class_token_motion = nn.Parameter(torch.randn(1, 1, dim))
        self.pe = self.options.positions(dim, setting.frames + 1)
        self.temporal_atte_before = TokenTransformer(dim, heads)
        self.temporal_atte_before_motion = TokenTransformer(dim, heads)
        self.motion_reduce = nn.Conv3d(dim, inner, 3, padding=1)
        self.motion_conv = nn.Conv2d(inner, inner, 3, padding=1)
        self.motion_up = nn.Conv2d(inner, dim, 1)
        if self.options.USE_CLASSIFICATION:
            self.classification_layer = self.options.classifier(dim, setting.train_classes)
        self.up1, self.up2, self.up3 = Enlarge(inner, 128), Enlarge(128, 32), Enlarge(32, 16)
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(16, 3, 1)})

    def encode(self, clips_PTCHW: Tensor) -> Features:
        """Return maps [P, T, D, h, w] and changes [P, T - 1, C, h, w]: the next map, convolved, minus this one."""
        maps = super().encode(clips_PTCHW)["frames"]
        reduced = self.motion_reduce(maps.transpose(1, 2)).transpose(1, 2)
        following = self.motion_conv(reduced[:, 1:].flatten(0, 1)).unflatten(0, (len(maps), -1))
        return {"frames": maps, "changes": following - reduced[:, :-1]}

    def clip_features(self, encoded: Features) -> Features:
        """Return appearance tokens [P, T + 1, D] and motion tokens [P, T, D], the global one first."""
        motion = self.motion_up(encoded["changes"].flatten(0, 1)).relu().mean(dim=(2, 3))
        streams = {"frames": (encoded["frames"].mean(dim=(3, 4)), self.class_token, self.temporal_atte_before),
                   "motion": (motion.unflatten(0, (len(encoded["frames"]), -1)), self.class_token_motion,
                              self.temporal_atte_before_motion)}
        return {name: transformer(self.pe(torch.cat([token.expand(len(local), -1, -1), local], dim=1))).relu()
                for name, (local, token, transformer) in streams.items()}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return minus (appearance distance + weight * motion distance) of local tokens. [B, M, K]"""
        options = self.options
        with torch.autocast(device_type=batch.query["frames"].device.type, enabled=False):
            appearance, motion = (
                mean_hausdorff(frame_costs(batch.query[kind][:, :, 1:], batch.prototypes(kind)[:, :, 1:]),
                               single_direction=options.SINGLE_DIRECT, average=options.HAUSDORFF_MEAN)
                for kind in KINDS)
        return {"set_matching": -(appearance + (options.LOGIT_BALANCE_COFF or 0.3) * motion)}

    def contrast(self, query_MLD: Tensor, class_KLD: Tensor, scale: Tensor | float) -> dict[str, Tensor]:
        """Return logits [M, K] of classes' local tokens for global tokens of queries, and the other way round."""
        (query_g, query_x), (class_g, class_x) = ((x[:, 0], x[:, 1:]) for x in (query_MLD, class_KLD))
        support_to_query = (1 - cos_similarity(class_x, query_g)).sum(dim=1).transpose(0, 1)  # [K, T, M]
        query_to_support = (1 - cos_similarity(query_x, class_g)).sum(dim=1)  # [M, T, K]
        return {"logits_s2q": -scale * support_to_query, "logits_q2s": -scale * query_to_support}

    def class_logits(self, tokens: Features) -> Tensor:
        """Return class scores of clips [P, classes] by the means of their tokens, or (USE_LOCAL) of every token."""
        if self.options.USE_LOCAL:
            return self.classification_layer(tokens["frames"]).flatten(0, 1)
        return self.classification_layer(tokens["frames"].mean(dim=1) + tokens["motion"].mean(dim=1))

    def reconstruction(self, episode: Episode, changes_PTChw: Tensor) -> Tensor:
        """Return the mean squared error of the changes of pixels, drawn from the changes of maps."""
        clips = torch.cat([episode.support_NTCHW, episode.query_MTCHW])
        target = (clips[:, 1:] - clips[:, :-1]).flatten(0, 1)
        h, w = changes_PTChw.shape[-2:]
        x = self.up2(self.up1(changes_PTChw.flatten(0, 1), (2 * h, 2 * w)), (8 * h, 8 * w))
        x = self.up3(x, (target.shape[-2], target.shape[-1]))
        return F.mse_loss(full_precision(self.outc["conv"](x)), target)

    def output(self, episode: Episode, encoded: Mapping[Role, Features], text_GD: Tensor | None) -> EpisodeOutput:
        """Add class_logits [N + M, classes], the logits of the contrast, and in training the reconstruction's error."""
        tokens: dict[Role, Features] = {role: self.clip_features(one) for role, one in encoded.items()}
        batch, aux = self.batch_of(episode, text_GD, tokens), {}
        scores = {name: values[0] for name, values in self.match(batch).items()}
        if self.options.USE_CLASSIFICATION:
            aux["class_logits"] = self.class_logits({kind: torch.cat([tokens["support"][kind], tokens["query"][kind]])
                                                     for kind in KINDS})
        for kind, ending in zip(KINDS if self.options.USE_CONTRASTIVE else (), ("", "_motion"), strict=False):
            scale = self.options.TEMP_COFF if self.options.TEMP_COFF is not None else getattr(self, f"scale{ending}")
            found = self.contrast(batch.query[kind][0], batch.prototypes(kind)[0], scale)
            aux |= {f"{name}{ending}": logits for name, logits in found.items()}
        if self.training and self.options.extras[2]:
            aux["error"] = self.reconstruction(episode, torch.cat([encoded[role]["changes"]
                                                                   for role in ("support", "query")]))
        return replace(EpisodeOutput(scores["set_matching"], scores), aux=aux)

    def losses(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """Return CE(logits) + V * CE(class_logits) + G * contrasts, over the divisor, + R * reconstruction."""
        options, aux, losses = self.options, output.aux, super().losses(output, episode)
        contrast, motion, reconstruction = options.extras
        if options.USE_CLASSIFICATION:
            classes = episode.classes_P.repeat_interleave(len(aux["class_logits"]) // len(episode.classes_P))
            losses["classification"] = self.weighted(F.cross_entropy(aux["class_logits"], classes),
                                                     cast(float, options.USE_CLASSIFICATION_VALUE))
            if options.USE_CLASSIFICATION_ONLY:
                return {"classification": losses["classification"]}
        for name, asked, ending in (("contrast", contrast, ""), ("motion_contrast", motion, "_motion")):
            if asked:
                both = [F.cross_entropy(aux[f"logits_{way}{ending}"], episode.query_labels_M) for way in ("s2q", "q2s")]
                losses[name] = self.weighted(both[0] + both[1], cast(float, options.USE_CONTRASTIVE_COFF))
        if reconstruction:
            weighted = cast(float, options.RECONS_COFF) * aux["error"]
            losses["reconstruction"] = weighted if options.RECONS_UNDIVIDED else self.weighted(weighted)
        return losses

    def untrained(self) -> set[str]:
        """Name the scales and the decoder where their losses are off."""
        contrast, motion, reconstruction = self.options.extras
        trained = {"scale": contrast, "scale_motion": motion, "up1": reconstruction, "up2": reconstruction,
                   "up3": reconstruction, "outc": reconstruction}
        return {name for name, _ in self.named_parameters() if not trained.get(name.split(".")[0], True)}

    def explain(self, batch: FeatureBatch) -> Alignment:
        """Return the costs of appearance tokens, and which prototype frame each query frame is nearest to."""
        costs_KTT = frame_costs(batch.query["frames"][:, :, 1:], batch.prototypes("frames")[:, :, 1:])[0, 0]
        return Alignment(costs_KTT.double(), visiting_probabilities(costs_KTT, mean_hausdorff))
