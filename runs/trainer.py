"""Training around the loop: resume, validation, checkpoints, records, curves."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from datasets.builder import SplitData, build_loader
from models.losses import Criterion
from runs import results
from runs.evaluate import Evaluator
from runs.identity import list_name
from runs.train import Hooks, LoopOptions, Progress, train
from utils import checkpoint
from utils.config.schema import Config
from utils.config.show import to_dict
from utils.episode import Episode
from utils.errors import CheckpointError
from utils.logging import RecordLog, read_records
from utils.schedule import Schedule

_LOGGER = logging.getLogger(__name__)

# Settings that may change between a run and its continuation: where things lie, how fast they go, the final test.
MAY_CHANGE = {
    "OUTPUT_DIR", "LOG_PERIOD", "NUM_GPUS", "DATA.DATA_ROOT_DIR", "DATA.ANNO_DIR", "DATA.DECODER", "DATA_LOADER",
    "TRAIN.ENABLE", "TRAIN.NUM_TEST_TASKS", "TRAIN.NUM_TRAIN_TASKS", "TRAIN.KEEP_CHECKPOINTS", "TRAIN.LOG_FILE",
    "TRAIN.AUTO_RESUME", "TRAIN.EVAL_TEXT", "TRAIN.COMBINE", "TRAIN.TEXT_COFF", "TRAIN.COMBINE_FRAMES",
    "TEST.ENABLE", "TEST.CHECKPOINT_FILE_PATH", "TEST.LOG_FILE", "TEST.FEATURE_STORE", "TEST.FEATURE_STORE_DIR",
    "TEST.ENCODE_BATCH", "VIDEO.HEAD.WEIGHTS_DIR", "RANDOM_SEEDS",
}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out.update(_flat(value, f"{prefix}{name}."))
        else:
            out[prefix + name] = value
    return out


def training_differences(saved: str, cfg: Config) -> list[str]:
    """Settings in which a checkpoint's cfg (JSON text) differs from this run, beyond MAY_CHANGE."""
    then, now = _flat(json.loads(saved)), _flat(to_dict(cfg))
    return [f"{key}: {then[key]!r} there, {value!r} here" for key, value in now.items()
            if key in then and then[key] != value and not {key, key.split(".")[0]} & MAY_CHANGE]


