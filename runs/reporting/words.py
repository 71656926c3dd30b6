"""What the report says in words and tables, from the content of results.json and run.json.

Numbers are those of the results, checked and formatted, never computed again. Shares are 0..1. G classes of the list.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import ReportError

REQUIRED = ("accuracy", "interval95", "episodes", "way", "shot", "query", "protocol", "split", "selected_on",
            "per_class")
UNRECORDED = "not recorded"
TOP_PAIRS = 10


@dataclass(frozen=True, slots=True)
class ScoringRow:
    """One scoring: its name, whether it is the headline, and its figures as text."""

    name: str
    headline: bool
    accuracy: str
    interval: str
    videos: str
    ece: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: accuracy with its Wilson 95 % interval, 0..1, and counts."""

    name: str
    accuracy: float
    low: float
    high: float
    correct: int
    queries: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A confusion: `count` queries of class `true` taken for `predicted`, `rate` of the class's queries."""

    true: str
    predicted: str
    count: int
    rate: float


def need(content: Mapping[str, Any], key: str, where: str = "results") -> Any:
    """A value that the report cannot do without; ReportError names the key."""
    if key not in content:
        raise ReportError(f"{where}: key {key!r} is missing; the report cannot do without it")
    return content[key]


def share(content: Mapping[str, Any], key: str, where: str = "results") -> float:
    """A number from 0 to 1; ReportError names the key and what came."""
    value = need(content, key, where)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ReportError(f"{where}: key {key!r}: expected a number from 0 to 1, found {value!r}")
    return float(value)


def whole(content: Mapping[str, Any], key: str, least: int, where: str = "results") -> int:
    """A whole number of at least `least`; ReportError names the key and what came."""
    value = need(content, key, where)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ReportError(f"{where}: key {key!r}: expected a whole number of at least {least}, found {value!r}")
    return value


def bounds(content: Mapping[str, Any], key: str, where: str = "results") -> tuple[float, float]:
    """[low, high] of an interval in 0..1; ReportError names the key and what came."""
    value = need(content, key, where)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ReportError(f"{where}: key {key!r}: expected [low, high], found {value!r}")
    low, high = (share({key: end}, key, where) for end in value)
    if low > high:
        raise ReportError(f"{where}: key {key!r}: expected low below high, found {value!r}")
    return low, high


def percent(value: float, digits: int = 2) -> str:
    """A share as a percentage: 0.61 -> 61.00%."""
    return f"{100 * value:.{digits}f}%"


def check(results: Mapping[str, Any]) -> None:
    """Raises ReportError unless the results have what every report shows."""
    for key in REQUIRED:
        need(results, key)
    share(results, "accuracy")
    share(results, "interval95")
    for key, least in (("episodes", 1), ("way", 2), ("shot", 1), ("query", 1)):
        whole(results, key, least)
    if not isinstance(results["per_class"], Mapping) or not results["per_class"]:
        raise ReportError("results: key 'per_class': expected class names with their figures, found "
                          f"{results['per_class']!r}")


def video_interval(content: Mapping[str, Any], where: str = "results") -> str | None:
    """The interval that respects shared videos, in words; None when not computed."""
    if content.get("interval95_videos") is None:
        return None
    low, high = bounds(content, "interval95_videos", where)
    return f"{percent(low)} to {percent(high)}"


def scoring_title(results: Mapping[str, Any], name: str) -> str:
    """What a scoring is called in words; its name in files that do not say."""
    return str((results.get("scorings") or {}).get(name, {}).get("title", name))


def scoring_rows(results: Mapping[str, Any]) -> list[ScoringRow]:
    """Every scoring that the results have, in their order; the headline alone where they name none."""
    headline = results.get("scoring")
    rows = []
    for key, figures in (results.get("scorings") or {headline or UNRECORDED: results}).items():
        where, name = f"results: scorings: {key}", scoring_title(results, str(key))
        weight = figures.get("text_weight")
        ece = figures.get("ece")
        rows.append(ScoringRow(
            name=f"{name} (text weight {weight:g})" if weight is not None else name,
            headline=headline in (key, name), accuracy=percent(share(figures, "accuracy", where)),
            interval=f"± {percent(share(figures, 'interval95', where))}",
            videos=video_interval(figures, where) or UNRECORDED,
            ece=UNRECORDED if ece is None else percent(share(figures, "ece", where))))
    return rows


def class_rows(results: Mapping[str, Any], class_names: Sequence[str]) -> list[ClassRow]:
    """Classes with queries, the best first (ties by name). Raises ReportError for a class that the list lacks."""
    rows, known = [], set(class_names)
    for name, figures in results["per_class"].items():
        where = f"results: per_class: {name}"
        if name not in known:
            raise ReportError(f"{where}: no class of that name among the {len(known)} class names")
        low, high = bounds(figures, "wilson95", where)
        rows.append(ClassRow(name, share(figures, "accuracy", where), low, high, whole(figures, "correct", 0, where),
                             whole(figures, "queries", 1, where)))
    return sorted(rows, key=lambda row: (-row.accuracy, row.name))


