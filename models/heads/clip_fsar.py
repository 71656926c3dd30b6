"""CLIP-FSAR: CLIP-guided prototype modulating (Wang et al., IJCV 2023).

A visual tower g gives frame features; the text features of the class names do two things:
 - video-text contrast (section 3.2): class_logits = scale * cos(mean over frames of g, text of each training class);
 - prototype modulation (section 3.3): support tokens [T frames ; class text] and query tokens [T frames] pass the
   modulator h; prototypes are class means of modulated supports (or modulated class means: MERGE_BEFORE).
Queries meet prototypes frame by frame with costs 1 - cos, joined by OTAM in both directions (section 3.4);
logits = -distance.

Evaluation gives three scorings at once, which must never be mixed: prototypes (-distance), text (softmax over the ways
of scale * cosine with the class texts), and their product, fused (COMBINE).

N = way*shot supports, M queries, K ways, S shots, T frames, D features, G classes of a split, P = N + M, B episodes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.layers.efficiency import has_batch_statistics
from models.layers.prototypes import class_means
from models.layers.similarity import cos_similarity
from models.registries import HEADS
from utils.episode import ClipFeatures, Episode, EpisodeOutput, FeatureBatch
from utils.errors import EpisodeError
from utils.phases import phase

DEFAULT_TEXT_WEIGHT = 0.9
_PHASES = {"backbone": "encoder", "context2": "modulator"}


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

    @property
    def scoring(self) -> str:
        """The scoring whose logits are the head's: prototypes, fused or text."""
        return "text" if self.eval_text else "fused" if self.combine else "prototypes"


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
        self._compiled: dict[str, Callable[[Tensor], Tensor]] = {}
        for split, features in text_features.items():
            self.register_buffer(f"text_{split}", features.detach().clone().float(), persistent=False)

    def text(self, split: str) -> Tensor:
        """[G, D] text features of a split's classes. Raises EpisodeError for a split without class names."""
        known = sorted(name.removeprefix("text_") for name, _ in self.named_buffers(recurse=False))
        if split not in known:
            raise EpisodeError(f"no class names were given for the {split} split (given: {', '.join(known)})")
        return self.get_buffer(f"text_{split}")

    def compile_training(self) -> None:
        """Have torch.compile make code for backbone and modulator, used in training mode, at the first pass."""
        options = {"fallback_random": True}  # dropout draws what it would draw uncompiled
        self._compiled = {name: torch.compile(getattr(self, name), dynamic=False, options=options)
                          for name in ("backbone", "context2")}

    def _run(self, name: str, tokens: Tensor) -> Tensor:
        """A module's output, from its compiled code where there is one."""
        module = self._compiled[name] if self.training and name in self._compiled else getattr(self, name)
        with phase(_PHASES[name]):
            return module(tokens)

    def encode(self, clips_BTCHW: Tensor) -> Tensor:
        """Frame features g. [B, T, D]"""
        features = self._run("backbone", rearrange(clips_BTCHW, "b t c h w -> (b t) c h w"))
        return rearrange(features, "(b t) d -> b t d", b=clips_BTCHW.shape[0])

    def modulate_support(self, support_NTD: Tensor, text_ND: Tensor) -> Tensor:
        """Frames modulated by their class text: the first T outputs of h([frames ; text]). [N, T, D]"""
        tokens = torch.cat([support_NTD, text_ND.unsqueeze(1)], dim=1)
        return self._run("context2", tokens)[:, :-1]

    def prototypes(self, support_NTD: Tensor, text_ND: Tensor, labels_N: Tensor, way: int) -> Tensor:
        """Modulated prototypes. [K, T, D]"""
        if self.options.merge_before:
            means = class_means(support_NTD, labels_N, way)
            return self.modulate_support(means, class_means(text_ND, labels_N, way))
        return class_means(self.modulate_support(support_NTD, text_ND), labels_N, way)

    def costs(self, query_MTD: Tensor, prototypes_KTD: Tensor) -> Tensor:
        """1 - cos of every frame of a query with every frame of a prototype. [..., M, T, D] -> [..., M, K, T, T]"""
        frames = (rearrange(x.float(), "... clips t d -> ... (clips t) d") for x in (query_MTD, prototypes_KTD))
        return 1 - rearrange(cos_similarity(*frames), "... (m t) (k s) -> ... m k t s", m=query_MTD.shape[-3],
                             k=prototypes_KTD.shape[-3])

    def distances(self, query_MTD: Tensor, prototypes_KTD: Tensor) -> Tensor:
        """Alignment distances of modulated queries and prototypes. [..., M, T, D] -> [..., M, K]"""
        with torch.autocast(device_type=query_MTD.device.type, enabled=False), phase("alignment"):
            return self.distance(self.costs(query_MTD, prototypes_KTD))

    def text_probabilities(self, pooled_MD: Tensor, text_KD: Tensor) -> Tensor:
        """softmax over the ways of scale * cosine(mean frame, class text); plain cosine. [..., M, D] -> [..., M, K]"""
        cosines = F.cosine_similarity(pooled_MD.unsqueeze(-2), text_KD.unsqueeze(-3), dim=-1)
        return (self.scale * cosines).softmax(dim=-1)

    def fuse(self, distances_MK: Tensor, text_MK: Tensor, frames: int) -> Tensor:
        """COMBINE: p_text^a * p_vis^(1-a). [..., M, K]"""
        offset = self.options.combine_frames or frames
        weight = self.options.text_weight or DEFAULT_TEXT_WEIGHT
        visual_MK = ((offset - distances_MK) / offset).softmax(dim=-1)
        return text_MK.pow(weight) * visual_MK.pow(1 - weight)

    def scorings(self, distances_MK: Tensor, pooled_MD: Tensor, text_KD: Tensor, frames: int) -> dict[str, Tensor]:
        """The three scorings by name. [..., M, K] each"""
        text_MK = self.text_probabilities(pooled_MD, text_KD)
        return {"prototypes": -distances_MK, "fused": self.fuse(distances_MK, text_MK, frames), "text": text_MK}

    def clip_features(self, frames_PTD: Tensor, classes_P: Tensor, split: str, shot: int) -> ClipFeatures:
        """All that scoring needs of each clip and that does not depend on its episode.

        Args:
            frames_PTD: frame features g of P clips.
            classes_P: their class indices in `split`.
            shot: S of the episodes; supports that are merged before modulation (MERGE_BEFORE, S > 1) stay as they are.
        """
        merged = self.options.merge_before and shot > 1
        support = frames_PTD if merged else self.modulate_support(frames_PTD, self.text(split)[classes_P])
        return ClipFeatures(self.context2(frames_PTD), frames_PTD.float().mean(dim=1), support)

    def score(self, batch: FeatureBatch, split: str) -> dict[str, Tensor]:
        """The three scorings of B episodes at once, from what `clip_features` gave. [B, M, K] each"""
        text_BKD = self.text(split)[batch.classes_BK]
        prototypes_BKTD = batch.support_BKSTD.mean(dim=2)
        if self.options.merge_before and batch.support_BKSTD.shape[2] > 1:
            flat = self.modulate_support(prototypes_BKTD.flatten(0, 1), text_BKD.flatten(0, 1))
            prototypes_BKTD = flat.unflatten(0, prototypes_BKTD.shape[:2])
        distances_BMK = self.distances(batch.query_BMTD, prototypes_BKTD)
        return self.scorings(distances_BMK, batch.pooled_BMD, text_BKD, batch.query_BMTD.shape[2])

    def contrast(self, features_PTD: Tensor) -> Tensor:
        """Video-text contrast with every training class. [P, G]"""
        return self.scale * cos_similarity(features_PTD.float().mean(dim=1), self.text("train"))

    def forward(self, episode: Episode, split: str) -> EpisodeOutput:
        """Scores of an episode whose class indices belong to `split`.

        Training mode adds class_logits; evaluation gives every scoring, its logits are those of options.scoring.
        """
        return next(self.outputs([episode], split))

    def outputs(self, episodes: Sequence[Episode], split: str) -> Iterator[EpisodeOutput]:
        """The scores of several episodes, one after the other; their clips pass the backbone together.

        Where it has batch statistics, which supports and queries of an episode do not share, it encodes each apart.
        """
        clips = [clips for episode in episodes for clips in (episode.support_NTCHW, episode.query_MTCHW)]
        if has_batch_statistics(self.backbone):
            features = [self.encode(part) for part in clips]
        else:
            features = self.encode(torch.cat(clips)).split([len(part) for part in clips])
        for i, episode in enumerate(episodes):
            yield self.output(episode, *features[2 * i:2 * i + 2], split)

    def output(self, episode: Episode, support_NTD: Tensor, query_MTD: Tensor, split: str) -> EpisodeOutput:
        """Scores of an episode from the frame features of its clips."""
        text_GD = self.text(split)
        prototypes_KTD = self.prototypes(
            support_NTD, text_GD[episode.support_classes_N], episode.support_labels_N, episode.way
        )
        distances_MK = self.distances(self._run("context2", query_MTD), prototypes_KTD)
        if self.training:
            return EpisodeOutput(-distances_MK, self.contrast(torch.cat([support_NTD, query_MTD])))
        scores = self.scorings(distances_MK, query_MTD.float().mean(dim=1), text_GD[episode.classes_K],
                               query_MTD.shape[1])
        return EpisodeOutput(scores[self.options.scoring], scores=scores)


class FewShotModel(nn.Module):
    """The published outer module: everything lies under `head.` in a checkpoint."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, episode: Episode, split: str) -> EpisodeOutput:
        return self.head(episode, split)

    def outputs(self, episodes: Sequence[Episode], split: str) -> Iterator[EpisodeOutput]:
        """The head's scores of several episodes, one after the other."""
        return self.head.outputs(episodes, split)
