"""The training loop: episodes in, gradients out, validation now and then. It knows no method."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from models.losses import Criterion
from utils.episode import BadVideo, Episode
from utils.errors import NonFiniteLossError
from utils.meters import Meter, memory_line
from utils.metrics import correct_queries
from utils.optim import set_lr
from utils.schedule import Schedule

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """Where a training run stands.

    Args:
        iteration: episodes done. skipped: those left out of it (ON_NONFINITE: skip).
        best, best_iteration: highest validation accuracy, 0..1, and where; iteration 0: not known.
        epoch, validated: validations done, and the iteration of the last one.
        window: figures of the last iterations, for running means.
        bad_videos: replaced clips that are not yet in bad_videos.csv.
    """

    iteration: int = 0
    best: float = -1.0
    best_iteration: int = 0
    skipped: int = 0
    epoch: int = 0
    validated: int = 0
    window: dict[str, list[float]] = field(default_factory=dict)
    bad_videos: list[BadVideo] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Numbers of the loop: see the TRAIN section of the configuration."""

    iterations: int
    validate_every: int
    episodes_per_step: int
    log_every: int
    clip_grad_norm: float | None = None
    bf16: bool = False
    skip_nonfinite: bool = False


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the loop calls: `validate(progress)` every validate_every iterations and at the end; `stop(progress)` after
    every iteration, which raises when the run is to stop there; `record(dict)`; `videos(episode)` names an episode's
    videos for error messages."""

    validate: Callable[[Progress], None]
    stop: Callable[[Progress], None]
    record: Callable[[dict[str, Any]], None]
    videos: Callable[[Episode], str]


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


def train(model: nn.Module, episodes: Iterable[Episode], criterion: Criterion, optimizer: torch.optim.Optimizer,
          schedule: Schedule, options: LoopOptions, hooks: Hooks, progress: Progress, device: torch.device) -> None:
    """Train from progress.iteration to options.iterations; `episodes` starts at the same place.

    Gradients of `episodes_per_step` episodes add up to one optimizer step. Raises NonFiniteLossError.
    """
    meter = Meter(options.iterations, progress.iteration, progress.window)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    bar = tqdm(total=options.iterations, initial=progress.iteration, desc="train", unit="it", disable=None)
    model.train()
    for episode in episodes:
        number = progress.iteration
        lr = schedule(number)
        set_lr(optimizer, lr)
        losses, correct_M = step_losses(model, criterion, episode.to(device), options.bf16)
        total = sum(losses.values())
        if torch.isfinite(total):
            total.backward()
        elif options.skip_nonfinite:
            progress.skipped += 1
            _LOGGER.warning("%s Skipped (%d so far).", nonfinite(losses, number, lr, hooks.videos(episode)),
                            progress.skipped)
        else:
            raise nonfinite(losses, number, lr, hooks.videos(episode))
        progress.iteration = number + 1
        last = progress.iteration == options.iterations
        if progress.iteration % options.episodes_per_step == 0 or last:
            if options.clip_grad_norm:
                nn.utils.clip_grad_norm_(parameters, options.clip_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.bad_videos.extend(episode.bad_videos)
        figures = {"loss": total.item()} if torch.isfinite(total) else {}
        meter.update(accuracy=correct_M.float().mean().item(), **figures)
        bar.update()
        bar.set_postfix_str(f"loss {meter.mean('loss'):.4f} acc {meter.mean('accuracy'):.1%} lr {lr:.2e} "
                            f"{meter.seconds:.3f} s/it eta {meter.eta}")
        if progress.iteration % options.log_every == 0 or last:
            report(meter, progress, lr, losses, hooks, device)
        if progress.iteration % options.validate_every == 0 or last:
            hooks.validate(progress)
            model.train()
            meter.pause()
        hooks.stop(progress)
    bar.close()


def report(meter: Meter, progress: Progress, lr: float, losses: dict, hooks: Hooks, device: torch.device) -> None:
    """One line on the screen and one record: loss and accuracy are means over the last iterations
    (utils.meters.WINDOW), each loss_<name> is this iteration's."""
    _LOGGER.info("iteration %d/%d: loss %.4f, accuracy %.1f %%, lr %.3g, %.3f s/it, eta %s, %s", progress.iteration,
                 meter.total, meter.mean("loss"), 100 * meter.mean("accuracy"), lr, meter.seconds, meter.eta,
                 memory_line(device))
    hooks.record({
        "kind": "train", "iteration": progress.iteration, "loss": meter.mean("loss"),
        "accuracy": meter.mean("accuracy"), "lr": lr, "seconds_an_iteration": meter.seconds, "skipped":
        progress.skipped, **{f"loss_{name}": value.item() for name, value in losses.items()},
    })
