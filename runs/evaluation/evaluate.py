"""Evaluation of fixed episodes: from features of distinct clips, or one episode after the other.

E episodes, M queries, N supports, K ways, S shots.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from datasets.builder import SplitData, build_loader
from datasets.device_loader import on_device
from runs.evaluation.features import FeatureStore, build_store, clip_features
from utils.config.schema import Config
from utils.distributed import ALONE, Ranks
from utils.episode import BadVideo, ClipFeatures, EpisodeSpec, FeatureBatch, episodes_hash
from utils.errors import NonFiniteLossError
from utils.metrics import mean_interval

EPISODES_A_PASS = 32
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        scores: scoring name to float32 [E, M, K].
        scoring: the one the configuration asks for.
        labels_EM: episode label of each query. classes_EK: class index of each label.
        query_EM, support_EN: record indices as the episodes name them (before bad videos are replaced).
        bad_videos: clips that were replaced.
        encoded: distinct videos decoded and encoded; None: episode by episode.
    """

    scores: dict[str, np.ndarray]
    scoring: str
    labels_EM: np.ndarray
    classes_EK: np.ndarray
    query_EM: np.ndarray
    support_EN: np.ndarray
    bad_videos: list[BadVideo] = field(default_factory=list)
    encoded: int | None = None

    def correct(self, scoring: str | None = None) -> np.ndarray:
        """Whether each query was right; one with a score that is no number is wrong. bool [E, M]"""
        scores = self.scores[scoring or self.scoring]
        return (scores.argmax(axis=-1) == self.labels_EM) & np.isfinite(scores).all(axis=-1)

    @cached_property
    def nonfinite(self) -> int:
        """Queries with a score that is NaN or infinite."""
        return int((~np.isfinite(self.scores[self.scoring]).all(axis=-1)).sum())

    def predicted(self, scoring: str | None = None) -> np.ndarray:
        """Class index that each query was taken for. [E, M]"""
        return np.take_along_axis(self.classes_EK, self.scores[scoring or self.scoring].argmax(axis=-1), axis=1)

    @cached_property
    def true_EM(self) -> np.ndarray:
        """Class index of each query."""
        return np.take_along_axis(self.classes_EK, self.labels_EM, axis=1)

    @cached_property
    def episode_accuracy(self) -> list[float]:
        """Share of correct queries of each episode."""
        return self.correct().mean(axis=1).tolist()

    @property
    def accuracy(self) -> float:
        """Mean accuracy over episodes, 0..1."""
        return mean_interval(self.episode_accuracy)[0]

    @property
    def interval(self) -> float:
        """Half width of its 95 % interval over episodes."""
        return mean_interval(self.episode_accuracy)[1]


def _stacked(parts: Sequence[dict[str, np.ndarray]], join: Callable[[list[np.ndarray]], np.ndarray]
             ) -> dict[str, np.ndarray]:
    """The scores of all episodes, by scoring."""
    return {name: join([part[name] for part in parts]) for name in parts[0]}


