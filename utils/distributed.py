"""Let several processes, ranks, train and evaluate one model together. One alone is a world of 1, at no cost.

Numbers and objects travel over gloo (CPU), which sees at once when a process at the other end is gone; gradients and
batch statistics over nccl where the ranks have GPUs.
"""

import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import LaunchError, LostRankError
from utils.signals import STOPPING, handling

# Timeout for slow ranks only (they decode, or write): a dead one is noticed at once, as gloo sees the closed socket.
WAIT = timedelta(minutes=30)
# nccl does not see a dead rank. This is short, as all ranks do the same work between two exchanges of gradients.
WAIT_GPU = timedelta(seconds=45)
BUCKET_BYTES = 25 * 2**20
SAY_SECONDS = 10  # a longer wait for the other ranks is reported
_Item = TypeVar("_Item")


def lost_rank(error: Exception) -> LostRankError:
    """Explain torch's error of an exchange that broke off."""
    reason = re.sub(r"^(\[[^]]*\]\s*)+", "", str(error).splitlines()[0]).split(". ")[0]
    return LostRankError(f"an exchange with the other ranks broke off ({reason})")


def is_of_exchange(error: BaseException) -> bool:
    """Return whether an error came out of an exchange. Within the model (BN.SYNC) it is a bare RuntimeError of gloo."""
    return isinstance(error, dist.DistError) or type(error) is RuntimeError and "/gloo/" in str(error)


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise lost_rank(error) from error


@dataclass(frozen=True, slots=True)
class Ranks:
    """Exchange numbers, objects and tensors with the other ranks. Every method but `part` and `joined` is an exchange:
    all ranks call it, in the same order."""

    rank: int = 0  # of this process, 0..world-1; rank 0 writes
    world: int = 1  # how many there are
    local_rank: int = 0  # on this machine
    group: "dist.ProcessGroup | None" = None  # what gradients travel over; None: gloo

    @property
    def main(self) -> bool:
        """Return whether this is the rank that logs and writes."""
        return self.rank == 0

    @property
    def bar_off(self) -> bool | None:
        """Return tqdm's `disable`: no bar but on rank 0, and there only on a terminal."""
        return None if self.main else True

    def part(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Return this rank's share: items rank, rank + world, ..."""
        return items[self.rank::self.world]

    def joined(self, parts: Sequence[Sequence[_Item]]) -> list[_Item]:
        """Return the items of which `parts` are the shares of all ranks, in their first order. No exchange."""
        return [parts[i % self.world][i // self.world] for i in range(sum(map(len, parts)))]

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.table([0.0])

    def table(self, row: Sequence[float]) -> list[list[float]]:
        """Return the numbers of every rank, by rank."""
        if self.world == 1:
            return [list(row)]
        own = torch.tensor(row, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.world)]
        with _exchange():
            dist.all_gather(rows, own)
        return [found.tolist() for found in rows]

    def gather(self, value: _Item, everywhere: bool = True) -> list[_Item]:
        """Return the objects of every rank, by rank; with everywhere=False on rank 0 only, the others get their own."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with _exchange():
            if everywhere:
                dist.all_gather_object(values, value)
            else:
                dist.gather_object(value, values if self.main else None, dst=0)
        return values if everywhere or self.main else [value]

    def broadcast(self, value: _Item) -> _Item:
        """Return rank 0's object."""
        if self.world == 1:
            return value
        box = [value]
        with _exchange():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def share(self, tensor: Tensor, source: int) -> None:
        """Fill a CPU tensor with that of rank `source`."""
        if self.world > 1 and tensor.numel():
            with _exchange():
                dist.broadcast(tensor, src=source)

    @torch.no_grad()
    def copy_weights(self, module: nn.Module, buffers_only: bool = False) -> None:
        """Copy parameters and buffers of rank 0, such as the running statistics of its batch norms, to all."""
        if self.world == 1:
            return
        parameters = [] if buffers_only else list(module.parameters())
        for tensor in (*parameters, *module.buffers()):
            value = tensor.detach().cpu().contiguous()
            self.share(value, 0)
            if not self.main:
                tensor.copy_(value)

    @torch.no_grad()
    def reduce_gradients(self, parameters: Iterable[nn.Parameter], mean: bool) -> None:
        """Sum (or average) every rank's gradients, to the same bits on all; a rank without any counts as zeros."""
        if self.world == 1:
            return
        parameters = list(parameters)
        present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        with _exchange():
            dist.all_reduce(present, op=dist.ReduceOp.MAX)
        for parameter, anywhere in zip(parameters, present.tolist(), strict=True):
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with _exchange():
                dist.all_reduce(flat, group=self.group)
            if mean:
                flat /= self.world
            for gradient, value in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(value.view_as(gradient))


ALONE = Ranks()


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield consecutive gradients of one type, about BUCKET_BYTES together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(g.nbytes for g in bucket) >= BUCKET_BYTES
        if bucket and (full or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def rank_of_environment() -> tuple[int, int, int]:
    """Return (rank, number of ranks, rank on this machine) as a launcher's environment says.

    Raises LaunchError where it is half there: variables that a shell kept, or another launcher than torchrun.
    """
    found = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR",
                                                         "MASTER_PORT")}
    if found["WORLD_SIZE"] == "1":
        found = {"LOCAL_RANK": "0", "MASTER_ADDR": "-", "MASTER_PORT": "0"} | {k: v for k, v in found.items() if v}
    wrong = [f"{name} {value!r}" for name, value in found.items()
             if not (value if name == "MASTER_ADDR" else value.isdecimal())]
    if wrong:
        raise LaunchError("RANK and WORLD_SIZE are set, as for a rank of torchrun, but found " + ", ".join(wrong)
                          + ": start the ranks with torchrun, or `unset RANK WORLD_SIZE` for a run that starts its own")
    return int(found["RANK"]), int(found["WORLD_SIZE"]), int(found["LOCAL_RANK"])


@contextmanager
def _waiting(rank: int, world: int) -> Iterator[None]:
    """Let a signal end the process at once while it waits outside Python; report a long wait."""
    said = f"rank {rank} of {world} waits for the others at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}\n"
    timer = threading.Timer(SAY_SECONDS, sys.stderr.write, (said,))
    timer.daemon = True
    timer.start()
    try:
        with handling(STOPPING, signal.SIG_DFL):
            yield
    finally:
        timer.cancel()


def join_ranks(gpus: bool) -> Ranks:
    """Meet the other ranks, as the launcher's environment says. Raises LostRankError when they do not come."""
    rank, world, local = rank_of_environment()
    if world == 1:
        return Ranks(local_rank=local)
    importlib.import_module("torch.distributed.nn")  # later it would keep the group for good: see leave_ranks
    with _exchange(), _waiting(rank, world):
        store, _, _ = next(dist.rendezvous("env://", timeout=WAIT))
        # torchrun --max-restarts starts the ranks anew with the same store, which holds the addresses of the dead.
        store = dist.PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{world}", store)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=WAIT)
        if not gpus:
            return Ranks(rank, world, local)
        torch.cuda.set_device(local)
        group: Any = dist.new_group(backend="nccl", timeout=WAIT_GPU)
        return Ranks(rank, world, local, group)


def leave_ranks() -> None:
    """End the connections of a rank that is done, and the threads that serve them.

    A thread that is still at work when Python ends aborts the process. They live as long as anything refers to the
    group: so would the default arguments of torch.distributed.nn, had torchvision imported that within the group.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
