"""Compare two tests of the same episodes, query by query."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from runs.evaluation.predictions import FILE, read_predictions, scores_of, scorings_of
from utils.errors import ResultsError
from utils.metrics import exact_mcnemar, mean_interval
from utils.pretraining import kind_words, pretraining_words, text_words

MOVED = 5  # classes that are listed


@dataclass(frozen=True, slots=True)
class Comparison:
    """Says how test B differs from test A on the same queries.

    Args:
        scoring: how A and B were scored.
        accuracy_a, accuracy_b: 0..1.
        difference, interval: mean of B - A over episodes, half width of its 95 % interval.
        only_a, only_b: number of queries that only one of the two gets right. p: of McNemar's exact test.
        rests_on_a, rests_on_b: what A and B rest on, in words (kind, texts, pretraining); "" where they do not say so.
        moved: accuracies A and B of the classes that changed most, and their change, largest first.
    """

    scoring: tuple[str, str]
    episodes: int
    queries: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval: float
    only_a: int
    only_b: int
    p: float
    moved: pd.DataFrame
    rests_on_a: str
    rests_on_b: str


def _rests_on(origin: dict[str, str]) -> str:
    """Say in words what a test says of its method; "" for one of an earlier version."""
    if "transductive" not in origin:
        return ""
    texts = None if origin["texts"] == "None" else origin["texts"]
    return "; ".join((kind_words(origin["transductive"] == "True"), text_words(texts),
                      pretraining_words(origin["pretraining"], origin["data_set"])))


def _correct(table: pd.DataFrame, scoring: str, path: Path) -> np.ndarray:
    scores = scores_of(table, scoring)
    if scores is None:
        raise ResultsError(f"{path}: expected scores of {scoring!r}, found {', '.join(scorings_of(table))}")
    best = scores.argmax(axis=1)
    classes = np.stack(table["classes"].to_list())
    right = classes[np.arange(len(best)), best] == table["true_class"].to_numpy()
    return np.asarray(right & np.isfinite(scores).all(axis=1))


def _load(run: Path) -> tuple[Path, pd.DataFrame, dict[str, str]]:
    path = run / FILE if run.is_dir() else run
    return path, *read_predictions(path)


def _paired(a: pd.DataFrame, b: pd.DataFrame, path_a: Path, path_b: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables with the same query in each row, whatever their order. Raises ResultsError."""
    who = ["episode", "query"]
    a, b = a.sort_values(who, ignore_index=True), b.sort_values(who, ignore_index=True)
    names = [*who, "query_video", "true_class"]
    if len(a) != len(b) or not a[names].equals(b[names]):
        both = a[names].merge(b[names], "outer", names, indicator="in")
        one = both[both["in"] != "both"].iloc[0]
        raise ResultsError(f"expected two tests of the same queries, found {len(a):,} in {path_a} and {len(b):,} in "
                           f"{path_b}; only one has query {one['query']} ({one['query_video']}) of episode "
                           f"{one['episode']}")
    return a, b


def compare(run_a: Path, run_b: Path, scoring: str | None = None, scoring_b: str | None = None) -> Comparison:
    """Compare two runs, given by their directories or their predictions.parquet.

    Args:
        scoring: None takes the scoring that each run was configured for. scoring_b: of run B, where it is another one.

    Raises:
        ResultsError: predictions that are missing or damaged, a scoring that a run has not, or other episodes.
    """
    (path_a, a, origin_a), (path_b, b, origin_b) = _load(run_a), _load(run_b)
    for name, what in (("list_sha256", "test lists"), ("episodes_sha256", "episodes"),
                       ("replaced", "clips in place of unreadable ones (bad_videos.csv)")):
        if origin_a.get(name) != origin_b.get(name):
            raise ResultsError(f"expected two tests of the same {what}, found {origin_a.get(name, 'none')} in "
                               f"{path_a} and {origin_b.get(name, 'none')} in {path_b}; the same list, way, shot, "
                               "queries, number of episodes and TEST.EPISODE_SEED give the same episodes")
    a, b = _paired(a, b, path_a, path_b)
    names = scoring or origin_a["scoring"], scoring_b or scoring or origin_b["scoring"]
    right_a, right_b = _correct(a, names[0], path_a), _correct(b, names[1], path_b)
    change = pd.Series(right_b.astype(float) - right_a).groupby(a["episode"].to_numpy()).mean()
    difference, interval = mean_interval(change.tolist())
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    by_class = pd.DataFrame({"class": a["true_class"], "A": right_a, "B": right_b}).groupby("class").mean()
    by_class["change"] = by_class["B"] - by_class["A"]
    moved = by_class.sort_values("change", key=abs, ascending=False, kind="stable").head(MOVED)
    return Comparison(names, len(change), len(a), float(right_a.mean()), float(right_b.mean()), difference, interval,
                      only_a, only_b, exact_mcnemar(only_a, only_b), moved, _rests_on(origin_a), _rests_on(origin_b))


def _rest_in_words(comparison: Comparison) -> list[str]:
    """Return what A and B rest on, once where it is the same, and a caution where that alone may explain it."""
    a, b = (text or "not recorded" for text in (comparison.rests_on_a, comparison.rests_on_b))
    if a == b:
        return [f"Both: {a}"]
    known = bool(comparison.rests_on_a and comparison.rests_on_b)
    caution = ["One of the two is transductive: the difference is not one between methods of the same kind."]
    return [f"A is {a}", f"B is {b}", *(caution if known and ("transductive" in a) != ("transductive" in b) else [])]


def in_words(comparison: Comparison, run_a: Path, run_b: Path) -> str:
    """Return a comparison as text for the screen."""
    sure = "differ" if comparison.p < 0.05 else "do not differ"
    lines = [
        f"A: {run_a} ({comparison.scoring[0]}) {comparison.accuracy_a:.2%}",
        f"B: {run_b} ({comparison.scoring[1]}) {comparison.accuracy_b:.2%}",
        f"B - A: {100 * comparison.difference:+.2f} points +- {100 * comparison.interval:.2f} (95 % interval over "
        f"{comparison.episodes:,} paired episodes, {comparison.queries:,} queries)",
        f"McNemar's exact test: only A right {comparison.only_a:,}, only B right {comparison.only_b:,}, "
        f"p = {comparison.p:.3g}: the two {sure} at the 5 % level, taking queries as independent",
        *_rest_in_words(comparison),
        "Classes that moved most (A, B, change in points):",
    ]
    if not comparison.moved["change"].any():
        lines[-1] = "No class moved."
    lines += [f"  {name}: {row['A']:.1%}, {row['B']:.1%}, {100 * row['change']:+.1f}"
              for name, row in comparison.moved.iterrows() if row["change"]]
    return "\n".join(lines) + "\n"
