"""Validate: score the fixed episodes, and say whether these weights are the best so far."""

import logging
from typing import Any

from models.builder import FewShotModel
from runs.evaluation.evaluate import Evaluation, Evaluator
from runs.training.loop import Progress
from utils.signals import Interruption

_LOGGER = logging.getLogger(__name__)


class Validator:
    """Scores a model on the episodes that the checkpoint is selected on.

    Args:
        evaluator: those episodes. interruption: a signal ends a validation at once.
    """

    def __init__(self, evaluator: Evaluator, interruption: Interruption):
        self.evaluator, self._interruption = evaluator, interruption

    def run(self, model: FewShotModel, progress: Progress) -> tuple[Evaluation, bool]:
        """Return (the evaluation, whether it is the best so far), both noted in `progress`. All ranks call it."""
        split = self.evaluator.split.name
        _LOGGER.info("iteration %d: validating on %d episodes of %s", progress.iteration, len(self.evaluator.specs),
                     split)
        self.evaluator.ranks.copy_weights(model, buffers_only=True)  # each rank's batch norms saw other episodes
        with self._interruption.at_once():
            evaluation = self.evaluator.run(model, f"validate on {split}")
        progress.epoch += progress.validated != progress.iteration
        progress.validated = progress.iteration
        is_best = evaluation.accuracy > progress.best
        if is_best:
            progress.best, progress.best_iteration = evaluation.accuracy, progress.iteration
        _LOGGER.info("iteration %d: accuracy on %s %.2f %% +- %.2f %% over %d episodes%s", progress.iteration,
                     split, 100 * evaluation.accuracy, 100 * evaluation.interval, len(evaluation.episode_accuracy),
                     ", the best so far" if is_best else f" (best: {progress.best:.2%})")
        return evaluation, is_best

    def record(self, evaluation: Evaluation, progress: Progress) -> dict[str, Any]:
        """Return the record of a validation for log.jsonl."""
        return {"kind": "validation", "iteration": progress.iteration, "split": self.evaluator.split.name,
                "accuracy": evaluation.accuracy, "interval95": evaluation.interval,
                "episodes": len(evaluation.episode_accuracy), "best": progress.best}
