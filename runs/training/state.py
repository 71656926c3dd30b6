"""Pack a training's state into a checkpoint and unpack it: everything that an exact restart needs."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.builder import SplitData
from models.builder import FewShotModel
from models.registries import HEADS
from runs.evaluation.identity import list_name
from runs.training.loop import Progress
from utils import checkpoint
from utils.config.effects import may_change, settings
from utils.config.fields import PLACE, SCORING, SPEED
from utils.config.options import option_keys
from utils.config.schema import Config
from utils.config.show import to_dict
from utils.distributed import ALONE, Ranks
from utils.errors import CheckpointError

_LOGGER = logging.getLogger(__name__)


def training_differences(state: dict[str, Any], cfg: Config) -> list[str]:
    """Name the settings in which a checkpoint's run differs from this one, beyond those that may change.

    What a validation measures may change only when no validation is to come: for the final test.
    """
    saved = state.get("cfg")  # a file of other code may hold something else
    free = (SPEED, PLACE, SCORING) if training_finished(state, cfg) else (SPEED, PLACE)
    more = option_keys(HEADS[cfg.VIDEO.HEAD.NAME].Options)
    then = settings(json.loads(saved) if isinstance(saved, str) else {})
    now = settings(to_dict(cfg), *free, more=more)
    return [f"{key}: {then[key]!r} there, {value!r} here" for key, value in now.items()
            if key in then and then[key] != value and not may_change(key, more)]


def training_finished(state: dict[str, Any], cfg: Config) -> bool:
    """Return whether a state is that of a training that is done and validated."""
    resume = state.get("resume", {"iteration": 0})
    return resume["iteration"] >= cfg.TRAIN.NUM_TRAIN_TASKS and _validated(resume) == resume["iteration"]


def _validated(resume: dict[str, Any]) -> int:
    """Return the iteration of the last validation; a file that does not give it was saved after one."""
    return resume.get("validated", resume["iteration"])


@dataclass(frozen=True, slots=True)
class TrainingParts:
    """Holds what a training state is made of, beside its progress.

    Args:
        train_split, selection_split: the lists that are trained on, and that the checkpoint is selected on.
    """

    cfg: Config
    model: FewShotModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    train_split: SplitData
    selection_split: SplitData
    ranks: Ranks = ALONE


def pack(parts: TrainingParts, progress: Progress) -> dict[str, Any]:
    """Return everything a restart needs, in the published layout. An exchange: all ranks call it."""
    model, ranks = parts.model, parts.ranks
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    if ranks.world > 1:
        gradients = {name: gradient.cpu() for name, gradient in gradients.items()}
    of_ranks = ranks.gather(gradients, everywhere=False)
    return {
        "epoch": progress.epoch, "model_state": model.state_dict(), "optimizer_state": parts.optimizer.state_dict(),
        "cfg": json.dumps(to_dict(parts.cfg)),
        "resume": {
            "iteration": progress.iteration, "best": progress.best, "best_iteration": progress.best_iteration,
            "skipped": progress.skipped, "validated": progress.validated, "window": progress.window,
            "episodes": progress.episodes, "rank_gradients": of_ranks[1:] if any(of_ranks) else [],
            "selected_on": parts.selection_split.name, "gradients": of_ranks[0], "seed": parts.cfg.RANDOM_SEED,
            "scaler": parts.scaler.state_dict(),
            "lists": {split.name: list_name(split.name, split.list_hash)
                      for split in (parts.train_split, parts.selection_split)},
        },
    }


def unpack(state: dict[str, Any], path: Path, parts: TrainingParts) -> Progress:
    """Fit a state to model, optimizer and scaler, and return its progress."""
    checkpoint.load_model_state(parts.model, state["model_state"], path)
    checkpoint.load_optimizer_state(parts.optimizer, state["optimizer_state"], path)
    resume = state["resume"]
    if parts.scaler.is_enabled() and resume.get("scaler"):
        parts.scaler.load_state_dict(resume["scaler"])
    mean = json.loads(state["cfg"])["TRAIN"].get("RANK_GRADIENTS", "mean") == "mean"
    checkpoint.load_gradients(parts.model, _own_gradients(resume, parts.ranks, mean), path)
    return Progress(resume["iteration"], resume["best"], resume["best_iteration"], resume["skipped"], state["epoch"],
                    _validated(resume), dict(resume.get("window", {})),
                    episodes=resume.get("episodes", resume["iteration"]))


def _own_gradients(resume: Mapping[str, Any], ranks: Ranks, mean: bool) -> dict[str, Tensor]:
    """Return the accumulated gradients for this rank.

    If the number of ranks changed, rank 0 takes the sum of all (rescaled under RANK_GRADIENTS mean), and the others
    start from zero.
    """
    of_ranks = [resume["gradients"], *resume.get("rank_gradients", [])]
    if len(of_ranks) == ranks.world:
        return of_ranks[ranks.rank]
    if not ranks.main:
        return {}
    scale = ranks.world / len(of_ranks) if mean else 1.0
    together: dict[str, Tensor] = {}
    for gradients in of_ranks:
        for name, gradient in gradients.items():
            together[name] = together.get(name, 0) + gradient * scale
    return together


def _iteration(path: Path) -> int | None:
    """Return the iteration of a checkpoint of ours; None where it is missing or cannot be read."""
    if not path.is_file():
        return None
    try:
        return checkpoint.read(path).get("resume", {}).get("iteration")
    except CheckpointError as error:
        _LOGGER.warning("%s", error)
        return None


def keep_best(store: checkpoint.CheckpointStore, iteration: int) -> bool:
    """Restore checkpoint_best.pyth from the numbered checkpoint of `iteration` if it is lost or of another one; return
    whether it is that of `iteration` now."""
    if _iteration(store.best) == iteration:
        return True
    source = next((path for path in store.numbered() if _iteration(path) == iteration), None)
    if source is None:
        return False
    checkpoint.atomic_save(checkpoint.read(source), store.best)
    _LOGGER.warning("%s was missing or not that of the best iteration, %d; restored from %s", store.best, iteration,
                    source.name)
    return True


def find_best(store: checkpoint.CheckpointStore) -> None:
    """Restore a run's best checkpoint before a test if it is lost, or damaged where other states are there. Raises
    CheckpointError that says what to do."""
    if store.best.is_file() and (not store.states() or _iteration(store.best) is not None):
        return
    for _, state in store.readable():
        if "resume" in state and keep_best(store, state["resume"]["best_iteration"]):
            return
        break
    raise CheckpointError(
        f"{store.best}: no such checkpoint" + (
            ", and the numbered checkpoint it was a copy of is gone, too: TRAIN.ENABLE true makes the last state the "
            "best, or name a file in TEST.CHECKPOINT_FILE_PATH" if store.states() else
            ": nothing was trained in this OUTPUT_DIR; name a file in TEST.CHECKPOINT_FILE_PATH"))
