"""Score queries by frozen features in all the ways that need no training, from one pass over the clips.

With frames f of a frozen tower, v the normalised mean frame of a clip, and E the normalised class texts:
 - prototype: cosine of v with the mean v of a class (Snell et al., NeurIPS 2017);
 - Chamfer and Chamfer++ (Bertrand et al., arXiv 2303.16084), and its baselines mean, max and diagonal;
 - Bi-MHM (HyRSM) and OTAM, clip by clip;
 - linear probe, with 5 shots and more: logistic regression on the supports' v of the episode;
 - with a text tower: zero-shot, 100 v.E, and Tip-Adapter (Zhang et al., ECCV 2022): zero-shot
   + alpha * sum over the supports of a class of exp(-beta (1 - v.v_s)).
Tip-Adapter's two strengths and the probe's come from validation episodes, once.

P clips, T frames, D features, B episodes, M queries, K ways, S shots, N = K * S supports.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from models.encoders.base import Encoder
from models.heads.base import FeatureBatch, Features, Head, Role, Scoring, Setting, needed
from models.layers.alignment import ALIGNMENTS, mean_hausdorff
from models.layers.exported import Aligned, Exportable, Pairwise, UnitMean
from models.layers.probe import logistic_probe
from models.layers.set_similarity import chamfer, largest_similarity, mean_similarity, triple_similarities
from models.layers.similarity import frame_costs, full_precision, unit
from models.registries import HEADS
from utils.config.fields import SCORING, key

SHOTS_OF_PROBE, SMOOTHING, TEXT_SCALE = 5, 0.1, 100.0
ALPHAS, BETAS = (0.3, 1.0, 3.0, 10.0, 30.0), (0.3, 1.0, 3.0, 5.5, 10.0)
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, slots=True)
class FrozenOptions:
    """Holds what can be set, VIDEO.HEAD.OPTIONS."""

    PROBE_DECAY: float | None = key("weight decay of the linear probe, for data without a val list; null: chosen on "
                                    "validation episodes", default=None, above=0.0, affects=SCORING)


@HEADS.register("FROZEN")
class Frozen(Head):
    """Compares frozen features of a tower with each other, and with class texts where it reads text."""

    title, Options, trains = "training-free", FrozenOptions, False
    options: FrozenOptions
    decay: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, encoder: Encoder, setting: Setting, options: Any = None):
        super().__init__(encoder, setting, options)
        for name, start in (("decay", 1e-2), ("alpha", 3.0), ("beta", 1.0)):
            self.register_buffer(name, torch.tensor(start))
        found = {"mean_prototype": "mean prototype", "chamfer": "Chamfer", "bimhm": "Bi-MHM", "otam": "OTAM",
                 "mean_frames": "mean similarity", "best_frames": "largest similarity",
                 "frame_by_frame": "frame by frame"}
        if setting.frames >= 3:
            found["chamfer_plus"] = "Chamfer++"
        if setting.episodes and setting.episodes[-1][1] >= SHOTS_OF_PROBE:
            found["linear_probe"] = "linear probe"
        self.chooses_decay = "linear_probe" in found and self.options.PROBE_DECAY is None
        self.calibrates = self.chooses_decay or self.reads_text
        if self.reads_text:
            found |= {"zero_shot": "zero-shot text", "tip_adapter": "Tip-Adapter"}
        self.scorings: Sequence[Scoring] = [Scoring(name, words, "distance" if name in ("bimhm", "otam") else "logits")
                                            for name, words in found.items()]

    def in_role(self, features: Features, text_PD: Tensor | None, role: Role) -> Features:
        """Add v to the frames. [P, D]"""
        frames = full_precision(features["frames"])
        return {"frames": frames, "clip": unit(frames.mean(dim=1))}

    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return every scoring; in training the prototypes alone."""
        query, given = batch.query["clip"], batch.given_BKS
        found = {"mean_prototype": query @ unit(batch.prototypes("clip")).transpose(-1, -2)}
        if self.training:
            return found
        frames, supports = batch.query["frames"], batch.support["frames"].flatten(1, 2)
        costs = frame_costs(frames, supports)
        similarities = (1 - costs).unflatten(2, batch.sizes)
        found |= {"chamfer": chamfer(similarities, given), "mean_frames": mean_similarity(similarities, given),
                  "best_frames": largest_similarity(similarities, given),
                  "bimhm": -batch.over_clips(mean_hausdorff(costs)),
                  "otam": -batch.over_clips(ALIGNMENTS["otam"](costs, smoothing=SMOOTHING)),
                  "frame_by_frame": batch.over_clips((1 - costs).diagonal(dim1=-2, dim2=-1).mean(dim=-1))}
        if frames.shape[2] >= 3:
            found["chamfer_plus"] = chamfer(triple_similarities(frames, supports).unflatten(2, batch.sizes), given)
        if any(scoring.name == "linear_probe" for scoring in self.scorings):
            found["linear_probe"] = self.probe(batch, self.options.PROBE_DECAY or self.decay.double())
        if self.reads_text and batch.text_BKD is not None:
            found |= {"zero_shot": self.zero_shot(batch),
                      "tip_adapter": self.tip(batch, self.alpha, self.beta)}
        return found

    @staticmethod
    def labels(batch: FeatureBatch) -> Tensor:
        """Return the labels of supports, one-hot; zeros where a support is not there. [B, N, K]"""
        ways, shots = batch.sizes
        one_hot = torch.eye(ways, device=batch.query["clip"].device).repeat_interleave(shots, dim=0)
        one_hot = one_hot.to(batch.query["clip"]).expand(len(batch.query["clip"]), -1, -1)
        return one_hot if batch.given_BKS is None else one_hot * batch.given_BKS.flatten(1).unsqueeze(-1)

    def probe(self, batch: FeatureBatch, decay: Tensor | float) -> Tensor:
        """Return the logits of a linear probe of each episode. [B, M, K]"""
        return logistic_probe(batch.support["clip"].flatten(1, 2), self.labels(batch), batch.query["clip"], decay)

    @staticmethod
    def zero_shot(batch: FeatureBatch) -> Tensor:
        """Return 100 v.E. [B, M, K]"""
        return TEXT_SCALE * batch.query["clip"] @ unit(needed(batch.text_BKD)).transpose(-1, -2)

    def tip(self, batch: FeatureBatch, alpha: Tensor | float, beta: Tensor | float) -> Tensor:
        """Return zero-shot logits plus alpha times the affinities with the supports of each class. [B, M, K]"""
        affinity = torch.exp(-beta * (1 - batch.query["clip"] @ batch.support["clip"].flatten(1, 2).transpose(-1, -2)))
        return self.zero_shot(batch) + alpha * affinity @ self.labels(batch)

    def calibrate(self, batches: Sequence[tuple[FeatureBatch, Tensor]]) -> dict[str, float]:
        """Choose the decay of the probe, and alpha and beta of Tip-Adapter, where they are not given."""
        found: dict[str, float] = {}
        if self.chooses_decay:
            found["probe_decay"] = max(DECAYS, key=lambda own: accuracy(batches, lambda one: self.probe(one, own)))
            self.decay.fill_(found["probe_decay"])
        if self.reads_text:
            found["tip_alpha"], found["tip_beta"] = max(
                product(ALPHAS, BETAS), key=lambda pair: accuracy(batches, lambda one: self.tip(one, *pair)))
            self.alpha.fill_(found["tip_alpha"])
            self.beta.fill_(found["tip_beta"])
        return found

    def exportable(self, scoring: str) -> Exportable | None:
        """Return the comparison with mean prototypes, or an alignment, clip by clip."""
        if scoring in ("otam", "bimhm"):
            return Exportable(Aligned(scoring, self.setting.frames, SMOOTHING), "never")
        return Exportable(Pairwise(lambda queries, references: -queries[:, 0] @ unit(references[:, 0]).T), "after",
                          UnitMean()) if scoring == "mean_prototype" else None


@torch.no_grad()
def accuracy(batches: Sequence[tuple[FeatureBatch, Tensor]], score: Callable[[FeatureBatch], Tensor]) -> float:
    """Return the share of queries for whose own class the score is highest."""
    right = [(score(batch).argmax(dim=-1) == labels.to(batch.query["clip"].device)).float().flatten()
             for batch, labels in batches]
    return float(torch.cat(right).mean())


@HEADS.register("FROZEN_TEXT")
class FrozenText(Frozen):
    """Is the same on a tower with a text tower."""

    title, reads_text = "training-free, with text", True
