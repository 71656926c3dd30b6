"""Train: take episodes, make gradients of them, validate now and then. The loop knows no method."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from tqdm import tqdm

from runs.training.step import Learner, LoopOptions, PassPosition
from utils.episode import BadVideo, Episode
from utils.meters import Meter, memory_line
from utils.optim import set_lr
from utils.phases import phase
from utils.schedule import Schedule

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """Says where a training run stands.

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
class Hooks:
    """Holds what the loop calls: `validate(progress)` every validate_every iterations and at the end,
    `after_pass(progress)` after every pass (it raises if the run is to stop there), and `record(dict)`."""

    validate: Callable[[Progress], None]
    after_pass: Callable[[Progress], None]
    record: Callable[[dict[str, Any]], None]


def passes(episodes: Iterable[Episode], options: LoopOptions, progress: Progress,
           waited: Callable[[float], None]) -> Iterator[list[Episode]]:
    """Yield the episodes of each forward and backward pass; `waited` gets the seconds that each list took to come."""
    source = iter(episodes)
    while progress.iteration < options.iterations:
        start = time.perf_counter()
        with phase("data wait"):
            group = list(islice(source, options.together_from(progress.iteration)))
        waited(time.perf_counter() - start)
        if not group:
            return
        yield group
        del group  # its memory must be free before the next episodes come


def train(learner: Learner, episodes: Iterable[Episode], schedule: Schedule, hooks: Hooks, progress: Progress) -> None:
    """Train from progress.iteration to options.iterations; `episodes` are this rank's, on its device, from
    progress.episodes on.

    Gradients of `iterations_a_step` iterations add up to one optimizer step. Raises as Learner.learn.
    """
    options, ranks = learner.options, learner.ranks
    meter = Meter(options.iterations, progress.iteration, progress.window)
    bar = tqdm(total=options.iterations, initial=progress.iteration, desc="train", unit="it", disable=ranks.bar_off)
    learner.model.train()
    for group in passes(episodes, options, progress, meter.wait):
        count = len(group)
        lr = schedule(progress.iteration + count - 1)
        set_lr(learner.optimizer, lr)
        outcome = learner.learn(group, PassPosition(progress.episodes, progress.iteration, lr, progress.skipped))
        progress.iteration += count
        progress.episodes += count * ranks.world
        progress.skipped += outcome.skipped
        last = progress.iteration == options.iterations
        if progress.iteration % options.iterations_a_step == 0 or last:
            learner.step()
        progress.bad_videos.extend(video for episode in group for video in episode.bad_videos)
        meter.update(count, accuracy=outcome.accuracy, loss=outcome.loss)
        bar.update(count)
        bar.set_postfix_str(f"loss {meter.mean('loss'):.4f} acc {meter.mean('accuracy'):.1%} lr {lr:.2e} "
                            f"{meter.seconds:.3f} s/it, waiting {meter.waiting:.0%}, eta {meter.eta}")
        if progress.iteration % options.log_every < count or last:
            report(meter, progress, lr, outcome.losses, hooks, learner.device)
        if progress.iteration % options.validate_every == 0 or last:
            hooks.validate(progress)
            learner.model.train()
            meter.pause()
        del group
        hooks.after_pass(progress)
    bar.close()


def report(meter: Meter, progress: Progress, lr: float, losses: dict[str, float], hooks: Hooks,
           device: torch.device) -> None:
    """Log one line and write one record: loss and accuracy are means over the last episodes (utils.meters.WINDOW), each
    loss_<name> is of the latest pass."""
    _LOGGER.info("iteration %d/%d: loss %.4f, accuracy %.1f %%, lr %.3g, %.3f s/it (%.0f %% waiting for data), eta %s, "
                 "%s", progress.iteration, meter.total, meter.mean("loss"), 100 * meter.mean("accuracy"), lr,
                 meter.seconds, 100 * meter.waiting, meter.eta, memory_line(device))
    hooks.record({
        "kind": "train", "iteration": progress.iteration, "loss": meter.mean("loss"),
        "accuracy": meter.mean("accuracy"), "lr": lr, "seconds_an_iteration": meter.seconds,
        "share_waiting_for_data": meter.waiting, "skipped": progress.skipped,
        **{f"loss_{name}": value for name, value in losses.items()},
    })
