"""Write down what a run is (run.json), and which clips it replaced (bad_videos.csv)."""

import csv
import platform
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from utils.command import csv_cell
from utils.config.loader import Resolved
from utils.config.show import to_dict
from utils.episode import BadVideo
from utils.files import whole_file
from utils.json_files import write_json

PACKAGES = ("torch", "torchvision", "open_clip_torch", "decord", "torchcodec", "av", "numpy")
REPOSITORY = Path(__file__).resolve().parents[2]


def git_commit() -> str | None:
    """Return the commit of this checkout, with +changes when the tree differs; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, timeout=10)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=REPOSITORY, capture_output=True,
                               text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "") if head.returncode == 0 else None


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_run(output_dir: Path, resolved: Resolved, entries: dict[str, Any]) -> None:
    """Write run.json: the resolved configuration, where each key came from, commit, versions, and more entries."""
    write_json(output_dir / "run.json", {
        "command": sys.argv, "project": str(resolved.path), "protocol": resolved.config.PROTOCOL,
        "git_commit": git_commit(), "versions": versions(), **entries,
        "ignored_keys": list(resolved.ignored), "notes": list(resolved.notes),
        "config": to_dict(resolved.config), "sources": dict(resolved.sources),
    })


def write_bad_videos(path: Path, more: Iterable[BadVideo]) -> int:
    """Add replaced clips to bad_videos.csv, each once; returns how many the file lists."""
    rows: dict[tuple[str, ...], None] = {}
    header = ("path", "reason", "replaced_by", "split", "episode")
    if path.is_file():
        with path.open(newline="", encoding="utf-8", errors="backslashreplace") as file, suppress(csv.Error):
            rows = {tuple(row): None for row in list(csv.reader(file))[1:]}
    for bad in more:
        rows[tuple(map(csv_cell, (bad.path, bad.reason, bad.replaced_by, bad.split, str(bad.episode))))] = None
    if rows:
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    return len(rows)
