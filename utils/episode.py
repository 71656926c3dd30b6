"""Define the nouns that travel between data, models and runs: VideoRecord -> EpisodeSpec -> Episode -> EpisodeOutput.

Shape letters: N = way*shot supports, M queries, K ways, S shots, T frames, D features, G all classes of a split,
C/H/W image. Labels 0..K-1 are positions in the episode; classes 0..G-1 are indices in the split's CLASS_NAME.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from utils.errors import EpisodeError

Item = TypeVar("Item", bound="OfTensors")
Role = Literal["support", "query", "unlabelled"]  # what a clip is in its episode


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """Holds a line of a split list: `path` under DATA_ROOT_DIR (as the list has it), class index, line (from 1)."""

    path: str
    class_index: int
    line: int

    def __post_init__(self) -> None:
        if self.class_index < 0 or not self.path:
            raise EpisodeError(f"line {self.line}: class {self.class_index} and path {self.path!r} make no record")


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """Says which videos make an episode: indices of records, before anything is decoded.

    Args:
        split: train, val or test.
        index: number of the episode in its list.
        classes_K: class index of each episode label.
        support_N, query_M: record indices, already shuffled.
        support_labels_N, query_labels_M: episode label of each.
    """

    split: str
    index: int
    classes_K: tuple[int, ...]
    support_N: tuple[int, ...]
    support_labels_N: tuple[int, ...]
    query_M: tuple[int, ...]
    query_labels_M: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.support_N) != len(self.support_labels_N) or len(self.query_M) != len(self.query_labels_M):
            raise EpisodeError(f"episode {self.split} {self.index}: videos and labels differ in number")
        if len(set(self.support_N) | set(self.query_M)) != len(self.support_N) + len(self.query_M):
            raise EpisodeError(f"episode {self.split} {self.index}: a video occurs twice")

    def line(self) -> str:
        """Return the episode as one line of text, for hashing."""
        parts = (self.classes_K, self.support_N, self.support_labels_N, self.query_M, self.query_labels_M)
        return f"{self.split}:{self.index}:" + ";".join(",".join(map(str, part)) for part in parts)


def episodes_hash(specs: Iterable[EpisodeSpec]) -> str:
    """Return the SHA-256 (hex) of a list of episodes, in order."""
    digest = hashlib.sha256()
    for spec in specs:
        digest.update(spec.line().encode() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class BadVideo:
    """Names a clip that could not be read, and the one that stood in for it (DATA.ON_BAD_VIDEO: replace)."""

    path: str
    reason: str
    replaced_by: str
    split: str
    episode: int


class OfTensors:
    """Moves a dataclass that has tensors among its fields, and changes nothing else of it."""

    __slots__ = ()

    def to(self: Item, device: torch.device | str) -> Item:
        """Return a copy with its tensors on `device`."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: Item) -> Item:
        """Return a copy with its tensors in page-locked memory (called by the loader)."""
        return self._with(Tensor.pin_memory)

    def _with(self: Item, change: Callable[[Tensor], Tensor]) -> Item:
        return replace(self, **{one.name: change(value) for one in fields(self)  # type: ignore[type-var, arg-type]
                                if isinstance(value := getattr(self, one.name), Tensor)})


@dataclass(frozen=True, slots=True)
class Episode(OfTensors):
    """Holds an episode ready for a model.

    Args:
        support_NTCHW, query_MTCHW: normalised frames, float32.
        support_labels_N, query_labels_M: episode labels, int64.
        support_classes_N, query_classes_M: class indices in the split, int64.
        classes_K: class index of each episode label, int64.
        spec: where it came from (None for episodes made by hand).
        bad_videos: clips replaced while decoding.
        shots_K: supports of each episode label; counted from the labels where it is not given, which a GPU waits for.
        unlabelled_UTCHW: clips of the episode's classes without labels, for a method that uses them.
    """

    support_NTCHW: Tensor
    support_labels_N: Tensor
    support_classes_N: Tensor
    query_MTCHW: Tensor
    query_labels_M: Tensor
    query_classes_M: Tensor
    classes_K: Tensor
    spec: EpisodeSpec | None = None
    bad_videos: tuple[BadVideo, ...] = field(default=())
    shots_K: tuple[int, ...] = ()
    unlabelled_UTCHW: Tensor | None = None

    def __post_init__(self) -> None:
        support, query = self.support_NTCHW, self.query_MTCHW
        if support.ndim != 5 or query.ndim != 5:
            raise EpisodeError(f"expected clips of shape [clips, T, C, H, W], found {list(support.shape)} "
                               f"and {list(query.shape)}")
        counts = (len(self.support_labels_N), len(self.support_classes_N)), (
            len(self.query_labels_M), len(self.query_classes_M))
        if counts != ((len(support),) * 2, (len(query),) * 2):
            raise EpisodeError(f"{len(support)} supports and {len(query)} queries, but labels in the numbers {counts}")
        if not self.shots_K:
            counted = torch.bincount(self.support_labels_N.long(), minlength=self.way).tolist()
            object.__setattr__(self, "shots_K", tuple(counted))
        if len(self.shots_K) != self.way or min(self.shots_K) < 1 or sum(self.shots_K) != len(support):
            raise EpisodeError(f"expected supports of each of {self.way} ways, found {self.shots_K} of them")

    @property
    def way(self) -> int:
        """Gives K, the number of classes."""
        return len(self.classes_K)

    @property
    def clips(self) -> dict[Role, Tensor]:
        """Gives the clips by their role, supports first."""
        found: dict[Role, Tensor] = {"support": self.support_NTCHW, "query": self.query_MTCHW}
        return found if self.unlabelled_UTCHW is None else {**found, "unlabelled": self.unlabelled_UTCHW}

    @property
    def classes_P(self) -> Tensor:
        """Gives the class index of every labelled clip, supports first. [N + M]"""
        return torch.cat([self.support_classes_N, self.query_classes_M])

    def support_rows(self) -> tuple[Tensor, Tensor | None]:
        """Return what `rows_by_label` does of the supports."""
        return rows_by_label(self.support_labels_N, self.shots_K)


def rows_by_label(labels_N: Tensor, shots_K: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Return (number of the support that is shot s of label k, int64 [K, S]; which of them are there, bool [K, S]).

    Where classes have different numbers of supports, rows are filled up with their last one; else the second part is
    None.

    Args:
        labels_N: episode label of each support. shots_K: supports of each label.
    """
    device, most = labels_N.device, max(shots_K)
    order_N = labels_N.argsort(stable=True)
    if min(shots_K) == most:
        return order_N.view(len(shots_K), most), None
    shots_K1 = torch.tensor(shots_K).unsqueeze(1)
    shot_1S, first_K1 = torch.arange(most).unsqueeze(0), shots_K1.cumsum(0) - shots_K1
    rows_KS = (first_K1 + shot_1S.minimum(shots_K1 - 1)).to(device, non_blocking=True)
    return order_N[rows_KS], (shot_1S < shots_K1).to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class EpisodeOutput:
    """Holds what a head says of an episode.

    Args:
        logits_MK: score of each query for each episode label.
        scores: scoring name to [M, K]; in evaluation of every way this head can score, logits_MK among them.
        aux: what the head's own losses need beside them, by names that only the head knows.
    """

    logits_MK: Tensor
    scores: Mapping[str, Tensor]
    aux: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, scores_MK in (("logits", self.logits_MK), *self.scores.items()):
            if scores_MK.ndim != 2:
                raise EpisodeError(f"{name}: expected scores of shape [queries, ways], found {list(scores_MK.shape)}")
