"""What a run writes about itself: run.json, results.json, bad_videos.csv, curves, and the result in words."""

import csv
import gc
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import softmax

from datasets.builder import SplitData
from runs.evaluation.evaluate import Evaluation
from utils.config.loader import Resolved
from utils.config.show import to_dict
from utils.episode import BadVideo
from utils.files import whole_file
from utils.metrics import calibration_error, confusion, mean_interval, shared_videos_interval, wilson

PACKAGES = ("torch", "torchvision", "open_clip_torch", "decord", "torchcodec", "av", "numpy")
REPOSITORY = Path(__file__).resolve().parents[2]
CAUTIONS = {
    "bad_videos": "test clips could not be read and were replaced by others (bad_videos.csv): compare with care",
    "shared_videos": "videos stand in more than one of the lists of this run: the test is not of unseen videos",
    "nonfinite_queries": "queries have scores that are no numbers and count as wrong",
}
SCORING_NAMES = {"prototypes": "prototypes", "fused": "prototypes fused with text", "text": "text only"}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is never half there."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file of a run; None where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def git_commit() -> str | None:
    """Commit of this checkout, with +changes when the tree differs; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, timeout=10)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=REPOSITORY, capture_output=True,
                               text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "") if head.returncode == 0 else None


def versions() -> dict[str, str]:
    """Python, platform and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_run(output_dir: Path, resolved: Resolved, facts: dict[str, Any]) -> None:
    """run.json: resolved configuration, where each key came from, commit, versions, hashes."""
    write_json(output_dir / "run.json", {
        "command": sys.argv, "project": str(resolved.path), "protocol": resolved.config.PROTOCOL,
        "git_commit": git_commit(), "versions": versions(), **facts,
        "ignored_keys": list(resolved.ignored), "notes": list(resolved.notes),
        "config": to_dict(resolved.config), "sources": dict(resolved.sources),
    })


def _scoring(evaluation: Evaluation, scoring: str, class_V: np.ndarray) -> dict[str, Any]:
    """Accuracy of one scoring in 0..1: half width of its interval over episodes, interval over videos, calibration."""
    correct, scores = evaluation.correct(scoring), evaluation.scores[scoring].astype(np.float64)
    mean, half = mean_interval(correct.mean(axis=1).tolist())
    low, high = shared_videos_interval(correct, evaluation.query_EM, evaluation.support_EN, class_V)
    shares = softmax(scores, axis=-1) if scoring == "prototypes" else scores / scores.sum(axis=-1, keepdims=True)
    return {"accuracy": mean, "interval95": half, "interval95_videos": [low, high],
            "ece": calibration_error(shares, correct)}


