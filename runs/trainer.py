"""Training around the loop: resume, validation, checkpoints, records, curves."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from datasets.builder import SplitData, build_loader
from models.losses import Criterion
from runs import results, resume
from runs.evaluate import Evaluation, Evaluator
from runs.train import Hooks, LoopOptions, Progress, train
from utils import checkpoint, signals
from utils.config.schema import Config
from utils.episode import BadVideo, Episode
from utils.errors import CheckpointError
from utils.logging import RecordLog, read_records
from utils.schedule import Schedule

_LOGGER = logging.getLogger(__name__)


class Trainer:
    """A training run that can be killed at any moment and started again.

    The state is saved before and after each validation, and when SIGINT or SIGTERM asks the run to stop; what follows
    it is a function of that state, so a restart repeats it bit for bit on the CPU.
    """

    def __init__(self, *, cfg: Config, model: nn.Module, criterion: Criterion, optimizer: torch.optim.Optimizer,
                 schedule: Schedule, options: LoopOptions, store: checkpoint.CheckpointStore, output_dir: Path,
                 device: torch.device, train_split: SplitData, evaluator: Evaluator):
        self.cfg, self.model, self.criterion, self.optimizer = cfg, model, criterion, optimizer
        self.schedule, self.options, self.store, self.output_dir = schedule, options, store, output_dir
        self.device, self.train_split, self.evaluator = device, train_split, evaluator
        self.saved = 0  # the iteration that the latest state in OUTPUT_DIR is of
        self.interruption = signals.Interruption()

    def run(self) -> Progress:
        """Train to the end (or find it trained), leaving the best and the last checkpoints.

        Raises Stopped after the running iteration, with its state saved, when SIGINT or SIGTERM came.
        """
        progress, random_state = self._start()
        due = self._validation_due(progress)
        trained = progress.iteration >= self.options.iterations
        if trained and not due:
            _LOGGER.info("training is complete (iteration %d)", progress.iteration)
            return progress
        self.log_path = self.output_dir / "log.jsonl"
        self.log = RecordLog(self.log_path, lambda record: self._stays(record, progress.iteration, due))
        self.board = SummaryWriter(self.output_dir / "tensorboard", purge_step=progress.iteration + 1)
        if random_state is not None:  # before a repeated validation, whose state it becomes a part of
            checkpoint.set_random_state(random_state)
        try:
            with signals.handling(signals.STOPPING, self.interruption):
                if due:
                    self.validate(progress)
                if not trained:
                    self._train(progress)
            self.interruption.check()
        finally:
            self.log.close()
            self.board.close()
        return progress

    def _train(self, progress: Progress) -> None:
        loader = build_loader(self.cfg, self.train_split, start=progress.iteration)
        if loader.num_workers:
            loader.worker_init_fn = signals.shielded(loader.worker_init_fn)
        hooks = Hooks(validate=self.validate, stop=self.stop, record=self.record, videos=self.videos)
        train(self.model, loader, self.criterion, self.optimizer, self.schedule, self.options, hooks, progress,
              self.device)

    def _validation_due(self, progress: Progress) -> bool:
        """Whether a state was saved just before a validation, or ends without a best."""
        ended = progress.iteration >= self.options.iterations
        at_validation = progress.iteration % self.options.validate_every == 0 or ended
        return (progress.validated < progress.iteration and at_validation) or (ended and not progress.best_iteration)

    @staticmethod
    def _stays(record: dict[str, Any], iteration: int, due: bool) -> bool:
        """Whether a record was made before the state that the run goes on from."""
        again = due and record.get("kind") == "validation"
        return record.get("iteration", 0) < iteration + (not again)

    def record(self, values: dict[str, Any]) -> None:
        """One record to log.jsonl and TensorBoard."""
        self.log.write(values)
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "iteration":
                self.board.add_scalar(f"{values['kind']}/{name}", value, values["iteration"])

    def videos(self, episode: Episode) -> str:
        """Paths of an episode's videos, one a line, supports and queries apart."""
        if episode.spec is None:
            return "  unknown"
        records = self.train_split.records
        parts = (("support", episode.spec.support_N), ("query", episode.spec.query_M))
        return "\n".join("\n    ".join([f"  {part}:", *(records[i].path for i in places)]) for part, places in parts)

    def stop(self, progress: Progress) -> None:
        """If a signal came: save the state where it is, and raise Stopped."""
        if self.interruption.number is None:
            return
        self._save_between(progress)
        _LOGGER.info("iteration %d is saved in %s", progress.iteration, self.store.latest())
        self.interruption.check()

    def validate(self, progress: Progress) -> None:
        """Score the validation episodes, redraw the curves, keep the best weights, save the state."""
        self._save_between(progress)  # a run killed in a validation repeats the validation, not the training
        split, count = self.evaluator.split.name, len(self.evaluator.specs)
        _LOGGER.info("iteration %d: validating on %d episodes of %s", progress.iteration, count, split)
        with self.interruption.at_once():
            found = self.evaluator.run(self.model, f"validate on {split}")
        progress.epoch += progress.validated != progress.iteration
        progress.validated = progress.iteration
        is_best = found.accuracy > progress.best
        if is_best:
            progress.best, progress.best_iteration = found.accuracy, progress.iteration
        self._tell(found, progress, is_best)
        self._list_bad_videos([*progress.bad_videos, *found.bad_videos])
        progress.bad_videos.clear()
        results.plot_curves(read_records(self.log_path), self.output_dir / "curves.png")
        state = self.state(progress)
        self.store.save(state)  # first: a best file that a kill prevents is restored from this one
        if is_best:
            checkpoint.atomic_save(state, self.store.best)
        self.saved = progress.iteration

    def _tell(self, found: Evaluation, progress: Progress, is_best: bool) -> None:
        """What a validation found, on the screen and as a record."""
        split, episodes = self.evaluator.split.name, len(found.episode_accuracy)
        _LOGGER.info("iteration %d: accuracy on %s %.2f %% +- %.2f %% over %d episodes%s", progress.iteration,
                     split, 100 * found.accuracy, 100 * found.interval, episodes,
                     ", the best so far" if is_best else f" (best: {progress.best:.2%})")
        self.record({"kind": "validation", "iteration": progress.iteration, "split": split,
                     "accuracy": found.accuracy, "interval95": found.interval, "episodes": episodes,
                     "best": progress.best})

    def _list_bad_videos(self, bad: list[BadVideo]) -> None:
        if bad:
            listed = results.write_bad_videos(self.output_dir / "bad_videos.csv", bad)
            _LOGGER.warning("%d clips could not be read and were replaced so far: see bad_videos.csv", listed)

    def _save_between(self, progress: Progress) -> None:
        """Save the state in checkpoint_last.pyth, unless the latest state is this one."""
        if self.saved == progress.iteration:
            return
        self._list_bad_videos(progress.bad_videos)  # the state does not carry them
        progress.bad_videos.clear()
        self.store.save_between(self.state(progress))
        self.saved = progress.iteration

    def state(self, progress: Progress) -> dict[str, Any]:
        """Everything a restart needs, in the published layout."""
        return resume.pack(self.cfg, self.model, self.optimizer, progress, self.evaluator.split.name,
                           (self.train_split, self.evaluator.split))

    def _start(self) -> tuple[Progress, dict[str, Any] | None]:
        """The state furthest along of this run, else CHECKPOINT_FILE_PATH, else the beginning."""
        for path, state in self.store.readable():
            if "resume" not in state:
                raise CheckpointError(f"{path}: holds no training state of this code base (a published checkpoint?): "
                                      "name it in TRAIN.CHECKPOINT_FILE_PATH and choose another OUTPUT_DIR")
            _LOGGER.info("going on from %s (iteration %d)", path, state["resume"]["iteration"])
            self.saved = state["resume"]["iteration"]
            return self._restore(state, path)
        path = self.cfg.TRAIN.CHECKPOINT_FILE_PATH
        if not path:
            return Progress(), None
        state = checkpoint.read(path)
        if self.cfg.TRAIN.FINE_TUNE or "resume" not in state:
            checkpoint.load_model_state(self.model, state["model_state"], path)
            if not self.cfg.TRAIN.FINE_TUNE:
                checkpoint.load_optimizer_state(self.optimizer, state["optimizer_state"], path)
            _LOGGER.info("starting from the weights of %s", path)
            return Progress(), None
        return self._restore(state, Path(path))

    def _restore(self, state: dict[str, Any], path: Path) -> tuple[Progress, dict[str, Any]]:
        progress = resume.unpack(state, path, self.model, self.optimizer)
        if progress.best_iteration and not resume.keep_best(self.store, progress.best_iteration):
            _LOGGER.warning("%s of iteration %d is lost, and so is the numbered checkpoint it was a copy of: the next "
                            "validation decides the best anew", self.store.best, progress.best_iteration)
            progress.best, progress.best_iteration = -1.0, 0
        return progress, state["resume"]["random"]