class Evaluator:
    """The fixed episodes of a validation or test split; scores any number of models on them.

    Several ranks share the work; each of them gets what one rank would find, bit by bit.
    """

    def __init__(self, cfg: Config, split: SplitData, device: torch.device, ranks: Ranks = ALONE):
        self.cfg, self.split, self.device, self.ranks = cfg, split, device, ranks
        self.specs: list[EpisodeSpec] = [split.sampler.spec(i) for i in range(split.episodes)]
        self.episodes_hash = episodes_hash(self.specs)

    def run(self, model: nn.Module, title: str, store_dir: Path | None = None) -> Evaluation:
        """Score every episode; the model is put in evaluation mode and left there.

        Args:
            title: for the progress bars. store_dir: where features are kept (TEST.FEATURE_STORE).

        Raises VideoDecodeError (DATA.ON_BAD_VIDEO: stop), FeatureStoreError, NonFiniteLossError (TRAIN.ON_NONFINITE:
        stop) when a score is NaN or infinite.
        """
        model.eval()
        if self.cfg.TEST.FEATURE_STORE:
            store = build_store(model, self.cfg, self.split, self.specs, self.device, title, store_dir, self.ranks)
            found = self.score(model, store, title)
        else:
            found = self._one_by_one(model, title)
        if found.nonfinite:
            text = (f"{title}: {found.nonfinite} of {found.labels_EM.size} queries have scores that are no numbers: "
                    "the weights are damaged, or training has diverged (a lower SOLVER.BASE_LR, TRAIN.CLIP_GRAD_NORM)")
            if self.cfg.TRAIN.ON_NONFINITE == "stop":
                raise NonFiniteLossError(text)
            _LOGGER.warning("%s. They count as wrong.", text)
        return found

    def score(self, model: nn.Module, store: FeatureStore, title: str) -> Evaluation:
        """Score every episode from stored features."""
        features = clip_features(model, store, self.split, self.device, Path(self.cfg.OUTPUT_DIR))
        places = Places.of(self.split, self.specs, store)
        scores = score_places(model, features, places, self.split.name, self.device, title, self.ranks)
        return self._evaluation(model, scores, places.bad_videos, store.encoded)

    @torch.inference_mode()
    def _one_by_one(self, model: nn.Module, title: str) -> Evaluation:
        found: list[tuple[dict[str, np.ndarray], tuple[BadVideo, ...]]] = []
        ranks = self.ranks
        loader = build_loader(self.cfg, self.split, rank=ranks.rank, world=ranks.world)
        for episode in tqdm(on_device(loader, self.device), total=len(ranks.part(self.specs)), desc=title,
                            unit="episode", disable=ranks.bar_off, leave=False):
            scores = model(episode, self.split.name).scores
            found.append(({name: logits.float().cpu().numpy() for name, logits in scores.items()}, episode.bad_videos))
        found = ranks.joined(ranks.gather(found))
        return self._evaluation(model, _stacked([scores for scores, _ in found], np.stack),
                                [video for _, bad in found for video in bad], None)

    def _evaluation(self, model: nn.Module, scores: dict[str, np.ndarray], bad: list[BadVideo],
                    encoded: int | None) -> Evaluation:
        def table(name: str) -> np.ndarray:
            return np.array([getattr(spec, name) for spec in self.specs])

        return Evaluation(scores, model.head.options.scoring, table("query_labels_M"), table("classes_K"),
                          table("query_M"), table("support_N"), bad, encoded)


@dataclass(frozen=True, slots=True)
class Places:
    """Rows of a feature store that episodes are made of, supports in the order of their episode labels."""

    support_EKS: torch.Tensor
    query_EM: torch.Tensor
    classes_EK: torch.Tensor
    bad_videos: list[BadVideo]

    @classmethod
    def of(cls, split: SplitData, specs: Sequence[EpisodeSpec], store: FeatureStore) -> "Places":
        """Rows of every episode; bad videos are replaced as they are when an episode is decoded."""
        support, query, bad = [], [], []
        for spec in specs:
            rows, replaced = split.dataset.read_clips(
                spec, lambda position, video, spec=spec: store.row(video, split.dataset.draw(spec, position)))
            count = len(spec.support_N)
            order = np.argsort(spec.support_labels_N, kind="stable")
            support.append(np.asarray(rows[:count])[order].reshape(split.sampler.way, split.sampler.shot))
            query.append(rows[count:])
            bad += replaced
        classes = torch.tensor([spec.classes_K for spec in specs])
        return cls(torch.from_numpy(np.stack(support)), torch.tensor(query), classes, bad)


@torch.inference_mode()
def score_places(model: nn.Module, features: ClipFeatures, places: Places, split: str, device: torch.device,
                 title: str, ranks: Ranks = ALONE) -> dict[str, np.ndarray]:
    """Scores of all episodes by scoring, float32 [E, M, K], many episodes at a time; each rank scores some of them."""
    model.eval()
    passes = list(zip(*(part.split(EPISODES_A_PASS) for part in (
        places.support_EKS, places.query_EM, places.classes_EK)), strict=True))
    parts: list[dict[str, np.ndarray]] = []
    total = sum(len(query) for _, query, _ in ranks.part(passes))
    with tqdm(total=total, desc=f"{title}: scoring", unit="episode", disable=ranks.bar_off, leave=False) as bar:
        for support, query, classes in ranks.part(passes):
            batch = FeatureBatch(*(x.to(device) for x in (
                features.support_PTD[support], features.query_PTD[query], features.pooled_PD[query], classes)))
            scores = model.head.score(batch, split)
            parts.append({name: logits.float().cpu().numpy() for name, logits in scores.items()})
            bar.update(len(query))
    return _stacked(ranks.joined(ranks.gather(parts)), np.concatenate)
