"""Evaluate fixed episodes: from features of distinct clips, or one episode after the other.

E episodes, M queries, N supports, K ways, S shots.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.builder import SplitData, build_loader
from datasets.device_loader import on_device
from models.builder import FewShotModel
from models.heads.base import FeatureBatch, Features, Scoring
from models.inference import for_evaluation
from runs.evaluation.features import FeatureStore, build_store, features_in_role
from utils.config.schema import Config
from utils.distributed import ALONE, Ranks
from utils.episode import BadVideo, EpisodeSpec, episodes_hash
from utils.errors import NonFiniteLossError
from utils.host_copy import HostCopy, to_device
from utils.metrics import mean_interval, probabilities

EPISODES_A_PASS = 32
NO_CLASS = -1  # what a query without a finite score is taken for: it is wrong everywhere
# Bytes of the features of a pass: fewer episodes share one where they are larger. A CPU is slower with more: arrays
# made of them come from the system anew each time, and fall out of its caches (OTAM with 25 queries: twice as long).
BYTES_A_PASS = {"cpu": 16 << 20, "cuda": 256 << 20}
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Holds what a model scored on fixed episodes.

    Args:
        scores: scoring name to float32 [E, M, K].
        scorings: what each of them is, by name.
        scoring: the one the configuration asks for.
        labels_EM: episode label of each query. classes_EK: class index of each label.
        query_EM, support_EN: record indices as the episodes name them (before bad videos are replaced).
        bad_videos: clips that were replaced.
        encoded: distinct videos decoded and encoded; None: episode by episode.
    """

    scores: dict[str, np.ndarray]
    scorings: dict[str, Scoring]
    scoring: str
    labels_EM: np.ndarray
    classes_EK: np.ndarray
    query_EM: np.ndarray
    support_EN: np.ndarray
    bad_videos: list[BadVideo] = field(default_factory=list)
    encoded: int | None = None

    def correct(self, scoring: str | None = None) -> np.ndarray:
        """Return whether each query was right, bool [E, M]; one with a score that is no number is wrong."""
        return self.predicted(scoring) == self.true_EM

    @cached_property
    def nonfinite(self) -> int:
        """Counts the queries with a score that is NaN or infinite."""
        return int((self.predicted() == NO_CLASS).sum())

    def predicted(self, scoring: str | None = None) -> np.ndarray:
        """Return the class index that each query was taken for, NO_CLASS where a score is NaN or infinite. [E, M]"""
        scores = self.scores[scoring or self.scoring]
        best = np.take_along_axis(self.classes_EK, scores.argmax(axis=-1), axis=1)
        return np.where(np.isfinite(scores).all(axis=-1), best, NO_CLASS)

    def probabilities(self, scoring: str | None = None) -> np.ndarray:
        """Return the scores of each query as probabilities of its ways. float64 [E, M, K]"""
        name = scoring or self.scoring
        return probabilities(self.scores[name], self.scorings[name].kind)

    @cached_property
    def true_EM(self) -> np.ndarray:
        """Gives the class index of each query."""
        return np.take_along_axis(self.classes_EK, self.labels_EM, axis=1)

    @cached_property
    def episode_accuracy(self) -> list[float]:
        """Gives the share of correct queries of each episode."""
        return self.correct().mean(axis=1).tolist()

    @property
    def accuracy(self) -> float:
        """Gives the mean accuracy over episodes, 0..1."""
        return mean_interval(self.episode_accuracy)[0]

    @property
    def interval(self) -> float:
        """Gives the half width of its 95 % interval over episodes."""
        return mean_interval(self.episode_accuracy)[1]


def _stacked(parts: Sequence[dict[str, np.ndarray]], join: Callable[[list[np.ndarray]], np.ndarray]
             ) -> dict[str, np.ndarray]:
    """Return the scores of all episodes, by scoring."""
    return {name: join([part[name] for part in parts]) for name in parts[0]}


def _to_host(scores: Mapping[str, Tensor]) -> dict[str, HostCopy]:
    """Start to copy a pass's scores; a GPU goes on with the next pass meanwhile."""
    return {name: HostCopy(values.float()) for name, values in scores.items()}


