"""CLIP-FSAR: CLIP-guided prototype modulating (Wang et al., IJCV 2023).

A visual tower g gives frame features; the text features of the class names do two things:
 - video-text contrast (section 3.2): class_logits = scale * cos(mean over frames of g, text of each training class);
 - prototype modulation (section 3.3): support tokens [T frames ; class text] and query tokens [T frames] pass the
   modulator h; prototypes are class means of modulated supports (or modulated class means: MERGE_BEFORE).
Queries meet prototypes frame by frame with costs 1 - cos, joined by OTAM in both directions (section 3.4);
logits = -distance.

N = way*shot supports, M queries, K ways, T frames, D features, G classes of a split, P = N + M.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.prototypes import class_means
from models.registries import HEADS
from models.similarity import cos_similarity
from utils.episode import Episode, EpisodeOutput
from utils.errors import EpisodeError

DEFAULT_TEXT_WEIGHT = 0.9


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """The switches of the method.

    Args:
        merge_before: average the supports of a class before modulating.
        eval_text: evaluation by text alone (wins over combine).
        combine: evaluation fuses text and prototypes: p_text^a * p_vis^(1-a).
        text_weight: a of that product (None or 0: 0.9, as published).
        combine_frames: the 8 of p_vis = softmax((8 - distance) / 8); None: T.
    """

    merge_before: bool = False
    eval_text: bool = False
    combine: bool = False
    text_weight: float | None = None
    combine_frames: int | None = 8


@HEADS.register("CNN_OTAM_CLIPFSAR")
class ClipFsar(nn.Module):
    """The few-shot head with its towers. State names are the published ones.

    Args:
        backbone: visual tower, [frames, 3, H, W] -> [frames, D].
        modulator: [sequences, tokens, D] -> the same shape.
        text_features: split name to [G, D] text features of its classes (not normalised).
        distance: costs [..., T, T] -> distances [...].
        options: see HeadOptions.
    """

    def __init__(self, *, backbone: nn.Module, modulator: nn.Module, text_features: Mapping[str, Tensor],
                 distance: Callable[[Tensor], Tensor], options: HeadOptions | None = None):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.backbone = backbone
        self.context2 = modulator
        self.distance = distance
        self.options = options or HeadOptions()
        for split, features in text_features.items():
            self.register_buffer(f"text_{split}", features.detach().clone().float(), persistent=False)

    def text(self, split: str) -> Tensor:
        """[G, D] text features of a split's classes. Raises EpisodeError for a split without class names."""
        known = sorted(name.removeprefix("text_") for name, _ in self.named_buffers(recurse=False))
        if split not in known:
            raise EpisodeError(f"no class names were given for the {split} split (given: {', '.join(known)})")
        return self.get_buffer(f"text_{split}")

    def encode(self, clips_BTCHW: Tensor) -> Tensor:
        """Frame features g. [B, T, D]"""
        features = self.backbone(rearrange(clips_BTCHW, "b t c h w -> (b t) c h w"))
        return rearrange(features, "(b t) d -> b t d", b=clips_BTCHW.shape[0])

    def modulate_support(self, support_NTD: Tensor, text_ND: Tensor) -> Tensor:
        """Frames modulated by their class text: the first T outputs of h([frames ; text]). [N, T, D]"""
        tokens = torch.cat([support_NTD, text_ND.unsqueeze(1)], dim=1)
        return self.context2(tokens)[:, :-1]

    def prototypes(self, support_NTD: Tensor, text_ND: Tensor, labels_N: Tensor, way: int) -> Tensor:
        """Modulated prototypes. [K, T, D]"""
        if self.options.merge_before:
            means = class_means(support_NTD, labels_N, way)
            return self.modulate_support(means, class_means(text_ND, labels_N, way))
        return class_means(self.modulate_support(support_NTD, text_ND), labels_N, way)

    def distances(self, query_MTD: Tensor, prototypes_KTD: Tensor) -> Tensor:
        """Alignment distances of modulated queries and prototypes. [M, K]"""
        with torch.autocast(device_type=query_MTD.device.type, enabled=False):
            costs = 1 - cos_similarity(query_MTD.float().unsqueeze(1), prototypes_KTD.float().unsqueeze(0))
            return self.distance(costs)

    def text_probabilities(self, query_MTD: Tensor, text_KD: Tensor) -> Tensor:
        """softmax over the ways of scale * cosine(mean frame, class text); plain cosine. [M, K]"""
        clips = query_MTD.float().mean(dim=1)
        return (self.scale * F.cosine_similarity(clips.unsqueeze(1), text_KD.unsqueeze(0), dim=-1)).softmax(dim=-1)

    def fuse(self, distances_MK: Tensor, text_MK: Tensor, frames: int) -> Tensor:
        """COMBINE: p_text^a * p_vis^(1-a). [M, K]"""
        offset = self.options.combine_frames or frames
        weight = self.options.text_weight or DEFAULT_TEXT_WEIGHT
        visual_MK = ((offset - distances_MK) / offset).softmax(dim=-1)
        return text_MK.pow(weight) * visual_MK.pow(1 - weight)

    def contrast(self, features_PTD: Tensor) -> Tensor:
        """Video-text contrast with every training class. [P, G]"""
        return self.scale * cos_similarity(features_PTD.float().mean(dim=1), self.text("train"))

    def forward(self, episode: Episode, split: str) -> EpisodeOutput:
        """Scores of an episode whose class indices belong to `split`; training mode adds class_logits."""
        text_GD = self.text(split)
        support_NTD, query_MTD = self.encode(episode.support_NTCHW), self.encode(episode.query_MTCHW)
        if not self.training and self.options.eval_text:
            return EpisodeOutput(self.text_probabilities(query_MTD, text_GD[episode.classes_K]))
        prototypes_KTD = self.prototypes(
            support_NTD, text_GD[episode.support_classes_N], episode.support_labels_N, episode.way
        )
        distances_MK = self.distances(self.context2(query_MTD), prototypes_KTD)
        if self.training:
            return EpisodeOutput(-distances_MK, self.contrast(torch.cat([support_NTD, query_MTD])))
        if self.options.combine:
            text_MK = self.text_probabilities(query_MTD, text_GD[episode.classes_K])
            return EpisodeOutput(self.fuse(distances_MK, text_MK, query_MTD.shape[1]))
        return EpisodeOutput(-distances_MK)


class FewShotModel(nn.Module):
    """The published outer module: everything lies under `head.` in a checkpoint."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, episode: Episode, split: str) -> EpisodeOutput:
        return self.head(episode, split)
