"""Start a training run from a checkpoint, and save its states. Only rank 0 touches files."""

import logging
from pathlib import Path
from typing import Any

from runs.training import state
from runs.training.loop import Progress
from utils import checkpoint
from utils.errors import CheckpointError

_LOGGER = logging.getLogger(__name__)


class Checkpoints:
    """Reads and writes the states of one training run.

    Args:
        store: the files in OUTPUT_DIR. parts: what a state is made of.
    """

    def __init__(self, store: checkpoint.CheckpointStore, parts: state.TrainingParts):
        self.store, self.parts, self.ranks = store, parts, parts.ranks
        self.saved = 0  # the iteration that the latest state in OUTPUT_DIR is of

    def start(self) -> Progress:
        """Load the state furthest along of this run, else CHECKPOINT_FILE_PATH; else stay at the beginning."""
        path, content, own = self.ranks.broadcast(self._read() if self.ranks.main else (None, {}, False))
        progress = Progress()
        if own:
            self.saved = content["resume"]["iteration"]
            _LOGGER.info("going on from %s (iteration %d)", path, self.saved)
        if path is not None:
            progress = self._restore(content, path) if own else self._begin(content, path)
        self.ranks.copy_weights(self.parts.model)
        return progress

    def _read(self) -> tuple[Path | None, dict[str, Any], bool]:
        """Return (file to start from, its content, whether it is a state of this run)."""
        for path, content in self.store.readable():
            if "resume" not in content:
                raise CheckpointError(f"{path}: holds no training state of this code base (a published checkpoint?): "
                                      "name it in TRAIN.CHECKPOINT_FILE_PATH and choose another OUTPUT_DIR")
            return path, content, True
        given = self.parts.cfg.TRAIN.CHECKPOINT_FILE_PATH
        return (Path(given), checkpoint.read(given), False) if given else (None, {}, False)

    def _begin(self, content: dict[str, Any], path: Path) -> Progress:
        """Start from another run's file."""
        weights_only = self.parts.cfg.TRAIN.FINE_TUNE
        if not weights_only and "resume" in content:
            return self._restore(content, path)
        checkpoint.load_model_state(self.parts.model, content["model_state"], path)
        if not weights_only:
            checkpoint.load_optimizer_state(self.parts.optimizer, content["optimizer_state"], path)
        _LOGGER.info("starting from the weights of %s", path)
        return Progress()

    def _restore(self, content: dict[str, Any], path: Path) -> Progress:
        progress = state.unpack(content, path, self.parts)
        kept = not progress.best_iteration or (
            self.ranks.main and state.keep_best(self.store, progress.best_iteration))
        if not self.ranks.broadcast(kept):
            _LOGGER.warning("%s of iteration %d is lost, and so is the numbered checkpoint it was a copy of: the next "
                            "validation decides the best anew", self.store.best, progress.best_iteration)
            progress.best, progress.best_iteration = -1.0, 0
        return progress

    def warn_of_little_room(self) -> None:
        """Warn where the disk has no room for the checkpoints to come."""
        learned = sum(p.nbytes for p in self.parts.model.parameters() if p.requires_grad)  # gradients, two moments each
        if missing := self.store.room_missing(checkpoint.state_bytes(self.parts.model.state_dict()) + 3 * learned):
            _LOGGER.warning("%s", missing)

    def save_between(self, progress: Progress) -> None:
        """Save the state in checkpoint_last.pyth. An exchange: all ranks call it."""
        content = state.pack(self.parts, progress)
        if self.ranks.main:
            self.store.save_between(content)
        self.saved = progress.iteration

    def save_validated(self, progress: Progress, is_best: bool) -> None:
        """Save the state after a validation, and keep it as the best one. An exchange: all ranks call it."""
        content = state.pack(self.parts, progress)
        if self.ranks.main:
            self.store.save(content)  # first: a best file that a kill prevents is restored from this one
            if is_best:
                checkpoint.atomic_save(content, self.store.best)
        self.saved = progress.iteration