def _arrays(parts: Sequence[dict[str, HostCopy]]) -> list[dict[str, np.ndarray]]:
    """Return the scores of all passes, which are done by then."""
    return [{name: copy.read().numpy() for name, copy in part.items()} for part in parts]


class Evaluator:
    """Scores any number of models on the fixed episodes of a validation or test split.

    Several ranks share the work; each of them gets what one rank would find, bit by bit.
    """

    def __init__(self, cfg: Config, split: SplitData, device: torch.device, ranks: Ranks = ALONE):
        self.cfg, self.split, self.device, self.ranks = cfg, split, device, ranks

    @cached_property
    def specs(self) -> list[EpisodeSpec]:
        """Gives the episodes, drawn when they are first asked for: a training starts before it validates."""
        return [self.split.sampler.spec(i) for i in range(self.split.episodes)]

    @cached_property
    def episodes_hash(self) -> str:
        """Gives the SHA-256 (hex) of the episodes."""
        return episodes_hash(self.specs)

    def run(self, model: FewShotModel, title: str, store_dir: Path | None = None) -> Evaluation:
        """Score every episode; the model is put in evaluation mode and left there.

        Args:
            title: for the progress bars. store_dir: where features are kept (TEST.FEATURE_STORE).

        Raises VideoDecodeError (DATA.ON_BAD_VIDEO: stop), FeatureStoreError, NonFiniteLossError (TRAIN.ON_NONFINITE:
        stop) when a score is NaN or infinite.
        """
        model.eval()
        if self.cfg.TEST.FEATURE_STORE and model.head.episode_free:
            store = build_store(model, self.cfg, self.split, self.specs, self.device, title, store_dir, self.ranks)
            episodes = self.stored(model, store)
            scores = score_stored(model, episodes, title, self.ranks)
            evaluation = self._evaluation(model, scores, episodes.bad_videos, store.encoded)
        else:
            evaluation = self._one_by_one(model, title)
        if evaluation.nonfinite:
            text = (f"{title}: {evaluation.nonfinite} of {evaluation.labels_EM.size} queries have scores that are no "
                    "numbers: the weights are damaged, or training has diverged (a lower SOLVER.BASE_LR, "
                    "TRAIN.CLIP_GRAD_NORM)")
            if self.cfg.TRAIN.ON_NONFINITE == "stop":
                raise NonFiniteLossError(text)
            _LOGGER.warning("%s. They count as wrong.", text)
        return evaluation

    def stored(self, model: FewShotModel, store: FeatureStore) -> "StoredEpisodes":
        """Return the episodes as features, from a store of their clips."""
        of_support, of_query = (features_in_role(model, store, self.split, role, self.device, Path(self.cfg.OUTPUT_DIR))
                                for role in ("support", "query"))
        sampler, dataset = self.split.sampler, self.split.dataset
        support, query, bad = [], [], []
        for spec in self.specs:
            rows, replaced = dataset.read_clips(spec, partial(store.row_of, dataset, spec))
            count = len(spec.support_N)
            order = np.argsort(spec.support_labels_N, kind="stable")
            support.append(np.asarray(rows[:count])[order].reshape(sampler.way, sampler.shot))
            query.append(rows[count:])
            bad += replaced
        return StoredEpisodes(of_support, of_query, torch.from_numpy(np.stack(support)), torch.tensor(query),
                              torch.tensor([spec.classes_K for spec in self.specs]), bad, model.text(self.split.name),
                              self.device)

    def calibrate(self, model: FewShotModel) -> dict[str, float]:
        """Have a head that calibrates choose its strengths on these episodes; returns them."""
        title = f"calibrate on {self.split.name}"
        episodes = self.stored(model.eval(), build_store(model, self.cfg, self.split, self.specs, self.device, title,
                                                         ranks=self.ranks))
        labels = torch.tensor([spec.query_labels_M for spec in self.specs], device=self.device)
        return model.head.calibrate([(episodes.batch(part), labels[part]) for part in episodes.passes()])

    @torch.inference_mode()
    def _one_by_one(self, model: FewShotModel, title: str) -> Evaluation:
        scores: list[dict[str, HostCopy]] = []
        bad: list[tuple[BadVideo, ...]] = []
        ranks = self.ranks
        loader = build_loader(self.cfg, self.split, rank=ranks.rank, world=ranks.world)
        data, text_GD = self.cfg.DATA, model.text(self.split.name)
        head = for_evaluation(model.head, self.device, (data.NUM_INPUT_FRAMES, data.TEST_CROP_SIZE))
        for episode in tqdm(on_device(loader, self.device), total=len(ranks.part(self.specs)), desc=title,
                            unit="episode", disable=ranks.bar_off, leave=False):
            scores.append(_to_host(head(episode, text_GD).scores))
            bad.append(episode.bad_videos)
        scored = ranks.joined(ranks.gather(list(zip(_arrays(scores), bad, strict=True))))
        return self._evaluation(model, _stacked([scores for scores, _ in scored], np.stack),
                                [video for _, bad in scored for video in bad], None)

    def _evaluation(self, model: FewShotModel, scores: dict[str, np.ndarray], bad: list[BadVideo],
                    encoded: int | None) -> Evaluation:
        def table(name: str) -> np.ndarray:
            return np.array([getattr(spec, name) for spec in self.specs])

        scorings = {scoring.name: scoring for scoring in model.head.scorings}
        return Evaluation(scores, scorings, model.head.headline, table("query_labels_M"), table("classes_K"),
                          table("query_M"), table("support_N"), bad, encoded)


