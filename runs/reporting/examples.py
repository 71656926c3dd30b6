"""Keep what the report shows of a query: its frames, the ways of its episode, and how its frames meet theirs.

Costs and path come from the head (`Head.explain`), so what is drawn is what was scored.

K ways, S shots, T frames, H/W/C image.
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


@dataclass(frozen=True, slots=True, eq=False)
class WayExample:
    """One way of an example's episode, as the query met it.

    Args:
        class_name: name of the class.
        support_frames_STHWC: the frames of its support clips, uint8 RGB.
        value: what the class was given: a distance (lower is nearer), a logit or a score (higher is).
        probability: of the class among the ways, 0..1.
        costs_TT: cost of query frame (row) against prototype frame (column); None: there is nothing to draw.
        path_TT: visiting probability of each cell, 0..1; None without costs.
    """

    class_name: str
    support_frames_STHWC: np.ndarray
    value: float
    probability: float
    costs_TT: np.ndarray | None = None
    path_TT: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One query with what the model made of it: of a test episode, or one whose class nobody knows.

    Args:
        episode: number of the episode in its list; None: it is of none.
        query_video: path of the query as the split list has it, or another name for it.
        query_frames_THWC: frames of the query, uint8 RGB.
        true_label: episode label of the query; None: not known.
        ways: the classes of the episode, in the order of its labels.
        measure: what the ways' values are, in a word.
    """

    episode: int | None
    query_video: str
    query_frames_THWC: np.ndarray
    true_label: int | None
    ways: tuple[WayExample, ...]
    measure: str

    @property
    def true(self) -> WayExample | None:
        """The way of the query's own class; None: not known."""
        return None if self.true_label is None else self.ways[self.true_label]

    @property
    def predicted(self) -> WayExample:
        """The most probable way; the first of equals."""
        return max(self.ways, key=lambda way: way.probability)

    @property
    def right(self) -> bool:
        """Whether the prediction is the true class."""
        return self.predicted is self.true


def pixels(clips_CHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return the pictures that normalised frames were made from.

    Args:
        clips_CHW: [..., C, H, W] frames as a model takes them.
        mean, std: of R, G, B in 0..1, as they were normalised with.

    Returns:
        uint8 [..., H, W, C].
    """
    channels = (len(mean), 1, 1)
    frames = clips_CHW.detach().float().cpu() * torch.tensor(std).view(channels) + torch.tensor(mean).view(channels)
    return (frames * 255).round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).numpy()


def make_ways(class_names: Sequence[str], supports_K: Sequence[np.ndarray], scores_K: np.ndarray, kind: Kind,
              alignment: Alignment | None = None) -> tuple[WayExample, ...]:
    """Return the ways of an episode as one query met them.

    Args:
        class_names: name of each of the K ways. supports_K: frames of each way's supports, uint8 [S, T, H, W, 3].
        scores_K: of the ways, higher is nearer. kind: of these scores. alignment: None where there is nothing to draw.

    Raises ReportError where an alignment is not of these ways and frames.
    """
    frames = supports_K[0].shape[1]
    shares_K, values_K = probabilities(scores_K, kind), -scores_K if kind == "distance" else scores_K
    maps: Sequence[tuple[np.ndarray | None, np.ndarray | None]] = [(None, None)] * len(class_names)
    if alignment is not None:
        costs_KTT, path_KTT = alignment.costs_KTT.cpu().numpy(), alignment.path_KTT.cpu().numpy()
        expected = (len(class_names), frames, frames)
        if not costs_KTT.shape == path_KTT.shape == expected:
            raise ReportError(f"expected costs and a path of shape {list(expected)} from the head's explain(), found "
                              f"{list(costs_KTT.shape)} and {list(path_KTT.shape)}")
        maps = list(zip(costs_KTT, path_KTT, strict=True))
    return tuple(WayExample(name, supports, float(value), float(probability), *drawn) for
                 name, supports, value, probability, drawn
                 in zip(class_names, supports_K, values_K, shares_K, maps, strict=True))
