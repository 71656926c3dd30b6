"""What a run writes about itself: run.json, results.json, bad_videos.csv, curves, and the result in words."""

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from runs.evaluate import Evaluation  # noqa: E402
from utils.config.loader import Resolved  # noqa: E402
from utils.config.show import to_dict  # noqa: E402
from utils.episode import BadVideo  # noqa: E402

PACKAGES = ("torch", "torchvision", "open_clip_torch", "decord", "numpy")
REPOSITORY = Path(__file__).resolve().parents[1]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is never half there."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


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


def summarise(evaluation: Evaluation, class_names: Iterable[str], facts: dict[str, Any]) -> dict[str, Any]:
    """results.json: accuracy in 0..1 with its 95 % interval over episodes, per class, and what the number means."""
    names = list(class_names)
    per_class = {
        names[index]: {"accuracy": right / total, "correct": right, "queries": total}
        for index, (right, total) in sorted(evaluation.class_counts.items())
    }
    return {
        "accuracy": evaluation.accuracy, "interval95": evaluation.interval,
        "episodes": len(evaluation.episode_accuracy), **facts, "bad_videos": len(evaluation.bad_videos),
        "per_class": per_class,
    }


def in_words(results: dict[str, Any]) -> str:
    """The result as the last lines of the screen."""
    low = min(results["per_class"].items(), key=lambda item: item[1]["accuracy"])
    high = max(results["per_class"].items(), key=lambda item: item[1]["accuracy"])
    mark = " (selected on test)" if results["selected_on"] == "test" else ""
    return (
        f"Test accuracy {results['accuracy']:.2%} +- {results['interval95']:.2%}{mark} "
        f"(95 % interval over {results['episodes']:,} episodes), "
        f"{results['way']}-way {results['shot']}-shot, {results['query']} query a class, chance "
        f"{1 / results['way']:.0%}.\n"
        f"Protocol {results['protocol']}; checkpoint of iteration {results['iteration']} selected on "
        f"{results['selected_on']}; test list {results['list_sha256'][:12]}, "
        f"episodes {results['episodes_sha256'][:12]}.\n"
        f"Best class: {high[0]} ({high[1]['accuracy']:.0%}); worst: {low[0]} ({low[1]['accuracy']:.0%})."
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
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    return len(rows)


def plot_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Loss, training accuracy, learning rate and validation accuracy over iterations, as a PNG."""
    train = [r for r in records if r.get("kind") == "train"]
    val = [r for r in records if r.get("kind") == "validation"]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
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
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