def per_class(evaluation: Evaluation, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Accuracy of each class that was asked for, with its Wilson interval."""
    found, true = {}, evaluation.true_EM.ravel()
    totals = np.bincount(true, minlength=len(names)).tolist()
    rights = np.bincount(true, evaluation.correct().ravel(), len(names)).astype(int).tolist()
    for name, right, total in zip(names, rights, totals, strict=True):
        if total:
            found[name] = {"accuracy": right / total, "correct": right, "queries": total,
                           "wilson95": list(wilson(right, total))}
    return found


def top_confusions(evaluation: Evaluation, counts_GG: np.ndarray, names: Sequence[str], most: int = 10) -> list[dict]:
    """The pairs confused most often, by the share of the queries of a class whose episode held the other class."""
    met = np.zeros_like(counts_GG)
    true = np.repeat(evaluation.true_EM[:, :, None], evaluation.classes_EK.shape[1], axis=2)
    np.add.at(met, (true, np.broadcast_to(evaluation.classes_EK[:, None], true.shape)), 1)
    rates = np.where(met > 0, counts_GG / np.maximum(met, 1), 0.0)
    np.fill_diagonal(rates, 0.0)
    order = np.lexsort((-counts_GG.ravel(), -rates.ravel()))[:most]
    pairs = [divmod(int(flat), len(names)) for flat in order]
    return [{"true": names[a], "predicted": names[b], "count": int(counts_GG[a, b]), "rate": float(rates[a, b])}
            for a, b in pairs if counts_GG[a, b] and a != b]


def summarise(evaluation: Evaluation, split: SplitData, facts: dict[str, Any]) -> dict[str, Any]:
    """results.json: accuracy in 0..1 with its 95 % intervals, every scoring, per class, and what the number means.

    The first figures are those of the scoring that the configuration asks for.
    """
    names = list(split.class_names)
    class_V = np.array([record.class_index for record in split.records])
    scorings = {name: _scoring(evaluation, name, class_V) for name in evaluation.scores}
    counts = confusion_of(evaluation, split)
    return {
        **{key: scorings[evaluation.scoring][key] for key in ("accuracy", "interval95", "interval95_videos")},
        "episodes": len(evaluation.labels_EM), "scoring": evaluation.scoring, **facts, "scorings": scorings,
        "bad_videos": len(evaluation.bad_videos), "nonfinite_queries": evaluation.nonfinite,
        "top_confusions": top_confusions(evaluation, counts, names),
        "per_class": per_class(evaluation, names),
    }


def confusion_of(evaluation: Evaluation, split: SplitData) -> np.ndarray:
    """How often class row was taken for class column. int64 [G, G]"""
    return confusion(evaluation.true_EM, evaluation.predicted(), len(split.class_names))


def write_confusion(path: Path, counts_GG: np.ndarray, names: Sequence[str]) -> None:
    """confusion.csv: rows true classes, columns predicted ones."""
    table = pd.DataFrame(counts_GG, index=pd.Index(names, name="true \\ predicted"), columns=names)
    with whole_file(path) as part:
        table.to_csv(part)


def _origin(results: dict[str, Any]) -> str:
    """Where the checkpoint comes from, as far as it says."""
    if not isinstance(results["iteration"], int):
        return f"checkpoint {results['checkpoint']} (it does not say how it was selected)"
    return f"checkpoint of iteration {results['iteration']} selected on {results['selected_on']}"


def in_words(results: dict[str, Any]) -> str:
    """The result as the last lines of the screen."""
    low = min(results["per_class"].items(), key=lambda item: item[1]["accuracy"])
    high = max(results["per_class"].items(), key=lambda item: item[1]["accuracy"])
    mark = " (selected on test)" if results["selected_on"] == "test" else ""
    scorings = ", ".join(f"{SCORING_NAMES[name]} {row['accuracy']:.2%} +- {row['interval95']:.2%}"
                         for name, row in results["scorings"].items())
    first, last = results["interval95_videos"]
    return (
        f"Test accuracy {results['accuracy']:.2%} +- {results['interval95']:.2%}{mark} "
        f"(95 % interval over {results['episodes']:,} episodes; {first:.2%} to {last:.2%} as episodes share videos), "
        f"{results['way']}-way {results['shot']}-shot, {results['query']} query a class, chance "
        f"{1 / results['way']:.0%}.\n"
        f"Scored by {SCORING_NAMES[results['scoring']]}; all scorings: {scorings}.\n"
        f"Protocol {results['protocol']}; {_origin(results)}; test list {results['lists']['test']}, "
        f"episodes {results['episodes_sha256'][:12]}.\n"
        f"Best class: {high[0]} ({high[1]['accuracy']:.0%}); worst: {low[0]} ({low[1]['accuracy']:.0%})."
        + "".join(f"\n{results[key]:,} {text}." for key, text in CAUTIONS.items() if results.get(key))
    )


def write_bad_videos(path: Path, found: Iterable[BadVideo]) -> int:
    """Add replaced clips to bad_videos.csv, each once; returns how many the file lists."""
    rows: dict[tuple[str, ...], None] = {}
    header = ("path", "reason", "replaced_by", "split", "episode")
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = {tuple(row): None for row in list(csv.reader(file))[1:]}
    for bad in found:
        rows[(bad.path, bad.reason, bad.replaced_by, bad.split, str(bad.episode))] = None
    if rows:
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    return len(rows)


def plot_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Loss, training accuracy, learning rate and validation accuracy over iterations, as a PNG."""
    # A figure is a knot of references of 4 MiB. Left to Python, dozens of them wait for a full collection, which is
    # rare beside torch's many objects. Undisturbed while it is drawn, it stays in the youngest generation, whose
    # collection costs nothing.
    gc.disable()
    try:
        _draw_curves(records, path)
    finally:
        gc.enable()
        gc.collect(0)


def _draw_curves(records: list[dict[str, Any]], path: Path) -> None:
    train = [r for r in records if r.get("kind") == "train"]
    val = [r for r in records if r.get("kind") == "validation"]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    steps = [r["iteration"] for r in train]
    axes[0].plot(steps, [r["loss"] for r in train], color="tab:blue")
    axes[0].set(title="training loss", xlabel="iteration")
    axes[1].plot(steps, [r["accuracy"] for r in train], color="tab:blue", label="training")
    if val:
        axes[1].errorbar([r["iteration"] for r in val], [r["accuracy"] for r in val],
                         yerr=[r["interval95"] for r in val], color="tab:orange", marker="o", capsize=3,
                         label=f"{val[0]['split']} (95 % interval)")
    axes[1].set(title="accuracy", xlabel="iteration", ylim=(0, 1))
    axes[1].legend(loc="lower right")
    axes[2].plot(steps, [r["lr"] for r in train], color="tab:green")
    axes[2].set(title="learning rate", xlabel="iteration")
    for axis in axes:
        axis.grid(alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
