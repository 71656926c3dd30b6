"""A results.json as a run writes it, for the tests of what reads it, and the tables made of such files."""

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from runs.tables.formats import FORMATS
from runs.tables.table import build_table

RESULT: dict[str, Any] = {
    "method": "CLIP-FSAR", "data_set": "ssv2_full", "accuracy": 0.61, "interval95": 0.009,
    "interval95_videos": [0.58, 0.64], "scoring": "prototypes",
    "scorings": {
        "prototypes": {"accuracy": 0.61, "interval95": 0.009, "interval95_videos": [0.58, 0.64], "ece": 0.1},
        "fused": {"accuracy": 0.63, "interval95": 0.008, "interval95_videos": [0.6, 0.66], "ece": 0.1,
                  "text_weight": 0.9, "title": "fused with text"},
        "text": {"accuracy": 0.4, "interval95": 0.01, "interval95_videos": [0.3, 0.5], "ece": 0.1,
                 "title": "text only"}},
    "episodes": 10000, "protocol": "upstream", "split": "test", "way": 5, "shot": 1, "query": 1, "frames": 8,
    "temporal_draws": None, "seed": 0, "episode_seed": 0, "backbone": "RN50",
    "lists": dict.fromkeys(("train", "val", "test"), "ssv2_full@67013"), "list_id": "ssv2_full@67013",
    "list_sha256": "ab" * 32, "episodes_sha256": "cd" * 32, "checkpoint": "checkpoint_best.pyth", "iteration": 300,
    "selected_on": "val", "selection_accuracy": 0.86, "bad_videos": 0, "per_class": {},
    "transductive": False, "texts": "names", "pretraining": "CLIP, 400 M image-text pairs (OpenAI)",
}


def result(accuracy: float | None = None, **changes: Any) -> dict[str, Any]:
    """A results.json's content; `accuracy` is that of its prototypes."""
    content = copy.deepcopy(RESULT) | changes
    if accuracy is not None:
        content["accuracy"] = content["scorings"]["prototypes"]["accuracy"] = accuracy
    return content


def write_result(directory: Path, accuracy: float | None = None, config: dict | None = None, **changes: Any) -> Path:
    """A run's directory with a results.json, and a run.json where `config` is given."""
    directory.mkdir(parents=True)
    (directory / "results.json").write_text(json.dumps(result(accuracy, **changes)))
    if config is not None:
        (directory / "run.json").write_text(json.dumps({"config": config}))
    return directory


def markdown(*runs, **options) -> str:
    """The table of these runs as Markdown."""
    return FORMATS["markdown"](build_table(runs, **options))


def rows_of(text: str) -> dict[str, list[str]]:
    """Label to cells of the Markdown table; each label once."""
    lines = [[part.strip() for part in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    labels = [line[0] for line in lines]
    assert len(set(labels)) == len(labels)
    return {line[0]: line[1:] for line in lines if not line[0].startswith(":--")}


def long_form(*runs, **options) -> list[dict[str, str]]:
    """Its rows as CSV."""
    return list(csv.DictReader(io.StringIO(FORMATS["csv"](build_table(runs, **options)))))


def mark_of(cell: str) -> str:
    """The footnote mark of a cell of Markdown; empty: none."""
    found = re.search(r"<sup>(\w+)</sup>$", cell)
    return found.group(1) if found else ""
