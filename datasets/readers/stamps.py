"""Judge a video file by the times of its packets: whether each tells its frame, how even they are, where to begin."""

from collections.abc import Sequence

import numpy as np

from datasets.readers.packets import CLEAN, CLOSED, NOWHERE


def delay(times: np.ndarray) -> int:
    """Return how many frames a decoder must hold back for all to come in the order of their times."""
    return int((np.argsort(times) - np.arange(len(times))).max())


def timed(times: Sequence[int], reordered: bool) -> bool:
    """Whether times are those of showing, and none twice or below 0.

    Times that only rise, of frames that are stored in another order than shown (`reordered`), are those of storing.
    """
    return len(set(times)) == len(times) and min(times) >= 0 and not (
        reordered and len(times) > 1 and bool((np.diff(times) > 0).all()))


def paced(times: np.ndarray, unit: float) -> tuple[tuple[float, float], tuple[int, float]]:
    """Return Look.pace of times in units of so many seconds, with a margin for what decoders round, and Look.grid."""
    shown, places = np.sort(times), np.arange(len(times))
    first = int(shown[0])
    passed = shown - first
    step = float(passed[-1]) / max(len(times) - 1, 1)
    even = np.abs(passed - step * places).max() < 0.4 * step
    # Steps that a time allows, rounded as it is, lie in a range; one that all allow is in all ranges.
    fit = float(((passed[1:] - 0.5) / places[1:]).max() + ((passed[1:] + 0.5) / places[1:]).min()) / 2 if step else 0.0
    on = (np.rint(fit * places) == passed).all()
    return (first * unit, step * unit if even else 0.0), (first, fit) if on else (0, 0.0)


def entered(shown: np.ndarray, marks: Sequence[int | None], keys: Sequence[bool], entrances: Sequence[int]
            ) -> tuple[np.ndarray, bool]:
    """Return Look.starts of timed frames, and whether whoever seeks a frame's time comes to the keyframe before it.

    He does where decoding can begin at each keyframe, nothing that is stored behind one is shown before it (a closed
    group), and none is decoded before the one in front of it is shown: it may be taken for that one.
    """
    numbers = np.flatnonzero(keys).tolist()
    at, ways = np.array(numbers), np.array([entrances[key] for key in numbers])
    latest, earliest = np.maximum.accumulate(shown), np.minimum.accumulate(shown[::-1])[::-1]
    clear = latest[at] == shown[at]  # nothing stored before it is shown behind it
    closed = clear.all() and (earliest[at] == shown[at]).all() and np.isin(ways, (CLEAN, CLOSED)).all() and all(
        mark is None or mark > time for time, mark in zip(shown[at], [marks[key] for key in numbers[1:]], strict=False))
    ticks = shown[at[clear & (ways > (NOWHERE if closed else CLOSED))]]
    return np.stack([np.searchsorted(np.sort(shown), ticks), ticks], 1), bool(closed)
