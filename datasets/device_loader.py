"""Bring a loader's items to the device that computes, and transform them there if the workers only decode.

On a GPU that is done for the next item on a stream of its own while the current one is in use. On the CPU nothing is
fetched before it is asked for.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from datasets.loader import ItemLoader

_LOGGER = logging.getLogger(__name__)
Item = TypeVar("Item")


def on_device(loader: ItemLoader, device: torch.device) -> Iterable[Any]:
    """Yield the loader's items, in order, on `device` and ready for a model.

    On a GPU item i + 1 is fetched before item i is handed out; what goes wrong with it is raised when it is asked for.
    While one item is in use the device holds one more (in the moment between two, a third).
    """
    if device.type == "cuda":
        return one_ahead(map(_Finish(loader.finish, device), loader), SideStream(device))
    return loader if loader.finish is None else map(_Finish(loader.finish, device), loader)


def _tensors(item: Any) -> list[Tensor]:
    """Return the tensors in a dataclass."""
    return [value for one in fields(item) if isinstance(value := getattr(item, one.name), Tensor)]


class _Finish:
    """Move an item to a device and transform it there. Warns once if raw frames are larger than transformed clips: then
    USE_GPU sends more bytes, not fewer."""

    def __init__(self, finish: Callable[[Any], Any] | None, device: torch.device):
        self.finish, self.device, self.compared = finish, device, finish is None

    def __call__(self, item: Any) -> Any:
        moved = item.to(self.device)
        done = moved if self.finish is None else self.finish(moved)
        if not self.compared:
            self.compared = True
            raw, ready = (sum(tensor.nbytes for tensor in _tensors(one)) for one in (item, done))
            if raw > ready:
                _LOGGER.warning("AUGMENTATION.USE_GPU: %.1f MB of frames are handed over where %.1f MB of transformed "
                                "clips would be, the videos are that large: a frame cache, or false, may be faster",
                                raw / 1e6, ready / 1e6)
        return done


class SideStream:
    """Queue work on a CUDA device beside that of its current stream."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch

    def start(self, source: Iterator[Item]) -> tuple[Item, torch.cuda.Event] | None:
        """Queue the next item's work; return it with the event of its being ready. None: there is no next one."""
        with torch.cuda.stream(self.stream):
            item = next(source, None)
            return None if item is None else (item, self.stream.record_event())

    def hand_over(self, started: tuple[Item, torch.cuda.Event]) -> Item:
        """Return an item that the current stream waits for; its memory is kept until that stream is done."""
        item, ready = started
        current = torch.cuda.current_stream(self.device)
        current.wait_event(ready)
        for tensor in _tensors(item):
            tensor.record_stream(current)
        return item


def one_ahead(items: Iterator[Item], side: SideStream) -> Iterator[Item]:
    """Yield each item once the next one is started; an error of the next waits until this one is used."""
    waiting = None
    try:
        while (started := side.start(items)) is not None:
            if waiting is not None:
                yield side.hand_over(waiting)
            waiting = started
    except Exception:
        if waiting is not None:
            yield side.hand_over(waiting)
        raise
    if waiting is not None:
        yield side.hand_over(waiting)
