"""Load single items by workers, whose errors arrive as they were."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from datasets.clips import ClipDataset, Clips
from datasets.few_shot import FewShotDataset
from datasets.raw_episode import RawEpisode
from datasets.workers import into_shared_memory, untold_where_lost, watched
from utils.episode import Episode
from utils.errors import FewShotError
from utils.signals import shielded


@dataclass(frozen=True, slots=True)
class _Failure:
    """Carry an error out of a worker: torch would rebuild it from its text and lose its type."""

    error: FewShotError


class _Guarded(Dataset[Any]):
    """Give a data set's items, and its FewShotErrors as items, too. `raw`: the items are not transformed."""

    def __init__(self, source: FewShotDataset | ClipDataset, raw: bool):
        self.source = source
        self.read: Callable[[int], Episode | RawEpisode | Clips] = source.raw if raw else source.__getitem__

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Episode | RawEpisode | Clips | _Failure:
        try:
            return into_shared_memory(self.read(index))
        except FewShotError as error:
            return _Failure(error)


def _as_is(item: object) -> object:
    return item


def _one_thread(worker: int) -> None:
    """Give a worker one thread: the workers share the cores; and leave it to the main process to tell of its end."""
    torch.set_num_threads(1)
    sys.excepthook = untold_where_lost


class ItemLoader(DataLoader[Any]):
    """Load single items (Episode or Clips), in order.

    It raises a worker's FewShotError as it was, and a WorkerError when a worker has ended.

    Args:
        raw: leave items untransformed (RawEpisode, or Clips of uint8); `finish` then transforms one where its pixels
            are, which device_loader.on_device sees to. Otherwise `finish` is None.
        workers: processes; 0 decodes in this one.
        shield: workers outlive a signal to the whole process group, so that this process can finish what it is at.
    """

    def __init__(self, source: FewShotDataset | ClipDataset, *, raw: bool, workers: int, pin_memory: bool,
                 shield: bool = False):
        # Workers are forked on Linux, before they open any video or touch CUDA, and run single-threaded. They live as
        # long as one pass over the items: every loader is iterated once, so keeping them longer would only hold memory.
        context = ("fork" if sys.platform.startswith("linux") else "spawn") if workers else None
        super().__init__(_Guarded(source, raw), batch_size=None, shuffle=False, num_workers=workers, collate_fn=_as_is,
                         pin_memory=pin_memory, worker_init_fn=shielded(_one_thread) if shield else _one_thread,
                         multiprocessing_context=context,
                         generator=torch.Generator())  # its own: the loader then leaves the global generator alone
        self.finish: Callable[[Any], Any] | None = source.finish if raw else None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch promises its own class of iterators
        for item in watched(super().__iter__()):
            if isinstance(item, _Failure):
                raise item.error
            yield item