class Trainer:
    """A training run that can be killed at any moment and started again.

    The state is saved after each validation; what follows it is a function of that state, so a restart repeats it
    bit for bit on the CPU.
    """

    def __init__(self, *, cfg: Config, model: nn.Module, criterion: Criterion, optimizer: torch.optim.Optimizer,
                 schedule: Schedule, options: LoopOptions, store: checkpoint.CheckpointStore, output_dir: Path,
                 device: torch.device, train_split: SplitData, evaluator: Evaluator):
        self.cfg, self.model, self.criterion, self.optimizer = cfg, model, criterion, optimizer
        self.schedule, self.options, self.store, self.output_dir = schedule, options, store, output_dir
        self.device, self.train_split, self.evaluator = device, train_split, evaluator

    def run(self) -> Progress:
        """Train to the end (or find it trained), leaving the best and the last checkpoints."""
        progress, random_state = self._start()
        if progress.iteration >= self.options.iterations and self.store.best.is_file():
            _LOGGER.info("training is complete (iteration %d)", progress.iteration)
            return progress
        self.log_path = self.output_dir / "log.jsonl"
        self.log = RecordLog(self.log_path, progress.iteration)
        self.board = SummaryWriter(self.output_dir / "tensorboard", purge_step=progress.iteration + 1)
        loader = build_loader(self.cfg, self.train_split, start=progress.iteration)
        if random_state is not None:
            checkpoint.set_random_state(random_state)
        hooks = Hooks(validate=self.validate, record=self.record, videos=self.videos)
        try:
            train(self.model, loader, self.criterion, self.optimizer, self.schedule, self.options, hooks, progress,
                  self.device)
        finally:
            self.log.close()
            self.board.close()
        return progress

    def record(self, values: dict[str, Any]) -> None:
        """One record to log.jsonl and TensorBoard."""
        self.log.write(values)
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "iteration":
                self.board.add_scalar(f"{values['kind']}/{name}", value, values["iteration"])

    def videos(self, episode: Episode) -> str:
        """Paths of an episode's videos."""
        if episode.spec is None:
            return "unknown"
        records = self.train_split.records
        return ", ".join(records[i].path for i in (*episode.spec.support_N, *episode.spec.query_M))

    def validate(self, progress: Progress) -> None:
        """Score the validation episodes, keep the best weights, save the state, redraw the curves."""
        split = self.evaluator.split.name
        found = self.evaluator.run(self.model, f"validate on {split}")
        progress.epoch += 1
        is_best = found.accuracy > progress.best
        if is_best:
            progress.best, progress.best_iteration = found.accuracy, progress.iteration
        _LOGGER.info("iteration %d: accuracy on %s %.2f %% +- %.2f %% over %d episodes%s", progress.iteration,
                     split, 100 * found.accuracy, 100 * found.interval, len(found.episode_accuracy),
                     ", the best so far" if is_best else f" (best: {progress.best:.2%})")
        self.record({"kind": "validation", "iteration": progress.iteration, "split": split,
                     "accuracy": found.accuracy, "interval95": found.interval,
                     "episodes": len(found.episode_accuracy), "best": progress.best})
        bad = [*progress.bad_videos, *found.bad_videos]
        progress.bad_videos.clear()
        if bad:
            listed = results.write_bad_videos(self.output_dir / "bad_videos.csv", bad)
            _LOGGER.warning("%d clips could not be read and were replaced so far: see bad_videos.csv", listed)
        state = self.state(progress)
        if is_best:
            checkpoint.atomic_save(state, self.store.best)
        self.store.save(state)
        results.plot_curves(read_records(self.log_path), self.output_dir / "curves.png")

    def state(self, progress: Progress) -> dict[str, Any]:
        """Everything a restart needs, in the published layout."""
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        return {
            "epoch": progress.epoch, "model_state": self.model.state_dict(),
            "optimizer_state": self.optimizer.state_dict(), "cfg": json.dumps(to_dict(self.cfg)),
            "resume": {
                "iteration": progress.iteration, "best": progress.best, "best_iteration": progress.best_iteration,
                "skipped": progress.skipped, "selected_on": self.evaluator.split.name, "gradients": gradients,
                "random": checkpoint.random_state(), "seed": self.cfg.RANDOM_SEED,
                "lists": {split.name: list_name(split.name, split.list_hash)
                          for split in (self.train_split, self.evaluator.split)},
            },
        }

    def _start(self) -> tuple[Progress, dict[str, Any] | None]:
        """The latest readable checkpoint of this run, else CHECKPOINT_FILE_PATH, else the beginning."""
        for path, state in self.store.readable():
            if "resume" not in state:
                raise CheckpointError(f"{path}: holds no training state of this code base (a published checkpoint?): "
                                      "name it in TRAIN.CHECKPOINT_FILE_PATH and choose another OUTPUT_DIR")
            _LOGGER.info("going on from %s (iteration %d)", path, state["resume"]["iteration"])
            return self._restore(state, path), state["resume"]["random"]
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
        return self._restore(state, Path(path)), state["resume"]["random"]

    def _restore(self, state: dict[str, Any], path: Path) -> Progress:
        checkpoint.load_model_state(self.model, state["model_state"], path)
        checkpoint.load_optimizer_state(self.optimizer, state["optimizer_state"], path)
        resume = state["resume"]
        for name, parameter in self.model.named_parameters():
            gradient = resume["gradients"].get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        return Progress(resume["iteration"], resume["best"], resume["best_iteration"], resume["skipped"],
                        state["epoch"])
