"""Examples for the report: a query, the ways of its episode, and how its frames meet theirs.

Costs and path come from the head (`Head.explain`), so what is drawn is what was scored.

K ways, N supports, S shots, T frames, H/W/C image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.heads.base import Alignment
from utils.errors import ReportError
from utils.metrics import Kind, probabilities

MEASURES: dict[Kind, str] = {"distance": "distance", "logits": "logit", "probabilities": "score"}  # kind: its word
TOLERANCE = 1e-3  # of probabilities that came through float32


def _check_frames(frames: np.ndarray, ndim: int, what: str) -> None:
    """Raises ReportError unless `frames` are uint8 [..., T, H, W, 3] with `ndim` dimensions, none of them empty."""
    if frames.dtype != np.uint8 or frames.ndim != ndim or frames.shape[-1] != 3 or not frames.size:
        raise ReportError(f"{what}: expected frames of uint8 [{'S, ' if ndim == 5 else ''}T, H, W, 3], found "
                          f"{frames.dtype} {list(frames.shape)}")


@dataclass(frozen=True, slots=True, eq=False)
class WayExample:
    """One way of an example's episode, as the query met it.

    Args:
        class_name: name of the class.
        support_frames_STHWC: the frames of its support clips, uint8 RGB.
        value: what the class was given: a distance (lower is nearer), a logit or a score (higher is).
        probability: of the class among the ways, 0..1.
        costs_TT: cost of query frame (row) against prototype frame (column); None: the method has no such costs.
        path_TT: visiting probability of each cell, 0..1; None: the method has no alignment.

    Raises ReportError when the parts do not fit together.
    """

    class_name: str
    support_frames_STHWC: np.ndarray
    value: float
    probability: float
    costs_TT: np.ndarray | None = None
    path_TT: np.ndarray | None = None

    def __post_init__(self):
        what = f"class {self.class_name!r}"
        _check_frames(self.support_frames_STHWC, 5, what)
        if not np.isfinite(self.value) or not -TOLERANCE <= self.probability <= 1 + TOLERANCE:
            raise ReportError(f"{what}: expected a finite value and a probability from 0 to 1, found "
                              f"{self.value} and {self.probability}")
        for name, values in (("costs", self.costs_TT), ("path", self.path_TT)):
            if values is not None and (values.ndim != 2 or not np.isfinite(values).all()):
                raise ReportError(f"{what}: expected {name} of [T, T] finite numbers, found {list(values.shape)}")
        if self.costs_TT is not None and self.costs_TT.shape[1] != self.support_frames_STHWC.shape[1]:
            raise ReportError(f"{what}: costs of {self.costs_TT.shape[1]} support frames, but "
                              f"{self.support_frames_STHWC.shape[1]} frames to show")
        self._check_path(what)

    def _check_path(self, what: str) -> None:
        if self.path_TT is None:
            return
        if self.costs_TT is None or self.path_TT.shape != self.costs_TT.shape:
            raise ReportError(f"{what}: expected a path of the shape of its costs, found {list(self.path_TT.shape)}")
        if self.path_TT.min() < -TOLERANCE or self.path_TT.max() > 1 + TOLERANCE:
            raise ReportError(f"{what}: expected visiting probabilities from 0 to 1, found "
                              f"{self.path_TT.min():g} to {self.path_TT.max():g}")


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One query of a test episode, with what the model made of it.

    Args:
        episode: number of the episode in its list.
        query_video: path of the query as the split list has it.
        true_class, predicted_class: names, both among `ways`; the predicted one has the highest probability.
        query_frames_THWC: frames of the query, uint8 RGB.
        ways: the classes of the episode, in its order, two or more; their probabilities sum to 1.
        measure: what the ways' values are, in a word.

    Raises ReportError when the parts do not fit together.
    """

    episode: int
    query_video: str
    true_class: str
    predicted_class: str
    query_frames_THWC: np.ndarray
    ways: tuple[WayExample, ...]
    measure: str = "distance"

    def __post_init__(self):
        what = f"example of episode {self.episode}, {self.query_video}"
        _check_frames(self.query_frames_THWC, 4, what)
        names = [way.class_name for way in self.ways]
        if len(names) < 2 or len(set(names)) != len(names):
            raise ReportError(f"{what}: expected two or more ways of different names, found {names}")
        for name in (self.true_class, self.predicted_class):
            if name not in names:
                raise ReportError(f"{what}: class {name!r} is none of its ways: {', '.join(names)}")
        total = sum(way.probability for way in self.ways)
        if abs(total - 1) > TOLERANCE:
            raise ReportError(f"{what}: expected probabilities that sum to 1, found a sum of {total:g}")
        if self.way(self.predicted_class).probability < max(way.probability for way in self.ways) - TOLERANCE:
            raise ReportError(f"{what}: {self.predicted_class!r} is not the most probable of its ways")
        frames = len(self.query_frames_THWC)
        for way in self.ways:
            if way.costs_TT is not None and len(way.costs_TT) != frames:
                raise ReportError(f"{what}: {frames} query frames, but costs of {len(way.costs_TT)} for "
                                  f"{way.class_name!r}")

    def way(self, name: str) -> WayExample:
        """The way of that class name."""
        return next(way for way in self.ways if way.class_name == name)

    @property
    def right(self) -> bool:
        """Whether the prediction is the true class."""
        return self.true_class == self.predicted_class


