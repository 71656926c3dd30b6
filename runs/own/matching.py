"""Scores clips against actions by a head, from what it keeps of each clip, whatever the numbers of clips an action.

N clips of the actions, M queries, K actions, S most clips of one action, n clips that are held out, B episodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.heads.base import Alignment, FeatureBatch, Features, Head
from runs.own.calibration import HeldOut
from utils.episode import rows_by_label
from utils.errors import OwnClipsError
from utils.metrics import Kind, probabilities

BYTES_A_BATCH = 64 << 20  # of the supports that episodes of one clip each repeat


def as_distances(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Turn scores [..., K], higher is nearer, into distances: minus them, or minus the logarithm of probabilities."""
    if kind != "probabilities":
        return -np.asarray(scores, np.float64)
    return -np.log(np.maximum(probabilities(scores, kind), np.finfo(np.float64).tiny))


@dataclass(frozen=True, eq=False)
class Matcher:
    """Holds the clips of the actions as a head keeps them; what it makes of them as supports is made once.

    Args:
        head: in evaluation mode. features: name to [N, ...]. labels_N: action of each clip; every action has one.
        text_KD: class texts of the actions; None: the head reads none. scoring: how the head is to score.
    """

    head: Head
    features: Features
    labels_N: Tensor
    text_KD: Tensor | None
    scoring: str

    @cached_property
    def shots_K(self) -> list[int]:
        """Gives the number of clips of each action."""
        counted: list[int] = torch.bincount(self.labels_N).tolist()
        return counted

    @property
    def kind(self) -> Kind:
        """Gives the kind of the scoring."""
        return next(scoring.kind for scoring in self.head.scorings if scoring.name == self.scoring)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor | None]:
        """Gives the clip that is shot s of action k, [K, S], and which of them are there; None: all."""
        return rows_by_label(self.labels_N, self.shots_K)

    @cached_property
    @torch.inference_mode()
    def _supports(self) -> Features:
        """Gives the supports by name, each [K, S, ...]."""
        text_ND = None if self.text_KD is None else self.text_KD[self.labels_N]
        supports = self.head.in_role(self.features, text_ND, "support")
        return {name: value[self._rows[0]] for name, value in supports.items()}

    def _batch(self, queries: Features, given_BKS: Tensor | None = None) -> FeatureBatch:
        """Return B episodes of the same supports, each with one query of [B, ...]; given_BKS: None: with all clips."""
        count, given_KS = len(next(iter(queries.values()))), self._rows[1]
        text = None if self.text_KD is None else self.text_KD.unsqueeze(0).expand(count, -1, -1)
        repeated = {name: value.unsqueeze(0).expand(count, *value.shape) for name, value in self._supports.items()}
        if given_BKS is None and given_KS is not None:
            given_BKS = given_KS.unsqueeze(0).expand(count, -1, -1)
        alone = {name: value.unsqueeze(1) for name, value in queries.items()}
        return FeatureBatch(repeated, alone, text, None, given_BKS)

    def _scores(self, batch: FeatureBatch) -> np.ndarray:
        """Return the distances of the one query of each episode, float64 [B, K]."""
        found = self.head.match(batch)
        if self.scoring not in found:
            raise OwnClipsError(f"--scoring {self.scoring}: it reads the names of actions, and --text is off")
        scores = found[self.scoring][:, 0].float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise OwnClipsError(f"the model gives scores that are no numbers by {self.scoring}: its weights are broken")
        return as_distances(scores, self.kind)

    @torch.inference_mode()
    def distances(self, queries: Features, together: bool = False) -> np.ndarray:
        """Return how far each clip, as `clip_features` gives it, is from each action. float64 [M, K]

        Args:
            together: score many at once. Alone, a clip has the same distances, to the last bit, whatever else is asked.
        """
        count = len(next(iter(queries.values())))
        found = [np.zeros((0, len(self.shots_K)))]
        for part in self._parts(count) if together else (slice(i, i + 1) for i in range(count)):
            own = self.head.in_role({name: value[part] for name, value in queries.items()}, None, "query")
            found.append(self._scores(self._batch(own)))
        return np.concatenate(found)

    @torch.inference_mode()
    def held_out(self) -> HeldOut:
        """Return the distances of each clip of an action with at least two, its own action made without it."""
        rows_KS, given_KS = self._rows
        counts = torch.tensor(self.shots_K, device=self.labels_N.device)
        clips = torch.nonzero(counts[self.labels_N] > 1).flatten()
        queries = self.head.in_role(self.features, None, "query")
        found = [np.zeros((0, len(self.shots_K)))]
        for part in self._parts(len(clips)):
            there = rows_KS.unsqueeze(0) != clips[part].view(-1, 1, 1)
            own = {name: value[clips[part]] for name, value in queries.items()}
            found.append(self._scores(self._batch(own, there if given_KS is None else there & given_KS)))
        return HeldOut(np.concatenate(found), self.labels_N[clips].cpu().numpy(), clips.cpu().numpy())

    def _parts(self, count: int) -> Iterator[slice]:
        """Yield pieces of `count` episodes whose supports take no more than BYTES_A_BATCH."""
        size = max(1, BYTES_A_BATCH // max(1, sum(value.nbytes for value in self._supports.values())))
        yield from (slice(first, min(first + size, count)) for first in range(0, count, size))

    @torch.inference_mode()
    def explain(self, query: Features) -> Alignment | None:
        """Say how one clip [1, ...] meets the actions; None: the head has nothing to draw."""
        return self.head.explain(self._batch(self.head.in_role(query, None, "query")))
