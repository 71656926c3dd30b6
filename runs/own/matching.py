"""Scores clips against actions by a head, from what it keeps of each clip, whatever the numbers of clips an action.

N clips of the actions, M queries, K actions, S most clips of one action, n clips that are held out, B episodes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Matcher:
    """Holds the clips of the actions as a head keeps them.

    Args:
        head: in evaluation mode. features: name to [N, ...]. labels_N: action of each clip; every action has one.
        text_KD: class texts of the actions; None: the head reads none. scoring: how the head is to score.
    """

    head: Head
    features: Features
    labels_N: Tensor
    text_KD: Tensor | None
    scoring: str

    @property
    def shots_K(self) -> list[int]:
        """Gives the number of clips of each action."""
        counted: list[int] = torch.bincount(self.labels_N).tolist()
        return counted

    @property
    def kind(self) -> Kind:
        """Gives the kind of the scoring."""
        return next(scoring.kind for scoring in self.head.scorings if scoring.name == self.scoring)

    def _supports(self) -> tuple[Features, Tensor]:
        """Return supports by name, each [K, S, ...], and which of them are there, [K, S]."""
        rows_KS, given_KS = rows_by_label(self.labels_N, self.shots_K)
        text_ND = None if self.text_KD is None else self.text_KD[self.labels_N]
        supports = self.head.in_role(self.features, text_ND, "support")
        given = torch.ones_like(rows_KS, dtype=torch.bool) if given_KS is None else given_KS
        return {name: value[rows_KS] for name, value in supports.items()}, given

    def _batch(self, supports: Features, queries: Features, given_BKS: Tensor | None) -> FeatureBatch:
        """Return B episodes of the same supports and of different queries [B, M, ...]."""
        count = len(next(iter(queries.values())))
        text = None if self.text_KD is None else self.text_KD.unsqueeze(0).expand(count, -1, -1)
        repeated = {name: value.unsqueeze(0).expand(count, *value.shape) for name, value in supports.items()}
        return FeatureBatch(repeated, queries, text, None, given_BKS)

    def _scores(self, batch: FeatureBatch) -> np.ndarray:
        """Return the distances of a batch, float64 [B, M, K]."""
        found = self.head.match(batch)
        if self.scoring not in found:
            raise OwnClipsError(f"--scoring {self.scoring}: it reads the names of actions, and --text is off")
        scores = found[self.scoring].float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise OwnClipsError(f"the model gives scores that are no numbers by {self.scoring}: its weights are broken")
        return as_distances(scores, self.kind)

    @torch.inference_mode()
    def distances(self, queries: Features, together: bool = False) -> np.ndarray:
        """Return how far each clip, as `clip_features` gives it, is from each action. float64 [M, K]

        Args:
            together: score many at once. Alone, a clip has the same distances, to the last bit, whatever else is asked.
        """
        supports, given = self._supports()
        mask_1KS = None if bool(given.all()) else given.unsqueeze(0)
        count = len(next(iter(queries.values())))
        found = []
        for part in self._parts(supports, count) if together else (slice(i, i + 1) for i in range(count)):
            own = self.head.in_role({name: value[part] for name, value in queries.items()}, None, "query")
            mask = None if mask_1KS is None else mask_1KS.expand(part.stop - part.start, -1, -1)
            found.append(self._scores(self._batch(supports, {n: v.unsqueeze(1) for n, v in own.items()}, mask))[:, 0])
        return np.concatenate(found) if found else np.zeros((0, len(self.shots_K)))

    @torch.inference_mode()
    def held_out(self) -> HeldOut:
        """Return the distances of each clip of an action with at least two, its own action made without it."""
        supports, given = self._supports()
        counts = torch.tensor(self.shots_K)
        clips = torch.nonzero(counts[self.labels_N.cpu()] > 1).flatten()
        labels = self.labels_N[clips.to(self.labels_N.device)]
        rows_KS, _ = rows_by_label(self.labels_N, self.shots_K)
        queries = self.head.in_role(self.features, None, "query")
        parts = []
        for part in self._parts(supports, len(clips)):
            mask = given & (rows_KS.unsqueeze(0) != clips[part].to(rows_KS.device).view(-1, 1, 1))
            own = {name: value[clips[part].to(value.device)].unsqueeze(1) for name, value in queries.items()}
            parts.append(self._scores(self._batch(supports, own, mask))[:, 0])
        distances = np.concatenate(parts) if parts else np.zeros((0, len(self.shots_K)))
        return HeldOut(distances, labels.cpu().numpy(), clips.numpy())

    def _parts(self, supports: Mapping[str, Tensor], count: int) -> Iterator[slice]:
        """Yield pieces of `count` episodes whose supports take no more than BYTES_A_BATCH."""
        size = max(1, BYTES_A_BATCH // max(1, sum(value.nbytes for value in supports.values())))
        yield from (slice(first, min(first + size, count)) for first in range(0, count, size))

    @torch.inference_mode()
    def explain(self, query: Features) -> Alignment | None:
        """Say how one clip [1, ...] meets the actions; None: the head has nothing to draw."""
        supports, given = self._supports()
        found = self.head.in_role(query, None, "query")
        return self.head.explain(self._batch(supports, {name: value.unsqueeze(1) for name, value in found.items()},
                                             None if bool(given.all()) else given.unsqueeze(0)))
