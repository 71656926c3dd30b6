"""The final test: one checkpoint, the fixed episodes of the test list, results.json."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.builder import SplitData, build_loader, test_episodes_hash
from runs import results
from runs.evaluate import evaluate
from utils import checkpoint
from utils.config.schema import Config

_LOGGER = logging.getLogger(__name__)
UNKNOWN = "not recorded in the checkpoint"


def origin(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself: iteration, list it was selected on, its validation accuracy."""
    resume = state.get("resume") or {}
    return {
        "iteration": resume.get("iteration", UNKNOWN), "selected_on": resume.get("selected_on", UNKNOWN),
        "selection_accuracy": resume.get("best", UNKNOWN),
    }


def meaning(cfg: Config, split: SplitData) -> dict[str, Any]:
    """What must stand beside every number: protocol, episode, lists, hashes."""
    train = cfg.TRAIN
    scoring = "text only" if train.EVAL_TEXT else "fused with text" if train.COMBINE else "prototypes"
    return {
        "protocol": cfg.PROTOCOL, "scoring": scoring, "split": "test", "way": split.sampler.way,
        "shot": split.sampler.shot, "query": split.sampler.query,
        "frames": cfg.DATA.NUM_INPUT_FRAMES, "seed": cfg.RANDOM_SEED, "backbone": cfg.VIDEO.HEAD.BACKBONE_NAME,
        "list": str(split.list_path), "list_sha256": split.list_hash, "episodes_sha256": test_episodes_hash(split),
    }


def test_checkpoint(cfg: Config, model: nn.Module, path: Path, split: SplitData, device: torch.device,
                    output_dir: Path) -> dict[str, Any]:
    """Load a checkpoint strictly, score the test episodes, write results.json; returns its content."""
    state = checkpoint.load_weights(model, path)
    found = origin(state)
    trained_with = json.loads(state["cfg"]) if isinstance(state.get("cfg"), str) else {}
    weights = trained_with.get("VIDEO", {}).get("HEAD", {}).get("BACKBONE_WEIGHTS")
    if weights and weights != cfg.VIDEO.HEAD.BACKBONE_WEIGHTS:
        _LOGGER.warning("%s was trained with the text tower of BACKBONE_WEIGHTS %s; this test uses %s", path, weights,
                        cfg.VIDEO.HEAD.BACKBONE_WEIGHTS)
    loader = build_loader(cfg, split)
    evaluation = evaluate(model, loader, "test", device=device, total=len(loader), title="test")
    summary = results.summarise(evaluation, split.class_names, {
        **meaning(cfg, split), "checkpoint": str(path), **found,
    })
    results.write_bad_videos(output_dir / "bad_videos.csv", evaluation.bad_videos)
    results.write_json(output_dir / "results.json", summary)
    return summary


test_checkpoint.__test__ = False  # not a test case
