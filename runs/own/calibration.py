"""Says from a person's own clips what their answers are worth: leave-one-out, a threshold for "unknown", a temperature.

Each clip of an action with at least two is scored against all actions, its own made without it. From the distances to
the clips' own actions comes the threshold, by split conformal prediction (Vovk et al., 2005): a clip of the same kind
is nearer than the ceil(keep (n + 1))-th smallest of n with probability keep. How many foreign clips are nearer, too,
cannot be told from them; clips of `none` measure it.

n clips that are held out, K actions, R clips of none.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy  # its parts are imported when they are first used

from utils.errors import OwnClipsError
from utils.metrics import wilson

Kind = Literal["leave-one-out", "checkpoint", "given", "none"]
TEMPERATURES = np.geomspace(0.05, 20.0, 60)
ANSWERS_FOR_TEMPERATURE, CLIPS_FOR_BALANCE = 10, 20
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Holds the distances of clips to all actions, each clip's own action made without it.

    Args:
        distances_nK: how far each clip is from each action. labels_n: its own action. clips_n: its number among all.
    """

    distances_nK: np.ndarray
    labels_n: np.ndarray
    clips_n: np.ndarray

    @property
    def own_n(self) -> np.ndarray:
        """Gives the distance of each clip to its own action."""
        return self.distances_nK[np.arange(len(self.labels_n)), self.labels_n]

    @property
    def right_n(self) -> np.ndarray:
        """Gives whether the nearest action is each clip's own."""
        return self.distances_nK.argmin(axis=1) == self.labels_n if len(self.labels_n) else np.zeros(0, bool)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Holds what a person asks of the answers.

    Args:
        keep: the share of clips like theirs that is to be answered; None: 0.9, and 0.8 in a long video, in most of
            which nothing happens. threshold: theirs, in place of a computed one.
        balance: place the threshold where as many own clips are lost as clips of none accepted.
    """

    keep: float | None = None
    threshold: float | None = None
    balance: bool = False

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep < 1:
            raise OwnClipsError(f"--keep: expected a share between 0 and 1, such as 0.9, found {self.keep:g}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise OwnClipsError(f"--threshold: expected a distance, found {self.threshold:g}")


AS_USUAL = Wishes()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Says when an answer is "unknown", and how distances become probabilities.

    Args:
        kind: where the threshold comes from. keep: the share of own clips that it is to keep.
        threshold: the largest distance to the nearest action that is answered; None: there is none, for this `reason`.
        clips: how many clips it was made of. kept: (own clips that are nearer, of how many).
        none_accepted: (clips of none that are nearer, of how many); None: there are none.
        temperature: what distances are divided by; None: too few answers to fit one.
    """

    kind: Kind
    keep: float
    threshold: float | None
    clips: int
    kept: tuple[int, int]
    none_accepted: tuple[int, int] | None
    temperature: float | None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in a file."""
        return {"kind": self.kind, "keep": self.keep, "threshold": self.threshold, "clips": self.clips,
                "kept": list(self.kept), "none_accepted": None if self.none_accepted is None
                else list(self.none_accepted), "temperature": self.temperature, "reason": self.reason}


def clips_needed(keep: float) -> int:
    """Return how many held-out clips a threshold that keeps this share takes."""
    return math.ceil(round(keep / (1 - keep), 9))


def conformal_threshold(own_n: np.ndarray, keep: float) -> float | None:
    """Return the ceil(keep (n + 1))-th smallest of n distances; None where n is too small for that."""
    rank = math.ceil(round(keep * (len(own_n) + 1), 9))
    return float(np.sort(own_n)[rank - 1]) if rank <= len(own_n) else None


def balanced_threshold(own_n: np.ndarray, nearest_R: np.ndarray) -> float:
    """Return the distance at which the share of own clips lost and that of clips of none accepted are nearest."""
    candidates = np.sort(np.concatenate([own_n, nearest_R]))
    lost, accepted = ((own_n[None] > candidates[:, None]).mean(axis=1),
                      (nearest_R[None] <= candidates[:, None]).mean(axis=1))
    return float(candidates[np.abs(lost - accepted).argmin()])


def fitted_temperature(held_out: HeldOut) -> float | None:
    """Return the temperature under which the held-out clips' own actions are most likely; None: too few of them."""
    labels = held_out.labels_n
    if len(labels) < ANSWERS_FOR_TEMPERATURE or held_out.distances_nK.shape[1] < 2:
        return None
    losses = [-scipy.special.log_softmax(-held_out.distances_nK / t, axis=1)[np.arange(len(labels)), labels].mean()
              for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def better_than_guessing(right: int, total: int, ways: int) -> bool:
    """Return whether so many right answers are unlikely by guessing (one-sided binomial test at 5 %)."""
    return total > 0 and bool(
        scipy.stats.binomtest(right, total, 1 / ways, alternative="greater").pvalue < SIGNIFICANCE)


def calibrate(held_out: HeldOut, nearest_R: np.ndarray, wishes: Wishes, keep: float,
              of_checkpoint: float | None = None) -> Calibration:
    """Place the threshold, and fit the temperature.

    Args:
        nearest_R: distance of each clip of none to its nearest action. keep: the share, if `wishes` says none.
        of_checkpoint: threshold of the checkpoint's own validation classes, where own clips are too few.

    Raises OwnClipsError where a balance is asked for with too few clips of none.
    """
    kind: Kind = "leave-one-out"
    own, keep, reason = held_out.own_n, wishes.keep or keep, None
    threshold = conformal_threshold(own, keep)
    if wishes.balance:
        if len(nearest_R) < CLIPS_FOR_BALANCE or not len(own):
            raise OwnClipsError(f"--balance: expected at least {CLIPS_FOR_BALANCE} clips of none, as a threshold "
                                f"placed by fewer is not to be relied on, found {len(nearest_R)}")
        threshold = balanced_threshold(own, nearest_R)
    elif threshold is None:
        need = clips_needed(keep)
        reason = (f"{len(own)} clips of actions with at least two are too few for a threshold that keeps "
                  f"{100 * keep:g} %: {need} are needed"
                  + (", or --keep 0.8" if keep > 0.8 and len(own) >= clips_needed(0.8) else ""))
        threshold, kind = of_checkpoint, "none" if of_checkpoint is None else "checkpoint"
    if wishes.threshold is not None:
        threshold, kind, reason = wishes.threshold, "given", None
    nearer = 0 if threshold is None else int((own <= threshold).sum())
    accepted = None if not len(nearest_R) else (
        len(nearest_R) if threshold is None else int((nearest_R <= threshold).sum()), len(nearest_R))
    return Calibration(kind, keep, threshold, len(own), (nearer, len(own)), accepted,
                       fitted_temperature(held_out), reason)


def percent(share: float) -> str:
    """Return a share as a person reads it."""
    return f"{100 * share:.0f} %"


def counted(count: int, one: str) -> str:
    """Return a number with its noun: '1 clip', '3 clips'."""
    return f"{count} {one}{'s' if count != 1 else ''}"


def leave_one_out_words(right: int, total: int, ways: int) -> str:
    """Say how many clips were recognised with themselves held out, and whether that is better than guessing."""
    if not total or ways < 2:
        return "Leave one out: cannot be measured" + (" with one action." if ways < 2 else
                                                      ", as no action has two clips.")
    low, high = wilson(right, total)
    text = (f"Leave one out: {right} of {total} right ({percent(right / total)}, 95 % interval {100 * low:.0f} to "
            f"{percent(high)}, each with one clip fewer than you have); guessing gets {percent(1 / ways)}.")
    return text if better_than_guessing(right, total, ways) else f"{text} That is no better than guessing."


def threshold_words(found: Calibration, none_folder: str) -> str:
    """Say when an answer is "unknown" and what that is worth, in a sentence or two."""
    if found.threshold is None:
        return f"No answer is 'unknown': {found.reason}."
    ways = {"leave-one-out": f"farther from every action than {percent(found.keep)} of clips like yours are from "
                             "theirs",
            "checkpoint": f"farther from every action than {percent(found.keep)} of the clips that the checkpoint was "
                          "validated on were from theirs, which holds as far as your videos are like those",
            "given": f"farther from every action than the distance given, {found.threshold:g}"}
    text = f"'Unknown' is what lies {ways[found.kind]}"
    text += f" ({found.kept[0]} of {found.kept[1]} here are nearer)." if found.kept[1] else "."
    if found.none_accepted is None:
        return f"{text} How many foreign clips get in is not known: put some into {none_folder}."
    taken, total = found.none_accepted
    low, high = wilson(taken, total)
    return (f"{text} Of {counted(total, 'clip')} of none, {taken} would have been taken for an action "
            f"({percent(taken / total)}, 95 % interval {100 * low:.0f} to {percent(high)}).")
