"""Test one checkpoint on the fixed test episodes; write results.json, predictions.parquet and the report."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from models.builder import FewShotModel
from models.heads.base import Head
from models.registries import HEADS
from runs.evaluation.evaluate import Evaluation, Evaluator
from runs.evaluation.explain import report
from runs.evaluation.identity import data_set_name, list_name
from runs.evaluation.predictions import FILE, write_predictions
from runs.evaluation.summary import confusion_of, summarise, write_confusion
from runs.reporting.run_record import write_bad_videos
from utils import checkpoint
from utils.config.effects import settings
from utils.config.fields import PLACE, SPEED, TRAINING
from utils.config.options import option_keys
from utils.config.schema import Config
from utils.config.show import to_dict
from utils.json_files import read_json, write_json

_LOGGER = logging.getLogger(__name__)
UNKNOWN = "not recorded in the checkpoint"
NOTHING = "nothing"  # what the weights of a tower as published, or random, were selected on


def origin(state: dict[str, Any], head: Head) -> dict[str, Any]:
    """Return what a checkpoint says of itself: iteration, list it was selected on, validation accuracy, seed."""
    as_published = not head.trains and not head.pretraining.startswith("not known")
    resume = state.get("resume") or {}
    return {
        "iteration": resume.get("iteration", UNKNOWN),
        "selected_on": resume.get("selected_on", NOTHING if as_published else UNKNOWN),
        "selection_accuracy": resume.get("best", UNKNOWN), "seed": resume.get("seed", UNKNOWN),
    }


def meaning(cfg: Config, head: Head, evaluator: Evaluator, state: dict[str, Any]) -> dict[str, Any]:
    """Return what must stand beside every number: method, protocol, episode, lists, hashes."""
    split = evaluator.split
    lists = dict((state.get("resume") or {}).get("lists", {}))
    lists[split.name] = list_name(split.name, split.list_hash)
    return {
        "method": head.title, "backbone": cfg.VIDEO.HEAD.BACKBONE_NAME, "protocol": cfg.PROTOCOL,
        "data_set": data_set_name(cfg), "split": split.name, "way": split.sampler.way, "shot": split.sampler.shot,
        "query": split.sampler.query, "frames": cfg.DATA.NUM_INPUT_FRAMES, "temporal_draws": split.temporal_draws,
        "episode_seed": cfg.TEST.EPISODE_SEED, "decoder": split.dataset.videos.decoder,
        "frame_cache": split.pixels.get("frame_cache"),
        "transductive": head.transductive, "texts": head.texts, "pretraining": _pretraining(cfg, head, state),
        "list": str(split.list_path), "lists": lists, "list_id": lists[split.name],
        "list_sha256": split.list_hash, "episodes_sha256": evaluator.episodes_hash,
    }


def _trained_with(state: dict[str, Any]) -> str | None:
    """Return the BACKBONE_WEIGHTS that the training of a checkpoint began from, where it says so."""
    cfg = json.loads(state["cfg"]) if isinstance(state.get("cfg"), str) else {}
    return cfg.get("VIDEO", {}).get("HEAD", {}).get("BACKBONE_WEIGHTS")


def _pretraining(cfg: Config, head: Head, state: dict[str, Any]) -> str:
    """Say what the tower was trained on before the training of this checkpoint: a test may build it from others."""
    began = _trained_with(state)
    if began and cfg.VIDEO.HEAD.PRETRAINING is None and began != cfg.VIDEO.HEAD.BACKBONE_WEIGHTS:
        return f"not known (training began from {began})"
    return head.pretraining


def warn_of_other_text(state: dict[str, Any], cfg: Config, path: Path) -> None:
    """Warn if a checkpoint, which holds no text tower, was trained with another one than the test uses."""
    weights = _trained_with(state)
    if weights and weights != cfg.VIDEO.HEAD.BACKBONE_WEIGHTS:
        _LOGGER.warning("%s was trained with the text tower of BACKBONE_WEIGHTS %s; this test uses %s", path, weights,
                        cfg.VIDEO.HEAD.BACKBONE_WEIGHTS)


def identity_of_test(cfg: Config, evaluator: Evaluator, path: Path) -> str:
    """Return 16 hex digits of all that a test's numbers depend on, but for the content of the checkpoint.

    Every setting counts, but for those whose effect a checkpoint holds (TRAINING), and SPEED and PLACE.
    """
    checkpoint_path, run = path.absolute(), Path(cfg.OUTPUT_DIR).absolute()
    more = option_keys(HEADS[cfg.VIDEO.HEAD.NAME].Options)
    depends_on = settings(to_dict(cfg), TRAINING, SPEED, PLACE, more=more) | {
        # These two are paths: what they lead to counts instead, and a checkpoint's name within its run.
        "TEST.CHECKPOINT_FILE_PATH": str(checkpoint_path.relative_to(run) if checkpoint_path.is_relative_to(run)
                                         else checkpoint_path),
        "DATA.FRAME_CACHE": evaluator.split.pixels.get("frame_cache"),
    }
    everything = [depends_on, evaluator.episodes_hash, evaluator.split.list_hash]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def results_dir(output_dir: Path, own_id: str, name: str) -> Path:
    """Return where a test without training before it writes: OUTPUT_DIR, or, where that holds the results of another
    test, a directory of its own in OUTPUT_DIR/tests. Nothing is overwritten but the same test."""
    earlier = read_json(output_dir / "results.json")
    if earlier is None or earlier.get("test_id") == own_id:
        return output_dir
    return output_dir / "tests" / f"{name}_{own_id[:8]}"


def replaced_hash(evaluation: Evaluation) -> str:
    """Return the SHA-256 (hex) of which clips stand in for which, empty when none does: two tests that differ here saw
    other clips in the same episodes."""
    lines = [f"{bad.episode}:{bad.path}:{bad.replaced_by}" for bad in evaluation.bad_videos]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def score_checkpoint(cfg: Config, model: FewShotModel, path: Path, evaluator: Evaluator, output_dir: Path,
                     entries: dict[str, Any], calibration: Evaluator | None = None) -> dict[str, Any]:
    """Load a checkpoint strictly, score the test episodes, write the results; returns results.json's content.
    Ranks other than 0 get the weights, score their share of the episodes, and return nothing.

    Args:
        entries: more of results.json, such as trained_to (iterations of the training that this test ends).
        calibration: the validation episodes of a head that calibrates.
    """
    ranks, split = evaluator.ranks, evaluator.split
    state = checkpoint.load_weights(model, path) if ranks.main else {}
    if ranks.main:
        warn_of_other_text(state, cfg, path)
    ranks.copy_weights(model)
    if calibration is not None:
        entries = {**entries, "calibration": calibration.calibrate(model)}
    directory = Path(cfg.TEST.FEATURE_STORE_DIR) if cfg.TEST.FEATURE_STORE_DIR else None
    evaluation = evaluator.run(model, "test", directory)
    if not ranks.main:
        return {}
    if evaluation.encoded is not None:
        _LOGGER.info("%d videos decoded and encoded for %d episodes, which show %d clips", evaluation.encoded,
                     len(evaluator.specs), evaluation.query_EM.size + evaluation.support_EN.size)
    summary = summarise(evaluation, split, {
        **meaning(cfg, model.head, evaluator, state), "checkpoint": str(path), **origin(state, model.head), **entries,
        "feature_store": cfg.TEST.FEATURE_STORE, "test_id": identity_of_test(cfg, evaluator, path)})
    write_bad_videos(output_dir / "bad_videos.csv", evaluation.bad_videos)
    write_confusion(output_dir / "confusion.csv", confusion_of(evaluation, split), split.class_names)
    write_predictions(output_dir / FILE, evaluation, split, {
        **{key: str(summary[key]) for key in (
            "episodes_sha256", "list_sha256", "scoring", "data_set", "transductive", "texts", "pretraining")},
        "replaced": replaced_hash(evaluation)})
    write_json(output_dir / "results.json", summary)
    report(model, evaluator, evaluation, summary, output_dir)
    return summary
