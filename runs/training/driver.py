"""Training around the loop: resume, validation, checkpoints, records, curves."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from datasets.builder import SplitData, build_loader
from datasets.device_loader import on_device
from models.losses import Criterion
from runs.evaluation import summary as results
from runs.evaluation.evaluate import Evaluation, Evaluator
from runs.training import state as resume
from runs.training.loop import Hooks, Progress, train
from runs.training.step import Learner, LoopOptions
from utils import checkpoint, signals
from utils.config.schema import Config
from utils.distributed import ALONE, Ranks
from utils.episode import BadVideo, Episode
from utils.errors import CheckpointError, WorkerError
from utils.files import refusals
from utils.logging import RecordLog, read_records
from utils.schedule import Schedule

_LOGGER = logging.getLogger(__name__)


class Trainer:
    """A training run that can be killed at any moment and started again.

    The state is saved before and after each validation, and when SIGINT or SIGTERM asks the run to stop; what follows
    it is a function of that state, so a restart repeats it bit for bit on the CPU.

    Of several ranks only rank 0 reads and writes files; what it decides holds for all.
    """

    def __init__(self, *, cfg: Config, model: nn.Module, criterion: Criterion, optimizer: torch.optim.Optimizer,
                 schedule: Schedule, options: LoopOptions, store: checkpoint.CheckpointStore, output_dir: Path,
                 device: torch.device, train_split: SplitData, evaluator: Evaluator, ranks: Ranks = ALONE):
        self.cfg, self.model, self.criterion, self.optimizer = cfg, model, criterion, optimizer
        self.schedule, self.options, self.store, self.output_dir = schedule, options, store, output_dir
        self.device, self.train_split, self.evaluator, self.ranks = device, train_split, evaluator, ranks
        self.learner = Learner(model, criterion, optimizer, options, self.videos, device, ranks)
        self.saved = 0  # the iteration that the latest state in OUTPUT_DIR is of
        self.interruption = signals.Interruption()

    def run(self) -> Progress:
        """Train to the end (or find it trained), leaving the best and the last checkpoints.

        Raises Stopped after the running iteration, with its state saved, when SIGINT or SIGTERM came.
        """
        progress = self._start()
        due = self._validation_due(progress)
        trained = progress.iteration >= self.options.iterations
        if trained and not due:
            _LOGGER.info("training is complete (iteration %d)", progress.iteration)
            return progress
        if self.ranks.main:
            self.log_path = self.output_dir / "log.jsonl"
            self.log = RecordLog(self.log_path, lambda record: self._stays(record, progress.iteration, due))
            learned = sum(p.nbytes for p in self.model.parameters() if p.requires_grad)  # gradients, two moments each
            if missing := self.store.room_missing(checkpoint.state_bytes(self.model.state_dict()) + 3 * learned):
                _LOGGER.warning("%s", missing)
            self.board = SummaryWriter(self.output_dir / "tensorboard", purge_step=progress.iteration + 1)
        try:
            with signals.handling(signals.STOPPING, self.interruption):
                if due:
                    self.validate(progress)
                if not trained:
                    self._train(progress)
            self.interruption.check()
        finally:
            if self.ranks.main:
                self.log.close()
                with suppress(OSError):  # a full disk, which is told of elsewhere; log.jsonl has the same figures
                    self.board.close()
        return progress

    def _train(self, progress: Progress) -> None:
        ranks, left = self.ranks, self.options.iterations - progress.iteration
        loader = build_loader(self.cfg, self.train_split, start=progress.episodes, rank=ranks.rank, world=ranks.world,
                              stop=progress.episodes + left * ranks.world, shield=True)
        hooks = Hooks(validate=self.validate, stop=self.stop, record=self.record)
        try:
            train(self.learner, on_device(loader, self.device), self.schedule, hooks, progress)
        except WorkerError:  # it comes between two iterations
            if ranks.world == 1:  # else the other ranks are on their way into the next one
                self._save_between(progress)
            raise

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
        if not self.ranks.main:
            return
        self.log.write(values)
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "iteration":
                with refusals(Path(self.board.log_dir)):
                    self.board.add_scalar(f"{values['kind']}/{name}", value, values["iteration"])

    def videos(self, episode: Episode) -> str:
        """Paths of an episode's videos, one a line, supports and queries apart."""
        if episode.spec is None:
            return "  unknown"
        records = self.train_split.records
        parts = (("support", episode.spec.support_N), ("query", episode.spec.query_M))
        return "\n".join("\n    ".join([f"  {part}:", *(records[i].path for i in places)]) for part, places in parts)

    def stop(self, progress: Progress) -> None:
        """If a signal came, to any rank: save the state where it is, and raise Stopped."""
        number = int(max(row[0] for row in self.ranks.table([self.interruption.number or 0])))
        if not number:
            return
        self._save_between(progress)
        _LOGGER.info("iteration %d is saved in %s", progress.iteration, self.store.latest())
        self.ranks.barrier()  # a launcher ends the others when one has ended
        raise signals.Stopped(number)

    def validate(self, progress: Progress) -> None:
        """Score the validation episodes, redraw the curves, keep the best weights, save the state."""
        self._save_between(progress)  # a run killed in a validation repeats the validation, not the training
        split, count = self.evaluator.split.name, len(self.evaluator.specs)
        _LOGGER.info("iteration %d: validating on %d episodes of %s", progress.iteration, count, split)
        self.ranks.copy_weights(self.model, buffers_only=True)  # batch norms have seen other episodes on each rank
        with self.interruption.at_once():
            found = self.evaluator.run(self.model, f"validate on {split}")
        progress.epoch += progress.validated != progress.iteration
        progress.validated = progress.iteration
        is_best = found.accuracy > progress.best
        if is_best:
            progress.best, progress.best_iteration = found.accuracy, progress.iteration
        self._tell(found, progress, is_best)
        self._list_bad_videos(progress, found.bad_videos)
        state = self.state(progress)
        if self.ranks.main:
            results.plot_curves(read_records(self.log_path), self.output_dir / "curves.png")
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

    def _list_bad_videos(self, progress: Progress, more: Sequence[BadVideo] = ()) -> None:
        """Replaced clips of all ranks since the last time, in the order of their episodes, then `more`."""
        bad = [video for own in self.ranks.gather(progress.bad_videos, everywhere=False) for video in own]
        bad = [*sorted(bad, key=lambda video: video.episode), *more]
        progress.bad_videos.clear()
        if bad and self.ranks.main:
            listed = results.write_bad_videos(self.output_dir / "bad_videos.csv", bad)
            _LOGGER.warning("%d clips could not be read and were replaced so far: see bad_videos.csv", listed)

    def _save_between(self, progress: Progress) -> None:
        """Save the state in checkpoint_last.pyth, unless the latest state is this one."""
        if self.saved == progress.iteration:
            return
        self._list_bad_videos(progress)  # the state does not carry them
        state = self.state(progress)
        if self.ranks.main:
            self.store.save_between(state)
        self.saved = progress.iteration

    def state(self, progress: Progress) -> dict[str, Any]:
        """Everything a restart needs, in the published layout."""
        return resume.pack(self.cfg, self.model, self.optimizer, progress, self.evaluator.split.name,
                           (self.train_split, self.evaluator.split), self.learner.scaler, self.ranks)

    def _start(self) -> Progress:
        """The state furthest along of this run, else CHECKPOINT_FILE_PATH, else the beginning."""
        ranks = self.ranks
        path, state, own = ranks.broadcast(self._read() if ranks.main else (None, None, False))
        if path is None:
            found = Progress()
        elif own:
            _LOGGER.info("going on from %s (iteration %d)", path, state["resume"]["iteration"])
            self.saved = state["resume"]["iteration"]
            found = self._restore(state, path)
        else:
            found = self._begin(state, path)
        ranks.copy_weights(self.model)
        return found

    def _read(self) -> tuple[Path | None, dict[str, Any] | None, bool]:
        """(file to start from, its content, whether it is a state of this run)"""
        for path, state in self.store.readable():
            if "resume" not in state:
                raise CheckpointError(f"{path}: holds no training state of this code base (a published checkpoint?): "
                                      "name it in TRAIN.CHECKPOINT_FILE_PATH and choose another OUTPUT_DIR")
            return path, state, True
        path = self.cfg.TRAIN.CHECKPOINT_FILE_PATH
        return (Path(path), checkpoint.read(path), False) if path else (None, None, False)

    def _begin(self, state: dict[str, Any], path: Path) -> Progress:
        """Start from another run's file."""
        if not self.cfg.TRAIN.FINE_TUNE and "resume" in state:
            return self._restore(state, path)
        checkpoint.load_model_state(self.model, state["model_state"], path)
        if not self.cfg.TRAIN.FINE_TUNE:
            checkpoint.load_optimizer_state(self.optimizer, state["optimizer_state"], path)
        _LOGGER.info("starting from the weights of %s", path)
        return Progress()

    def _restore(self, state: dict[str, Any], path: Path) -> Progress:
        progress = resume.unpack(state, path, self.model, self.optimizer, self.learner.scaler, self.ranks)
        kept = not progress.best_iteration or (
            self.ranks.main and resume.keep_best(self.store, progress.best_iteration))
        if not self.ranks.broadcast(kept):
            _LOGGER.warning("%s of iteration %d is lost, and so is the numbered checkpoint it was a copy of: the next "
                            "validation decides the best anew", self.store.best, progress.best_iteration)
            progress.best, progress.best_iteration = -1.0, 0
        return progress
