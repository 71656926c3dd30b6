"""Turn episodes into gradients, and gradients into steps of the optimizer. A step knows no method."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from models.builder import FewShotModel
from models.layers.efficiency import compiling, statistics_stay
from models.layers.similarity import full_precision
from utils.distributed import ALONE, Ranks
from utils.episode import Episode, EpisodeOutput
from utils.errors import LostRankError, NonFiniteLossError
from utils.host_copy import HostCopy
from utils.metrics import correct_queries
from utils.phases import phase
from utils.precision import autocast, gradient_scaler, products_of
from utils.seed import derive_seed

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Holds the numbers of the loop: see the TRAIN section of the configuration.

    Args:
        together: iterations that share a forward and backward pass; it divides `iterations_a_step`.
        batch_over_ranks: ranks share batch statistics (BN.SYNC), so an episode counts on all ranks or on none.
    """

    iterations: int
    validate_every: int
    iterations_a_step: int
    log_every: int
    together: int = 1
    clip_grad_norm: float | None = None
    precision: str = "fp32"
    skip_nonfinite: bool = False
    seed: int = 0
    mean_over_ranks: bool = True
    batch_over_ranks: bool = False

    def together_from(self, iteration: int) -> int:
        """Return how many iterations the next pass takes: up to a multiple of `together`, a validation, or the end."""
        ends = (self.together, self.validate_every)
        return min(*(n - iteration % n for n in ends), max(self.iterations - iteration, 1))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the figures of a pass, of all ranks.

    Args:
        loss, accuracy: one for each episode, in their order; a loss that is not finite is left out.
        losses: mean of each loss. skipped: how many episodes are left out.
    """

    loss: list[float]
    accuracy: list[float]
    losses: dict[str, float]
    skipped: int


def step_losses(outputs: Iterator[EpisodeOutput], model: FewShotModel, episode: Episode,
                precision: str) -> tuple[dict[str, Tensor], Tensor]:
    """Return ({name: loss}, correct queries [M]) of an episode in training mode, whose output comes next; losses are
    computed in float32."""
    with autocast(precision, episode.support_NTCHW.device):
        output = next(outputs)
    output = replace(output, logits_MK=full_precision(output.logits_MK),
                     aux={name: full_precision(value) for name, value in output.aux.items()})
    return model.head.losses(output, episode), correct_queries(output.logits_MK.detach(), episode.query_labels_M)


def nonfinite(losses: dict[str, float], iteration: int, lr: float, videos: str) -> NonFiniteLossError:
    """Return the error of a NaN or infinite loss."""
    values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    return NonFiniteLossError(f"iteration {iteration}: the loss is not finite ({values}) at learning rate {lr:.3g}. "
                              f"Videos of the episode:\n{videos}\nTRAIN.ON_NONFINITE: skip leaves such episodes out; "
                              "where it happens again and again, the learning rate is likely too high.")


@dataclass(frozen=True, slots=True)
class PassPosition:
    """Says where a pass stands, for seeds and messages.

    Args:
        episode: number of its first episode on rank 0. iteration: its first iteration. lr: the learning rate.
        skipped: episodes that were skipped before.
    """

    episode: int
    iteration: int
    lr: float
    skipped: int = 0


class Learner:
    """Turns episodes into gradients, and gradients into steps of the optimizer.

    Args:
        videos: names an episode's videos in messages. device: the one that computes. ranks: that train together.
    """

    def __init__(self, model: FewShotModel, optimizer: torch.optim.Optimizer, options: LoopOptions,
                 videos: Callable[[Episode], str], device: torch.device, ranks: Ranks = ALONE):
        self.model, self.optimizer, self.options = model, optimizer, options
        self.videos, self.device, self.ranks = videos, device, ranks
        self.scaler = gradient_scaler(options.precision, device)

    def learn(self, episodes: Sequence[Episode], position: PassPosition) -> Outcome:
        """Run the backward pass of a group of episodes; gradients equal those of running each episode alone.

        A GPU never waits for the host here: losses are read once the backward pass is queued. What was added up before
        it is kept apart until then, and the pass is dropped where a loss is not finite.

        Raises NonFiniteLossError; LostRankError: the loss of another rank is not finite; CompileError.
        """
        with compiling(), products_of(self.options.precision):
            numbers = [position.episode + i * self.ranks.world + self.ranks.rank for i in range(len(episodes))]
            before = self._take_gradients()
            names, own = self._pass(episodes, numbers)
            figures = self._of_all(own, len(episodes))  # [iteration][rank] -> [total, accuracy, each loss]
            bad = [{rank for rank, row in enumerate(rows) if not math.isfinite(row[0])} for rows in figures]
            self._report_nonfinite(episodes, position, names, figures, bad)
            kept = [i for i, of in enumerate(bad)
                    if not (of if self.options.batch_over_ranks else of & {self.ranks.rank})]
            if len(kept) < len(episodes):
                self._take_gradients()
                if kept:  # a NaN has reached the others' gradients, so they pass again without it
                    with statistics_stay(self.model):
                        self._pass([episodes[i] for i in kept], [numbers[i] for i in kept])
            self._add_gradients(before)
        rows = [row for of_ranks in figures for row in of_ranks]
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return Outcome([row[0] for row in rows if math.isfinite(row[0])], [row[1] for row in rows],
                       dict(zip(names, means[2:], strict=True)), sum(map(len, bad)))

    def _pass(self, episodes: Sequence[Episode], numbers: Sequence[int]) -> tuple[list[str], HostCopy]:
        """Queue a forward and a backward pass; return the names of the losses, and of each episode its figures: total,
        accuracy, each loss."""
        outputs, totals, figures = self.model.head.outputs(episodes, self.model.text("train")), [], []
        for episode, number in zip(episodes, numbers, strict=True):
            torch.manual_seed(derive_seed(self.options.seed, "dropout", number))  # the same on any rank
            losses, correct = step_losses(outputs, self.model, episode, self.options.precision)
            totals.append(reduce(add, losses.values()))
            figures.append(torch.stack([one.detach() for one in (totals[-1], correct.float().mean(),
                                                                 *losses.values())]))
        copy = HostCopy(torch.stack(figures))
        with phase("backward"):
            self.scaler.scale(reduce(add, totals)).backward()
        return list(losses), copy

    def _take_gradients(self) -> list[Tensor | None]:
        """Return what has added up in each parameter, which has no gradient afterwards."""
        taken = [parameter.grad for parameter in self.model.parameters()]
        self.model.zero_grad(set_to_none=True)
        return taken

    def _add_gradients(self, taken: Sequence[Tensor | None]) -> None:
        """Add up what was taken and what has come since, in the memory of the former."""
        for parameter, gradient in zip(self.model.parameters(), taken, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)

    def _of_all(self, own: HostCopy, count: int) -> list[list[list[float]]]:
        """Return every rank's figures, [iteration][rank], by one copy from the device and one exchange."""
        of_ranks = self.ranks.table(own.read().flatten().tolist())
        width = len(of_ranks[0]) // count
        return [[flat[i * width:(i + 1) * width] for flat in of_ranks] for i in range(count)]

    def _report_nonfinite(self, episodes: Sequence[Episode], position: PassPosition, names: list[str],
                          figures: list[list[list[float]]], bad: list[set[int]]) -> None:
        """Log which losses are not finite, or raise (ON_NONFINITE: stop)."""
        skipped = position.skipped
        for i, (episode, of) in enumerate(zip(episodes, bad, strict=True)):
            skipped += len(of)
            if self.ranks.rank in of:
                values = dict(zip(names, figures[i][self.ranks.rank][2:], strict=True))
                error = nonfinite(values, position.iteration + i, position.lr, self.videos(episode))
                if not self.options.skip_nonfinite:
                    raise error
                _LOGGER.warning("%s Skipped (%d so far).", error, skipped)
            elif of and not self.options.skip_nonfinite:
                raise LostRankError(f"the loss of rank {min(of)} is not finite")

    @phase("optimizer")
    def step(self) -> None:
        """Make one step of the optimizer with what has added up on all ranks, which exchange gradients here and nowhere
        before. A step whose fp16 gradients overflow is left out, and the next ones are scaled less."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ranks.reduce_gradients(parameters, self.options.mean_over_ranks)
        self.scaler.unscale_(self.optimizer)
        if self.options.clip_grad_norm:
            nn.utils.clip_grad_norm_(parameters, self.options.clip_grad_norm)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < before:
            _LOGGER.warning("TRAIN.PRECISION fp16: the gradients overflowed; a step is left out, and gradients are "
                            "scaled by %g instead of %g from here on", self.scaler.get_scale(), before)
        self.optimizer.zero_grad(set_to_none=True)