def check_confusion(confusion_GG: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The counts as int64 [G, G]; ReportError unless square, whole, not negative, and of the class names' number."""
    size = len(class_names)
    counts = np.asarray(confusion_GG)
    if counts.shape != (size, size):
        raise ReportError(f"confusion: expected {size} x {size} counts for {size} class names, found "
                          f"{list(counts.shape)}")
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.round(counts)).any():
        raise ReportError("confusion: expected whole numbers of at least 0")
    return counts.astype(np.int64)


def row_shares(counts_GG: np.ndarray) -> np.ndarray:
    """Counts over their row's sum; NaN in rows without queries. [G, G]"""
    totals = counts_GG.sum(axis=1, keepdims=True)
    return np.divide(counts_GG, totals, out=np.full(counts_GG.shape, np.nan), where=totals > 0)


def top_pairs(results: Mapping[str, Any], counts_GG: np.ndarray, class_names: Sequence[str]) -> list[Pair]:
    """Confusions of the results' `top_confusions`, with the share of the queries whose episode held the other class;
    where absent, the ten most frequent of the matrix, with the share of all queries of the class."""
    given = results.get("top_confusions")
    if given is not None:
        where = "results: top_confusions"
        return [Pair(str(need(entry, "true", where)), str(need(entry, "predicted", where)),
                     whole(entry, "count", 0, where), share(entry, "rate", where)) for entry in given]
    shares = row_shares(counts_GG)
    wrong = [(int(counts_GG[i, j]), float(shares[i, j]), i, j) for i, j in np.argwhere(counts_GG) if i != j]
    wrong.sort(key=lambda pair: (-pair[0], -pair[1], pair[2:]))
    return [Pair(class_names[i], class_names[j], count, rate) for count, rate, i, j in wrong[:TOP_PAIRS]]


def _text(value: Any) -> str:
    """A value of a fact as words."""
    return UNRECORDED if value is None else str(value)


def _count(value: Any) -> str:
    """A number with thousands marked: 10,000; anything else as `_text`."""
    return f"{value:,}" if isinstance(value, int) else _text(value)


def temporal_draws(results: Mapping[str, Any]) -> str:
    """How the frames of test clips were chosen."""
    if "temporal_draws" not in results:
        return UNRECORDED
    draws = results["temporal_draws"]
    if draws is None:
        return "none: the same frames of a clip every time"
    return "fresh: other random frames each time a clip is used" if draws == "fresh" else f"{draws} of each clip"


def _selection(results: Mapping[str, Any]) -> str:
    value = results.get("selection_accuracy")
    accuracy = f", with {percent(value)} there" if isinstance(value, (int, float)) else ""
    return f"{results['selected_on']}{accuracy}"


def _lists(results: Mapping[str, Any]) -> str:
    """Identity of every split list that the number rests on; once where all have the same."""
    lists = results.get("lists") or {results["split"]: results.get("list_id") or results.get("list")}
    names = list(dict.fromkeys(lists.values()))
    if len(names) == 1 and len(lists) > 1:
        return f"{_text(names[0])} ({', '.join(lists)})"
    return "; ".join(f"{split}: {_text(name)}" for split, name in lists.items())


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What must stand beside the number, as (term, value)."""
    return [
        ("episode", f"{results['way']}-way {results['shot']}-shot, {results['query']} "
                    f"{'query' if results['query'] == 1 else 'queries'} a class"),
        ("episodes", _count(results["episodes"])), ("chance", percent(1 / results["way"])),
        ("scoring", scoring_title(results, _text(results.get("scoring")))),
        ("protocol", _text(results["protocol"])), ("lists", _lists(results)),
        ("checkpoint selected on", _selection(results)), ("iteration", _count(results.get("iteration"))),
        ("backbone", _text(results.get("backbone"))), ("frames a clip", _text(results.get("frames"))),
        ("temporal draws", temporal_draws(results)),
        ("seed", f"{_text(results.get('seed'))}; of the episodes {_text(results.get('episode_seed'))}"),
        ("videos replaced because unreadable", _count(results.get("bad_videos"))),
    ]


def origins(results: Mapping[str, Any], run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the number comes from: command, commit, versions, hashes, as (term, value)."""
    command = run.get("command")
    rows = [("command", shlex.join(map(str, command)) if isinstance(command, (list, tuple)) else _text(command)),
            ("commit", _text(run.get("git_commit"))), ("device", _text(run.get("device"))),
            ("checkpoint", _text(results.get("checkpoint")))]
    rows += [(f"list, {split}", str(name)) for split, name in (results.get("lists") or {}).items()]
    rows += [("SHA-256 of the list", _text(results.get("list_sha256"))),
             ("SHA-256 of the episodes", _text(results.get("episodes_sha256")))]
    return rows + [(str(name), str(version)) for name, version in (run.get("versions") or {}).items()]


def settings(config: Mapping[str, Any], sources: Mapping[str, str], prefix: str = "") -> list[tuple[str, str, str]]:
    """The resolved configuration as (dotted key, value as JSON, layer that set it)."""
    rows = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += settings(value, sources, f"{name}.")
        else:
            rows.append((name, json.dumps(value, ensure_ascii=False, default=str), str(sources.get(name, ""))))
    return rows