@dataclass(frozen=True, slots=True)
class StoredEpisodes:
    """Episodes as rows of a feature store, which are matched many at a time.

    Args:
        support, query: what the head's `in_role` gave for every row of the store.
        support_EKS, query_EM: rows of each episode, supports in the order of their episode labels.
        classes_EK: class index of each label.
        bad_videos: clips that others stand in for, as when an episode is decoded.
        text_GD: text features of the split's classes. device: the one that computes.
    """

    support: Features
    query: Features
    support_EKS: Tensor
    query_EM: Tensor
    classes_EK: Tensor
    bad_videos: list[BadVideo]
    text_GD: Tensor | None
    device: torch.device

    def passes(self) -> list[slice]:
        """Divide the episodes into passes: each has as many as BYTES_A_PASS of features leave room for."""
        of_support, of_query = (sum(value[:1].nbytes for value in one.values()) for one in (self.support, self.query))
        of_episode = of_support * self.support_EKS[0].numel() + of_query * self.query_EM.shape[1]
        size = max(1, min(EPISODES_A_PASS, BYTES_A_PASS[self.device.type] // of_episode))
        total = len(self.query_EM)
        return [slice(first, min(first + size, total)) for first in range(0, total, size)]

    def batch(self, part: slice) -> FeatureBatch:
        """Return the episodes of a pass, on the device."""
        roles = ((self.support, self.support_EKS), (self.query, self.query_EM))
        support, query = ({name: to_device(value[index[part]], self.device) for name, value in features.items()}
                          for features, index in roles)
        text = None if self.text_GD is None else self.text_GD[to_device(self.classes_EK[part], self.device)]
        return FeatureBatch(support, query, text)


@torch.inference_mode()
def score_stored(model: FewShotModel, episodes: StoredEpisodes, title: str, ranks: Ranks = ALONE
                 ) -> dict[str, np.ndarray]:
    """Score all episodes, many at a time; each rank scores some of them. Returns scoring name to float32 [E, M, K]."""
    head = for_evaluation(model.eval().head, episodes.device)
    own = ranks.part(episodes.passes())
    parts: list[dict[str, HostCopy]] = []
    with tqdm(total=sum(part.stop - part.start for part in own), desc=f"{title}: scoring", unit="episode",
              disable=ranks.bar_off, leave=False) as bar:
        for part in own:
            scores = head.match(episodes.batch(part))
            head.check_scorings(scores)
            parts.append(_to_host(scores))
            bar.update(part.stop - part.start)
    return _stacked(ranks.joined(ranks.gather(_arrays(parts))), np.concatenate)
