"""Define the contract of a head: everything that runs/ may ask of a few-shot method stands in this file.

A method is a subclass of `Head` in a file of its own, registered in HEADS (models/README.md: add a method). What it
must say is how queries meet supports (`match`); all else has a default.

A clip goes through three functions. `encode` is the tower alone, so that several episodes can share a pass.
`clip_features` is what a feature store keeps of the clip: it sees no label, no episode, no text. `in_role` makes of it
a support (which gets the text of its own class) or a query (which gets none, so labels cannot leak).

P clips, N supports, M queries, B episodes, K ways, S shots, T frames, D features, G classes of a split, C/H/W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.base import Encoder, Output, encode_clips
from models.layers.efficiency import has_batch_statistics
from utils.episode import Episode, EpisodeOutput, Role
from utils.errors import HeadError
from utils.metrics import Kind
from utils.phases import phase

Features = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Names one way in which a head scores queries; scores are higher where a class is nearer, whatever the kind."""

    name: str  # its key in results.json
    title: str  # its name in words
    kind: Kind  # "distance" (scores are minus a distance), "logits", or "probabilities" (up to a factor)
    extra: Mapping[str, Any] = field(default_factory=dict)  # what belongs beside its numbers: the weight of the text


@dataclass(frozen=True, slots=True)
class Setting:
    """Holds what a head may know of the data and the training."""

    frames: int  # T of a clip
    train_classes: int = 0  # G of the train list; 0: no training, or a list without names
    loss_divisor: float = 1.0  # TRAIN.BATCH_SIZE
    texts: str = "names"  # what class texts come from: their names, or "llm", sentences of a file
    episodes: tuple[tuple[int, int], ...] = ()  # ways and shots of training and of the test; empty: not known


@dataclass(frozen=True, slots=True)
class Group:
    """Holds parameters that train alike: with `lr_scale` times the learning rate, and a weight decay of their own."""

    name: str
    parameters: Sequence[nn.Parameter]
    lr_scale: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Holds B episodes of one size as features, supports in the order of the episode labels.

    Args:
        support: name to [B, K, S, ...]. query: name to [B, M, ...].
        text_BKD: text features of each way's class; None: the head reads no text.
        unlabelled: name to [B, U, ...], clips of the episode without a label.
        given_BKS: which of S supports are there, where classes have different numbers of them; None: all are.
    """

    support: Features
    query: Features
    text_BKD: Tensor | None = None
    unlabelled: Features | None = None
    given_BKS: Tensor | None = None

    def __post_init__(self):
        parts = {"support": self.support, "query": self.query}
        shapes = {f"{role} {name}": list(value.shape) for role, part in parts.items() for name, value in part.items()}
        leading = {tuple(shape[:3]) for name, shape in shapes.items() if name.startswith("support")}
        if len(leading) != 1 or len({shape[0] for shape in shapes.values()}) != 1:
            raise HeadError(f"expected supports [B, K, S, ...] and queries [B, M, ...] of the same episodes, found "
                            f"{shapes}")

    def prototypes(self, name: str) -> Tensor:
        """Return the mean of a feature over the shots, [B, K, ...]."""
        return self.over_shots(self.support[name])

    @property
    def sizes(self) -> tuple[int, int]:
        """Gives K and S."""
        ways, shots = next(iter(self.support.values())).shape[1:3]
        return ways, shots

    def over_clips(self, scores_BMN: Tensor) -> Tensor:
        """Return scores for classes, the mean of those for their clips, [B, M, K * S] -> [B, M, K]."""
        return self.over_shots(scores_BMN.transpose(1, 2).unflatten(1, self.sizes)).transpose(1, 2)

    def over_shots(self, values: Tensor) -> Tensor:
        """Return the mean over the shots that are there, [B, K, S, ...] -> [B, K, ...]."""
        if self.given_BKS is None:
            return values.mean(dim=2)
        given = self.given_BKS.reshape(*self.given_BKS.shape, *[1] * (values.ndim - 3)).to(values.dtype)
        return (values * given).sum(dim=2) / given.sum(dim=2)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Says how the frames of one query meet those of each class."""

    costs_KTT: Tensor  # cost of each query frame (row) against each prototype frame (column)
    path_KTT: Tensor  # how much of the match each cell carries, 0..1


