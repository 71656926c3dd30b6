"""Checkpoints: written whole or not at all, under the published names and keys, read strictly and without running code.

A file is {epoch, model_state, optimizer_state, cfg (JSON text)} as published, plus `resume`: what an exact restart
needs (iteration, best so far, random states, gradients under way). The published loader ignores `resume`.
"""

import logging
import os
import pickle
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.errors import CheckpointError

_NAME = re.compile(r"^checkpoint_epoch_(\d{5,})\.pyth$")
_LOGGER = logging.getLogger(__name__)


def atomic_save(state: dict[str, Any], path: Path) -> None:
    """Write a file so that its name only ever shows the old or the new whole content.

    Raises CheckpointError when the disk refuses (the file of that name, if any, is left as it was).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({error}); the checkpoint before it is untouched") from error
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content. Raises CheckpointError naming a file that is missing, damaged or no checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or holds more than tensors and numbers: {reason}") from error
    if not isinstance(state, dict) or not isinstance(state.get("model_state"), dict):
        keys = ", ".join(map(str, list(state)[:6])) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: expected a checkpoint with model_state, found {keys}")
    return state


def load_model_state(model: nn.Module, state: dict[str, Tensor], origin: str | Path) -> None:
    """Fit `model_state` strictly. Raises CheckpointError that lists missing, unexpected and misshapen names."""
    found = {name.removeprefix("module."): value for name, value in state.items()}
    own = model.state_dict()
    problems = [f"missing {n}" for n in own if n not in found]
    problems += [f"unexpected {n}" for n in found if n not in own]
    problems += [f"{n}: expected shape {list(own[n].shape)}, found {list(v.shape)}"
                 for n, v in found.items() if n in own and own[n].shape != v.shape]
    if problems:
        raise CheckpointError(f"{origin}: does not fit this model: " + "; ".join(problems))
    model.load_state_dict(found)


def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Read a checkpoint and fit its weights; returns its content."""
    state = read(path)
    load_model_state(model, state["model_state"], path)
    return state


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any], origin: str | Path) -> None:
    """Fit `optimizer_state` (groups in the published order). Raises CheckpointError when sizes or shapes differ."""
    own = [len(group["params"]) for group in optimizer.param_groups]
    found = [len(group["params"]) for group in state["param_groups"]]
    if own != found:
        raise CheckpointError(f"{origin}: optimizer groups: expected {own} parameters, found {found}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [i for group in state["param_groups"] for i in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        moments = state["state"].get(number, {})
        bad = [k for k, v in moments.items() if isinstance(v, Tensor) and v.ndim and v.shape != parameter.shape]
        if bad:
            raise CheckpointError(f"{origin}: optimizer state {number}: expected shape {list(parameter.shape)}, "
                                  f"found {list(moments[bad[0]].shape)}")
    optimizer.load_state_dict(state)


def random_state() -> dict[str, Any]:
    """State of the global generators, as tensors and numbers only."""
    version, keys, gauss = random.getstate()
    kind, words, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(keys), gauss],
        "numpy": [kind, torch.from_numpy(words.astype(np.int64)), position, has_gauss, cached],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global generators where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), position, has_gauss, cached))


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """The checkpoints of a run: OUTPUT_DIR/checkpoints/checkpoint_epoch_%05d.pyth and checkpoint_best.pyth.

    Args:
        directory: OUTPUT_DIR/checkpoints. keep: how many numbered checkpoints stay.
    """

    directory: Path
    keep: int = 2

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation accuracy."""
        return self.directory / "checkpoint_best.pyth"

    def path(self, epoch: int) -> Path:
        """The file of the epoch-th save (from 1)."""
        return self.directory / f"checkpoint_epoch_{epoch:05d}.pyth"

    def numbered(self) -> list[Path]:
        """Numbered checkpoints, latest first."""
        if not self.directory.is_dir():
            return []
        return sorted((p for p in self.directory.iterdir() if _NAME.match(p.name)), reverse=True)

    def sweep(self) -> None:
        """Remove what writes that were killed half-way left behind."""
        if self.directory.is_dir():
            for stale in self.directory.glob(".checkpoint_*.tmp"):
                stale.unlink(missing_ok=True)

    def save(self, state: dict[str, Any]) -> Path:
        """Write the checkpoint of state["epoch"], then drop the oldest beyond `keep`."""
        path = self.path(state["epoch"])
        atomic_save(state, path)
        for old in self.numbered()[self.keep:]:
            old.unlink(missing_ok=True)
        return path

    def readable(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """(file, content) of the numbered checkpoints that can be read, latest first; damaged ones are named."""
        for path in self.numbered():
            try:
                yield path, read(path)
            except CheckpointError as error:
                _LOGGER.warning("%s; falling back to the checkpoint before it", error)
