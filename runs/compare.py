"""Two tests of the same episodes, query by query: python runs/compare.py RUN_A RUN_B"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from runs.evaluation.predictions import FILE, read_predictions  # noqa: E402
from utils.errors import FewShotError, ResultsError, described  # noqa: E402
from utils.metrics import exact_mcnemar, mean_interval  # noqa: E402

SCORINGS = ("prototypes", "fused", "text")
MOVED = 5  # classes listed


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A on the same queries.

    Args:
        accuracy_a, accuracy_b: 0..1.
        difference, interval: mean of B - A over episodes, half width of its 95 % interval.
        only_a, only_b: queries that only one gets right. p: McNemar's exact test.
        moved: per class accuracy of A and B, and change, largest first.
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


def _correct(table: pd.DataFrame, scoring: str, path: Path) -> np.ndarray:
    column = f"logits_{scoring}"
    if column not in table:
        known = ", ".join(name.removeprefix("logits_") for name in table if name.startswith("logits_"))
        raise ResultsError(f"{path}: expected scores of {scoring!r}, found {known}")
    best = np.stack(table[column].to_list()).argmax(axis=1)
    classes = np.stack(table["classes"].to_list())
    return classes[np.arange(len(best)), best] == table["true_class"].to_numpy()


def _load(run: Path) -> tuple[Path, pd.DataFrame, dict[str, str]]:
    path = run / FILE if run.is_dir() else run
    return path, *read_predictions(path)


def compare(run_a: Path, run_b: Path, scoring: str | None = None) -> Comparison:
    """Compare two runs (directories, or their predictions.parquet); scoring None: the one each was configured for.

    Raises ResultsError: missing or damaged predictions, or other episodes.
    """
    (path_a, a, facts_a), (path_b, b, facts_b) = _load(run_a), _load(run_b)
    for name, what in (("list_sha256", "test lists"), ("episodes_sha256", "episodes"),
                       ("replaced", "clips in place of unreadable ones (bad_videos.csv)")):
        if facts_a.get(name) != facts_b.get(name):
            raise ResultsError(f"expected two tests of the same {what}, found {facts_a.get(name, 'none')} in "
                               f"{path_a} and {facts_b.get(name, 'none')} in {path_b}; the same list, way, shot, "
                               "queries, number of episodes and TEST.EPISODE_SEED give the same episodes")
    names = tuple(scoring or facts["scoring"] for facts in (facts_a, facts_b))
    right_a, right_b = _correct(a, names[0], path_a), _correct(b, names[1], path_b)
    change = pd.Series(right_b.astype(float) - right_a).groupby(a["episode"].to_numpy()).mean()
    difference, interval = mean_interval(change.tolist())
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    by_class = pd.DataFrame({"class": a["true_class"], "A": right_a, "B": right_b}).groupby("class").mean()
    by_class["change"] = by_class["B"] - by_class["A"]
    moved = by_class.sort_values("change", key=abs, ascending=False, kind="stable").head(MOVED)
    return Comparison(names, len(change), len(a), float(right_a.mean()), float(right_b.mean()), difference, interval,
                      only_a, only_b, exact_mcnemar(only_a, only_b), moved)


def in_words(found: Comparison, run_a: Path, run_b: Path) -> str:
    """A comparison as text."""
    sure = "differ" if found.p < 0.05 else "do not differ"
    lines = [
        f"A: {run_a} ({found.scoring[0]}) {found.accuracy_a:.2%}",
        f"B: {run_b} ({found.scoring[1]}) {found.accuracy_b:.2%}",
        f"B - A: {100 * found.difference:+.2f} points +- {100 * found.interval:.2f} (95 % interval over "
        f"{found.episodes:,} paired episodes, {found.queries:,} queries)",
        f"McNemar's exact test: only A right {found.only_a:,}, only B right {found.only_b:,}, p = {found.p:.3g}: "
        f"the two {sure} at the 5 % level, taking queries as independent",
        "Classes that moved most (A, B, change in points):",
    ]
    if not found.moved["change"].any():
        lines[-1] = "No class moved."
    lines += [f"  {name}: {row['A']:.1%}, {row['B']:.1%}, {100 * row['change']:+.1f}"
              for name, row in found.moved.iterrows() if row["change"]]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 after a message."""
    parser = argparse.ArgumentParser(
        prog="runs/compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python runs/compare.py output/A output/B --scoring fused")
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="directory of a tested run")
    parser.add_argument("run_b", type=Path, metavar="RUN_B")
    parser.add_argument("--scoring", choices=SCORINGS, help="default: what each run was configured for")
    parsed = parser.parse_args(arguments)
    try:
        found = compare(parsed.run_a, parsed.run_b, parsed.scoring)
    except FewShotError as error:
        sys.stderr.write(f"\n{described(error)}\n")
        return 1
    sys.stdout.write(in_words(found, parsed.run_a, parsed.run_b))
    return 0


if __name__ == "__main__":
    sys.exit(main())
