"""Sum up an evaluation: the content of results.json, the confusions, and the result in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasets.builder import SplitData
from runs.evaluation.evaluate import Evaluation
from utils.command import csv_cell, printable
from utils.files import whole_file
from utils.metrics import calibration_error, confusion, mean_interval, shared_videos_interval, wilson

CAUTIONS = {
    "bad_videos": "test clips could not be read and were replaced by others (bad_videos.csv): compare with care",
    "shared_videos": "videos stand in more than one of the lists of this run: the test is not of unseen videos",
    "nonfinite_queries": "queries have scores that are no numbers and count as wrong",
}


def _scoring(evaluation: Evaluation, name: str, class_V: np.ndarray) -> dict[str, Any]:
    """Return a scoring's accuracy in 0..1, its intervals over episodes (half width) and videos, its calibration."""
    correct, scoring = evaluation.correct(name), evaluation.scorings[name]
    mean, half = mean_interval(correct.mean(axis=1).tolist())
    low, high = shared_videos_interval(correct, evaluation.query_EM, evaluation.support_EN, class_V)
    return {"accuracy": mean, "interval95": half, "interval95_videos": [low, high],
            "ece": calibration_error(evaluation.probabilities(name), correct), **scoring.extra,
            "title": scoring.title, "kind": scoring.kind}


def per_class(evaluation: Evaluation, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the accuracy of each class that has queries, with its Wilson interval."""
    classes, true = {}, evaluation.true_EM.ravel()
    totals = np.bincount(true, minlength=len(names)).tolist()
    rights = np.bincount(true, evaluation.correct().ravel(), len(names)).astype(int).tolist()
    for name, right, total in zip(names, rights, totals, strict=True):
        if total:
            classes[name] = {"accuracy": right / total, "correct": right, "queries": total,
                             "wilson95": list(wilson(right, total))}
    return classes


def top_confusions(evaluation: Evaluation, counts_GG: np.ndarray, names: Sequence[str], most: int = 10) -> list[dict]:
    """Return the pairs confused most, by the share of a class's queries whose episode held the other class."""
    met = np.zeros_like(counts_GG)
    true = np.repeat(evaluation.true_EM[:, :, None], evaluation.classes_EK.shape[1], axis=2)
    np.add.at(met, (true, np.broadcast_to(evaluation.classes_EK[:, None], true.shape)), 1)
    rates = np.where(met > 0, counts_GG / np.maximum(met, 1), 0.0)
    np.fill_diagonal(rates, 0.0)
    order = np.lexsort((-counts_GG.ravel(), -rates.ravel()))[:most]
    pairs = [divmod(int(flat), len(names)) for flat in order]
    return [{"true": names[a], "predicted": names[b], "count": int(counts_GG[a, b]), "rate": float(rates[a, b])}
            for a, b in pairs if counts_GG[a, b] and a != b]


def summarise(evaluation: Evaluation, split: SplitData, meaning: dict[str, Any]) -> dict[str, Any]:
    """Return the content of results.json: accuracies in 0..1 with their 95 % intervals, by scoring and by class.

    The first figures are those of the scoring that the configuration asks for, followed by `meaning`: what they are of.
    """
    names = list(split.class_names)
    class_V = np.array([record.class_index for record in split.records])
    scorings = {name: _scoring(evaluation, name, class_V) for name in evaluation.scores}
    counts = confusion_of(evaluation, split)[:, :-1]
    return {
        **{key: scorings[evaluation.scoring][key] for key in ("accuracy", "interval95", "interval95_videos")},
        "episodes": len(evaluation.labels_EM), "scoring": evaluation.scoring, **meaning, "scorings": scorings,
        "bad_videos": len(evaluation.bad_videos), "nonfinite_queries": evaluation.nonfinite,
        "top_confusions": top_confusions(evaluation, counts, names),
        "per_class": per_class(evaluation, names),
    }


def confusion_of(evaluation: Evaluation, split: SplitData) -> np.ndarray:
    """Count how often class row was taken for class column, last for none (no finite score). int64 [G, G + 1]"""
    classes = len(split.class_names)
    return confusion(evaluation.true_EM, evaluation.predicted(), classes + 1)[:classes]  # NO_CLASS: the last column


def write_confusion(path: Path, counts_GG: np.ndarray, names: Sequence[str]) -> None:
    """Write confusion.csv: rows are true classes, columns predicted ones; a last one where scores were no numbers."""
    names = [csv_cell(name) for name in names]
    columns = [*names, "no finite score"]
    table = pd.DataFrame(counts_GG, index=pd.Index(names, name="true \\ predicted"), columns=columns)
    table = table if counts_GG[:, -1].any() else table.iloc[:, :-1]
    with whole_file(path) as part:
        table.to_csv(part)


def _origin(results: dict[str, Any]) -> str:
    """Say where the checkpoint comes from, as far as it says."""
    if results["selected_on"] == "nothing":
        return "nothing was trained or selected"
    if not isinstance(results["iteration"], int):
        return f"checkpoint {results['checkpoint']} (it does not say how it was selected)"
    return f"checkpoint of iteration {results['iteration']} selected on {results['selected_on']}"


def in_words(results: dict[str, Any]) -> str:
    """Return the result as the last lines of the screen."""
    low = min(results["per_class"].items(), key=lambda item: item[1]["accuracy"])
    high = max(results["per_class"].items(), key=lambda item: item[1]["accuracy"])
    mark = " (selected on test)" if results["selected_on"] == "test" else ""
    scorings = ", ".join(f"{row['title']} {row['accuracy']:.2%} +- {row['interval95']:.2%}"
                         for row in results["scorings"].values())
    first, last = results["interval95_videos"]
    return (
        f"Test accuracy {results['accuracy']:.2%} +- {results['interval95']:.2%}{mark} "
        f"(95 % interval over {results['episodes']:,} episodes; {first:.2%} to {last:.2%} as episodes share videos), "
        f"{results['way']}-way {results['shot']}-shot, {results['query']} query a class, chance "
        f"{1 / results['way']:.0%}.\n"
        f"Scored by {results['scorings'][results['scoring']]['title']}; all scorings: {scorings}.\n"
        f"Protocol {results['protocol']}; {_origin(results)}; test list {results['lists']['test']}, "
        f"episodes {results['episodes_sha256'][:12]}.\n"
        f"Best class: {printable(high[0], '')} ({high[1]['accuracy']:.1%}); worst: {printable(low[0], '')} "
        f"({low[1]['accuracy']:.1%})."
        + "".join(f"\n{results[key]:,} {text}." for key, text in CAUTIONS.items() if results.get(key))
    )
