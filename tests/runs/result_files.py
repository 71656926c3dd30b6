"""A results.json as a run writes it, for the tests of what reads it."""

import copy
import json
from pathlib import Path
from typing import Any

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
