"""Lead a training run from start to end: where it starts, the loop, validations, signals."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from datasets.builder import SplitData, build_loader
from datasets.device_loader import on_device
from runs.evaluation.evaluate import Evaluator
from runs.training.checkpoints import Checkpoints
from runs.training.loop import Hooks, Progress, train
from runs.training.records import Records
from runs.training.state import TrainingParts
from runs.training.step import Learner
from runs.training.validation import Validator
from utils import checkpoint, signals
from utils.episode import Episode
from utils.errors import WorkerError
from utils.schedule import Schedule

_LOGGER = logging.getLogger(__name__)


def videos_of(split: SplitData, episode: Episode) -> str:
    """Return the paths of an episode's videos, one a line, supports and queries apart."""
    if episode.spec is None:
        return "  unknown"
    parts = (("support", episode.spec.support_N), ("query", episode.spec.query_M))
    return "\n".join("\n    ".join([f"  {part}:", *(split.records[i].path for i in videos)]) for part, videos in parts)


class Trainer:
    """Runs a training that can be killed at any moment and started again.

    The state is saved before and after each validation, and when SIGINT or SIGTERM asks the run to stop; what follows
    it is a function of that state, so a restart repeats it bit for bit on the CPU.

    Args:
        parts: model, optimizer, lists. learner: makes steps of episodes. schedule: learning rates.
        store: the checkpoints of OUTPUT_DIR. evaluator: the episodes that the checkpoint is selected on.
    """

    def __init__(self, parts: TrainingParts, learner: Learner, schedule: Schedule, store: checkpoint.CheckpointStore,
                 evaluator: Evaluator):
        self.parts, self.learner, self.schedule = parts, learner, schedule
        self.checkpoints, self.interruption = Checkpoints(store, parts), signals.Interruption()
        self.validator = Validator(evaluator, self.interruption)

    def run(self) -> Progress:
        """Train to the end (or find it trained), leaving the best and the last checkpoints.

        Raises Stopped after the running iteration, with its state saved, when SIGINT or SIGTERM came.
        """
        progress = self.checkpoints.start()
        due, trained = self._validation_due(progress), progress.iteration >= self.learner.options.iterations
        if trained and not due:
            _LOGGER.info("training is complete (iteration %d)", progress.iteration)
            return progress
        if self.parts.ranks.main:
            self.checkpoints.warn_of_little_room()
        stays = partial(self._stays, iteration=progress.iteration, due=due)
        with (Records(Path(self.parts.cfg.OUTPUT_DIR), self.parts.ranks, stays) as records,
              signals.handling(signals.STOPPING, self.interruption)):
            if self.checkpoints.saved:
                records.look_for(progress.validated)
            if due:
                self.validate(progress, records)
            if not trained:
                self._train(progress, records)
            self.interruption.check()
        return progress

    def _train(self, progress: Progress, records: Records) -> None:
        ranks, left = self.parts.ranks, self.learner.options.iterations - progress.iteration
        loader = build_loader(self.parts.cfg, self.parts.train_split, start=progress.episodes, rank=ranks.rank,
                              world=ranks.world, stop=progress.episodes + left * ranks.world, shield=True)
        hooks = Hooks(validate=partial(self.validate, records=records),
                      after_pass=partial(self.stop_if_asked, records=records), record=records.write)
        try:
            train(self.learner, on_device(loader, self.learner.device), self.schedule, hooks, progress)
        except WorkerError:  # it comes between two iterations
            if ranks.world == 1:  # else the other ranks are on their way into the next one
                self._save_between(progress, records)
            raise

    def _validation_due(self, progress: Progress) -> bool:
        """Return whether a validation is next: the state is from just before one, or ends without a best."""
        ended = progress.iteration >= self.learner.options.iterations
        at_validation = progress.iteration % self.learner.options.validate_every == 0 or ended
        return (progress.validated < progress.iteration and at_validation) or (ended and not progress.best_iteration)

    @staticmethod
    def _stays(record: dict[str, Any], iteration: int, due: bool) -> bool:
        """Return whether a record was made before the state that the run goes on from."""
        again = due and record.get("kind") == "validation"
        return record.get("iteration", 0) < iteration + (not again)

    def stop_if_asked(self, progress: Progress, records: Records) -> None:
        """If a signal came, to any rank: save the state where it is, and raise Stopped."""
        ranks = self.parts.ranks
        number = int(max(row[0] for row in ranks.table([self.interruption.number or 0])))
        if not number:
            return
        self._save_between(progress, records)
        _LOGGER.info("iteration %d is saved in %s", progress.iteration, self.checkpoints.store.latest())
        ranks.barrier()  # a launcher ends the others when one has ended
        raise signals.Stopped(number)

    def validate(self, progress: Progress, records: Records) -> None:
        """Score the validation episodes, redraw the curves, keep the best weights, save the state."""
        self._save_between(progress, records)  # a run killed in a validation repeats the validation, not the training
        evaluation, is_best = self.validator.run(self.parts.model, progress)
        records.write(self.validator.record(evaluation, progress))
        records.list_bad_videos(progress, evaluation.bad_videos)
        records.draw()
        self.checkpoints.save_validated(progress, is_best)

    def _save_between(self, progress: Progress, records: Records) -> None:
        if self.checkpoints.saved != progress.iteration:
            records.list_bad_videos(progress)  # the state does not carry them
            self.checkpoints.save_between(progress)