def pixels(clips_CHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The pictures that normalised frames were made from.

    Args:
        clips_CHW: [..., C, H, W] frames as a model takes them.
        mean, std: of R, G, B in 0..1, as they were normalised with.

    Returns:
        uint8 [..., H, W, C].
    """
    channels = (len(mean), 1, 1)
    frames = clips_CHW.detach().float().cpu() * torch.tensor(std).view(channels) + torch.tensor(mean).view(channels)
    return (frames * 255).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).numpy()


@dataclass(frozen=True, slots=True, eq=False)
class QueryPictures:
    """One query of a decoded episode, as pictures.

    Args:
        query_frames_THWC, support_frames_NTHWC: uint8 RGB, see `pixels`.
        support_labels_N: episode label of each support.
        episode: number of the episode. query_video: path of the query as the list has it.
    """

    query_frames_THWC: np.ndarray
    support_frames_NTHWC: np.ndarray
    support_labels_N: np.ndarray
    episode: int
    query_video: str


def make_example(pictures: QueryPictures, class_names: Sequence[str], true_label: int, scores_K: np.ndarray,
                 kind: Kind, alignment: Alignment | None = None) -> Example:
    """An Example from what a model made of one query.

    Args:
        class_names: name of each of the K ways. true_label: episode label 0..K-1 of the query.
        scores_K: of the ways, higher is nearer. kind: of these scores. alignment: None where there is nothing to draw.

    Raises ReportError when the parts do not fit together.
    """
    ways, labels_N = len(class_names), np.asarray(pictures.support_labels_N)
    supports = pictures.support_frames_NTHWC
    if len(scores_K) != ways or not 0 <= true_label < ways or len(labels_N) != len(supports):
        raise ReportError(f"episode {pictures.episode}: {ways} class names, {len(scores_K)} scores, true label "
                          f"{true_label}, {len(labels_N)} labels of {len(supports)} supports")
    shares_K = probabilities(scores_K, kind)
    values_K = -np.asarray(scores_K) if kind == "distance" else np.asarray(scores_K)
    maps = [(None, None)] * ways if alignment is None else [
        (costs.cpu().numpy(), path.cpu().numpy())
        for costs, path in zip(alignment.costs_KTT, alignment.path_KTT, strict=True)]
    found = tuple(
        WayExample(str(name), supports[labels_N == label], float(values_K[label]), float(shares_K[label]),
                   *maps[label])
        for label, name in enumerate(class_names))
    return Example(pictures.episode, pictures.query_video, str(class_names[true_label]),
                   str(class_names[int(shares_K.argmax())]), pictures.query_frames_THWC, found, MEASURES[kind])