def needed(text: Tensor | None) -> Tensor:
    """Return the text features of a head that reads text. Raises HeadError where it was given none."""
    if text is None:
        raise HeadError("expected text features of the classes, as the head reads text, found none")
    return text


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Stands for the options of a head that has none."""


class Head(nn.Module, ABC):
    """Is what every few-shot method derives from: it has a visual tower, `backbone`.

    Args:
        encoder: the tower and its width. setting: see Setting. options: an instance of the class's `Options`.
    """

    title: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    tower_output: ClassVar[Output] = "vector"  # what the tower gives of a frame: a vector, or a map
    reads_text: ClassVar[bool] = False  # text towers are built, and class names asked for, only where it is true
    episode_free: ClassVar[bool] = True  # whether a clip's features are the same in every episode
    transductive: ClassVar[bool] = False  # whether a query's scores depend on the other queries
    trains: bool = True  # false: a test needs no checkpoint where there is none; options may decide it
    calibrates: bool = False  # whether `calibrate` must see validation episodes before a test
    scorings: Sequence[Scoring]  # the first one is what training uses

    def __init__(self, encoder: Encoder, setting: Setting, options: Any = None):
        super().__init__()
        self.backbone = encoder.visual
        self.dim, self.setting, self.pretraining = encoder.dim, setting, encoder.pretraining
        self.options = self.Options() if options is None else options
        self._compiled: dict[str, Any] = {}

    @property
    def texts(self) -> str | None:
        """Names the texts that are used (Setting.texts); None: none."""
        return self.setting.texts if self.reads_text else None

    @property
    def headline(self) -> str:
        """Names the scoring that the options ask for in a test."""
        return self.scorings[0].name

    def encode(self, clips_PTCHW: Tensor) -> Features:
        """Return the tower's features, by name, each [P, ...]."""
        with phase("encoder"):
            return {"frames": encode_clips(self.part("encoder"), clips_PTCHW)}

    def clip_features(self, encoded: Features) -> Features:
        """Return what a feature store keeps of each clip, each [P, ...]: any names, any trailing shape."""
        return encoded

    def in_role(self, features: Features, text_PD: Tensor | None, role: Role) -> Features:
        """Return the features of clips as supports, queries or unlabelled clips.

        Args:
            features: from `clip_features`. text_PD: each support's class text; None for other roles, or without text.
        """
        return features

    @abstractmethod
    def match(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Score every query for every way: [B, M, K] by scoring; in training the first scoring is enough."""

    @final
    def batch(self, episode: Episode, text_GD: Tensor | None, encoded: Mapping[Role, Features] | None = None
              ) -> FeatureBatch:
        """Return an episode as a FeatureBatch of one, from what `encode` gave for each role, or from its clips."""
        if encoded is None:
            encoded = {role: self.encode(clips) for role, clips in episode.clips.items()}
        return self.batch_of(episode, text_GD, {role: self.clip_features(one) for role, one in encoded.items()})

    @final
    def batch_of(self, episode: Episode, text_GD: Tensor | None, features: Mapping[Role, Features]) -> FeatureBatch:
        """Return an episode as a FeatureBatch of one, from what `clip_features` gave for each role."""
        own_text = None if text_GD is None else text_GD[episode.support_classes_N]
        parts = {role: self.in_role(one, own_text if role == "support" else None, role)
                 for role, one in features.items()}
        rows_KS, given_KS = episode.support_rows()
        parts["support"] = {name: value[rows_KS] for name, value in parts["support"].items()}
        one = {role: {name: value.unsqueeze(0) for name, value in part.items()} for role, part in parts.items()}
        return FeatureBatch(one["support"], one["query"],
                            None if text_GD is None else text_GD[episode.classes_K].unsqueeze(0),
                            one.get("unlabelled"), None if given_KS is None else given_KS.unsqueeze(0))

    def output(self, episode: Episode, encoded: Mapping[Role, Features], text_GD: Tensor | None) -> EpisodeOutput:
        """Return the output of one episode from its encoded clips. A head overrides it for what only training needs.

        Args:
            encoded: role to what `encode` gave. text_GD: text features of the split's classes.
        """
        scores = {name: values[0] for name, values in self.match(self.batch(episode, text_GD, encoded)).items()}
        return EpisodeOutput(scores[self.scorings[0].name if self.training else self.headline], scores)

    @final
    def outputs(self, episodes: Sequence[Episode], text_GD: Tensor | None) -> Iterator[EpisodeOutput]:
        """Yield the outputs of several episodes, one after the other; their clips pass the tower together.

        Where the tower has batch statistics, which the roles of an episode do not share, each role passes alone.
        """
        parts = [clips for episode in episodes for clips in episode.clips.values()]
        if has_batch_statistics(self.backbone):
            encoded = [self.encode(part) for part in parts]
        else:
            together, sizes = self.encode(torch.cat(parts)), [len(part) for part in parts]
            pieces = {name: value.split(sizes) for name, value in together.items()}
            encoded = [{name: piece[i] for name, piece in pieces.items()} for i in range(len(parts))]
        remaining = iter(encoded)
        for episode in episodes:
            yield self.output(episode, {role: next(remaining) for role in episode.clips}, text_GD)

    def forward(self, episode: Episode, text_GD: Tensor | None) -> EpisodeOutput:
        """Return the output of one episode. Raises HeadError where an evaluation's scorings are not those declared."""
        output = next(self.outputs([episode], text_GD))
        if not self.training:
            self.check_scorings(output.scores)
        return output

    @final
    def check_scorings(self, scores: Mapping[str, Tensor]) -> None:
        """Raise HeadError unless the scores are of the declared scorings."""
        declared = [scoring.name for scoring in self.scorings]
        if sorted(scores) != sorted(declared):
            raise HeadError(f"{type(self).__name__}: expected scores of {', '.join(declared)}, as it declares them, "
                            f"found {', '.join(scores) or 'none'}")

    def losses(self, output: EpisodeOutput, episode: Episode) -> dict[str, Tensor]:
        """Return the weighted losses of an episode, scalars by name; training minimises their sum."""
        return {"few_shot": self.weighted(F.cross_entropy(output.logits_MK, episode.query_labels_M))}

    @final
    def weighted(self, loss: Tensor, weight: float = 1.0) -> Tensor:
        """Return a loss times its weight, divided by TRAIN.BATCH_SIZE as published."""
        return loss * (weight / self.setting.loss_divisor)

    def untrained(self) -> set[str]:
        """Name the parameters that get no gradient under these options."""
        return set()

    def parameter_groups(self) -> list[Group] | None:
        """Return the optimizer's groups; None: the published four (utils/optim.py)."""
        return None

    def parts(self) -> dict[str, nn.Module]:
        """Return modules by the name of their phase: they are timed, counted and compiled under it."""
        return {"encoder": self.backbone}

    @final
    def part(self, name: str) -> nn.Module:
        """Return a part as it is to be called: its compiled code in training, where there is one."""
        return self._compiled[name] if self.training and name in self._compiled else self.parts()[name]

    @final
    def compile_training(self) -> None:
        """Have torch.compile make code for the parts, used in training mode, at the first pass."""
        options: dict[str, Any] = {"fallback_random": True}  # dropout draws what it would draw uncompiled
        self._compiled = {name: torch.compile(part, dynamic=False, options=options)
                          for name, part in self.parts().items()}

    def explain(self, batch: FeatureBatch) -> Alignment | None:
        """Say for the report how one query of one episode meets its ways (B = M = 1); None: nothing can be drawn."""
        return None

    def feature_modules(self) -> Sequence[nn.Module]:
        """Return the modules whose weights stored features depend on; a head may override it to name fewer."""
        of_tower = type(self).encode is Head.encode and type(self).clip_features is Head.clip_features
        return [self.backbone if of_tower else self]

    def feature_facts(self) -> dict[str, Any]:
        """Return what stored features depend on beside weights and pixels, such as an option that mixes them."""
        return {}

    def calibrate(self, batches: Sequence[tuple[FeatureBatch, Tensor]]) -> dict[str, float]:
        """Choose strengths on validation episodes, keep them in buffers, and return them; called if `calibrates`.

        Args:
            batches: (features, labels [B, M]) of the validation episodes.
        """
        raise HeadError(f"{type(self).__name__} says that it calibrates, but has no calibrate()")
