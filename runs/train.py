"""The training loop: episodes in, gradients out, validation now and then. It knows no method."""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from models.losses import Criterion
from utils.distributed import ALONE, Ranks
from utils.episode import BadVideo, Episode
from utils.errors import LostRankError, NonFiniteLossError
from utils.meters import Meter, memory_line
from utils.metrics import correct_queries
from utils.optim import set_lr
from utils.schedule import Schedule
from utils.seed import derive_seed

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """Where a training run stands.

    Args:
        iteration: iterations done. skipped: episodes left out (ON_NONFINITE: skip), of all ranks.
        best, best_iteration: highest validation accuracy, 0..1, and where; iteration 0: not known.
        epoch, validated: validations done, and the iteration of the last one.
        window: figures of the last iterations, for running means.
        bad_videos: this rank's replaced clips that are not yet in bad_videos.csv.
        episodes: done by all ranks together; the next iteration of rank r takes episode number episodes + r.
    """

    iteration: int = 0
    best: float = -1.0
    best_iteration: int = 0
    skipped: int = 0
    epoch: int = 0
    validated: int = 0
    window: dict[str, list[float]] = field(default_factory=dict)
    bad_videos: list[BadVideo] = field(default_factory=list)
    episodes: int = 0


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Numbers of the loop: see the TRAIN section of the configuration.

    `batch_over_ranks`: batch statistics are (BN.SYNC), so an episode counts on all ranks or on none.
    """

    iterations: int
    validate_every: int
    episodes_per_step: int
    log_every: int
    clip_grad_norm: float | None = None
    bf16: bool = False
    skip_nonfinite: bool = False
    seed: int = 0
    mean_over_ranks: bool = True
    batch_over_ranks: bool = False


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop calls: `validate(progress)` every validate_every iterations and at the end; `stop(progress)` after
    every iteration, which raises when the run is to stop there; `record(dict)`."""

    validate: Callable[[Progress], None]
    stop: Callable[[Progress], None]
    record: Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An iteration's figures, of all ranks.

    Args:
        loss, accuracy: one an episode, in their order; of the loss only what is finite.
        losses: mean of each loss. skipped: episodes that are left out.
    """

    loss: list[float]
    accuracy: list[float]
    losses: dict[str, float]
    skipped: int


def step_losses(model: nn.Module, criterion: Criterion, episode: Episode, bf16: bool) -> tuple[dict, torch.Tensor]:
    """({name: loss}, correct queries [M]) of an episode in training mode."""
    with torch.autocast(episode.support_NTCHW.device.type, dtype=torch.bfloat16, enabled=bf16):
        output = model(episode, "train")
    return criterion(output, episode), correct_queries(output.logits_MK.detach(), episode.query_labels_M)


def nonfinite(losses: dict, iteration: int, lr: float, videos: str) -> NonFiniteLossError:
    """The error of a NaN or infinite loss."""
    values = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
    return NonFiniteLossError(f"iteration {iteration}: the loss is not finite ({values}) at learning rate {lr:.3g}. "
                              f"Videos of the episode:\n{videos}\nTRAIN.ON_NONFINITE: skip leaves such episodes out; "
                              "where it happens again and again, the learning rate is likely too high.")


@dataclass(frozen=True, slots=True)
class Learner:
    """Turns episodes into gradients, and gradients into steps. `videos` names an episode's videos in messages."""

    model: nn.Module
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    options: LoopOptions
    videos: Callable[[Episode], str]
    ranks: Ranks = ALONE

    def learn(self, episode: Episode, progress: Progress, lr: float) -> Outcome:
        """Add the gradients of this rank's next episode. Raises NonFiniteLossError; LostRankError: on another rank."""
        number = progress.episodes + self.ranks.rank
        torch.manual_seed(derive_seed(self.options.seed, "dropout", number))  # whatever rank draws it
        losses, correct_M = step_losses(self.model, self.criterion, episode, self.options.bf16)
        total = sum(losses.values())
        rows = self.ranks.table([total.item(), correct_M.float().mean().item(), *(v.item() for v in losses.values())])
        bad = [rank for rank, row in enumerate(rows) if not math.isfinite(row[0])]
        if self.ranks.rank in bad:
            error = nonfinite(losses, progress.iteration, lr, self.videos(episode))
            if not self.options.skip_nonfinite:
                raise error
            _LOGGER.warning("%s Skipped (%d so far).", error, progress.skipped + len(bad))
        elif bad and not self.options.skip_nonfinite:
            raise LostRankError(f"the loss of rank {bad[0]} is not finite")
        elif not (bad and self.options.batch_over_ranks):
            total.backward()
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return Outcome([row[0] for rank, row in enumerate(rows) if rank not in bad], [row[1] for row in rows],
                       dict(zip(losses, means[2:], strict=True)), len(bad))

    def step(self) -> None:
        """One step of the optimizer with what has added up on all ranks, which meet here and nowhere before."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ranks.reduce_gradients(parameters, self.options.mean_over_ranks)
        if self.options.clip_grad_norm:
            nn.utils.clip_grad_norm_(parameters, self.options.clip_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def train(learner: Learner, episodes: Iterable[Episode], schedule: Schedule, hooks: Hooks, progress: Progress,
          device: torch.device) -> None:
    """Train from progress.iteration to options.iterations; `episodes` are this rank's, from the same place on.

    Gradients of `episodes_per_step` iterations add up to one optimizer step. Raises as Learner.learn.
    """
    options, ranks = learner.options, learner.ranks
    meter = Meter(options.iterations, progress.iteration, progress.window)
    bar = tqdm(total=options.iterations, initial=progress.iteration, desc="train", unit="it", disable=ranks.bar_off)
    learner.model.train()
    for episode in episodes:
        lr = schedule(progress.iteration)
        set_lr(learner.optimizer, lr)
        outcome = learner.learn(episode.to(device), progress, lr)
        progress.iteration += 1
        progress.episodes += ranks.world
        progress.skipped += outcome.skipped
        last = progress.iteration == options.iterations
        if progress.iteration % options.episodes_per_step == 0 or last:
            learner.step()
        progress.bad_videos.extend(episode.bad_videos)
        meter.update(accuracy=outcome.accuracy, loss=outcome.loss)
        bar.update()
        bar.set_postfix_str(f"loss {meter.mean('loss'):.4f} acc {meter.mean('accuracy'):.1%} lr {lr:.2e} "
                            f"{meter.seconds:.3f} s/it eta {meter.eta}")
        if progress.iteration % options.log_every == 0 or last:
            report(meter, progress, lr, outcome.losses, hooks, device)
        if progress.iteration % options.validate_every == 0 or last:
            hooks.validate(progress)
            learner.model.train()
            meter.pause()
        hooks.stop(progress)
    bar.close()


def report(meter: Meter, progress: Progress, lr: float, losses: dict[str, float], hooks: Hooks,
           device: torch.device) -> None:
    """One line on the screen and one record: loss and accuracy are means over the last episodes
    (utils.meters.WINDOW), each loss_<name> is this iteration's."""
    _LOGGER.info("iteration %d/%d: loss %.4f, accuracy %.1f %%, lr %.3g, %.3f s/it, eta %s, %s", progress.iteration,
                 meter.total, meter.mean("loss"), 100 * meter.mean("accuracy"), lr, meter.seconds, meter.eta,
                 memory_line(device))
    hooks.record({
        "kind": "train", "iteration": progress.iteration, "loss": meter.mean("loss"),
        "accuracy": meter.mean("accuracy"), "lr": lr, "seconds_an_iteration": meter.seconds, "skipped":
        progress.skipped, **{f"loss_{name}": value for name, value in losses.items()},
    })
