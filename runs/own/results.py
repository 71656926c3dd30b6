"""Holds what is said of clips: plain frozen dataclasses that become JSON. Nothing here loads torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runs.own.calibration import Calibration, leave_one_out_words, threshold_words

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Holds a stretch of a long video: seconds from its start, the action, its nearest distance, windows over it."""

    start: float
    end: float
    action: str
    distance: float
    windows: int


@dataclass(frozen=True, slots=True)
class Strip:
    """Holds the nearest action of a window of a video and how far it is; None in a camera's where none is near."""

    start: float
    end: float
    action: str | None
    distance: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds what is said of one clip.

    Args:
        file: its name. seconds: its length; None where it could not be read, for `error`.
        answer: the nearest action; None where it is unknown, or the clip is a long video. unknown: whether no action is
            near enough.
        distances: to each action, smaller is nearer. margin: threshold less the nearest distance; None: no threshold.
        probabilities: of each action, if it is one of them; None: not calibrated.
        shares: the same, whether calibrated or not: good for bars, not for figures.
        frames_s: when the frames taken were shown. segments: of a long video. windows: their nearest actions.
        same_as_support: the clip of the actions with the same content. notes: what is odd about it.
    """

    file: str
    seconds: float | None = None
    answer: str | None = None
    unknown: bool = False
    distances: Mapping[str, float] = field(default_factory=dict)
    margin: float | None = None
    probabilities: Mapping[str, float] | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    frames_s: Sequence[float] = ()
    segments: tuple[Segment, ...] | None = None
    windows: tuple[Strip, ...] | None = None
    same_as_support: str | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def ranked(self) -> list[str]:
        """Gives the actions, nearest first."""
        return sorted(self.distances, key=lambda name: self.distances[name])

    @property
    def counts(self) -> dict[str, tuple[int, float]]:
        """Gives how often each action is seen in a long video, and for how many seconds."""
        found: dict[str, tuple[int, float]] = {}
        for one in self.segments or ():
            times, seconds = found.get(one.action, (0, 0.0))
            found[one.action] = (times + 1, seconds + one.end - one.start)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in predictions.json."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        found: dict[str, Any] = {
            "file": self.file, "seconds": self.seconds, "answer": self.answer, "unknown": self.unknown,
            "distances": dict(self.distances), "margin": self.margin,
            "probabilities": None if self.probabilities is None else dict(self.probabilities),
            "frames_s": [round(time, 2) for time in self.frames_s]}
        if self.segments is not None or self.windows is not None:
            found["segments"] = None if self.segments is None else [_plain(one) for one in self.segments]
            found["windows"] = [_plain(one) for one in self.windows or ()]
        if self.same_as_support is not None:
            found["same_as_support"] = self.same_as_support
        return found | ({"notes": list(self.notes)} if self.notes else {})


def _plain(one: Segment | Strip) -> dict[str, Any]:
    found = {name: getattr(one, name) for name in one.__slots__}
    return {name: round(value, 2) if name in ("start", "end") else value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class ActionFacts:
    """Holds what is known of one action: its words, its clips, and how many of them were right when held out."""

    name: str
    text: str
    clips: int
    right: int
    held_out: int


@dataclass(frozen=True, slots=True)
class Check:
    """Holds what a person's own clips say about the answers to come.

    Args:
        actions: in the order of their names. calibration: see there. none_folder: where clips of none would lie.
        held_out: by clip, the action it got when it was held out; None: it was not, as its action has no other.
        warnings: what to know before relying on the answers.
    """

    actions: tuple[ActionFacts, ...]
    calibration: Calibration
    none_folder: str
    held_out: Mapping[str, str | None]
    warnings: tuple[str, ...] = ()

    @property
    def right(self) -> int:
        """Gives how many clips were right when held out."""
        return sum(action.right for action in self.actions)

    @property
    def total(self) -> int:
        """Gives how many clips were held out."""
        return sum(action.held_out for action in self.actions)

    def __str__(self) -> str:
        lines = [leave_one_out_words(self.right, self.total, len(self.actions)),
                 threshold_words(self.calibration, self.none_folder)]
        return "\n".join([*lines, *(f"note: {text}" for text in self.warnings)])

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in predictions.json."""
        return {"actions": [{"name": one.name, "text": one.text, "clips": one.clips,
                             "leave_one_out": [one.right, one.held_out]} for one in self.actions],
                "calibration": self.calibration.to_dict(), "warnings": list(self.warnings)}
