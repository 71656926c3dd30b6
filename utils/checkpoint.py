"""Write checkpoints whole or not at all, under the published names and keys; read them strictly, without running code.

A file is {epoch, model_state, optimizer_state, cfg (JSON text)} as published, plus `resume`: what an exact restart
needs (iteration, best so far, gradients under way, figures of the last iterations). The published loader ignores
`resume`. No state of a random generator is kept: every draw of a run is derived from (seed, purpose, index). Files of
earlier versions hold one, `random`, which is ignored.
"""

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils import torch_files
from utils.checkpoint_content import check_content, is_plain
from utils.errors import CheckpointError, DiskError
from utils.files import free_text, whole_file
from utils.foreign import regular, stranger, told
from utils.logging import warn_once

_NAME = re.compile(r"^checkpoint_epoch_(\d{5,})\.pyth$")
_WRAPPED = re.compile(r"^((module|_orig_mod)\.)+|_orig_mod\.")
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]*\w)")
SHOWN = 8  # names in a message
_LOGGER = logging.getLogger(__name__)


def atomic_save(state: dict[str, Any], path: Path) -> None:
    """Write a file so that its name only ever shows the old or the new whole content.

    Raises CheckpointError when the disk refuses (the file of that name, if any, is left as it was).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            torch_files.save(state, part)
    except (OSError, RuntimeError, DiskError) as error:
        raise CheckpointError(f"{path}: {_refusal(state, path.parent, error)}") from error


def state_bytes(value: Any) -> int:
    """Return the bytes of the tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(state_bytes, parts))


def _refusal(state: dict[str, Any], directory: Path, error: BaseException) -> str:
    """Say why a checkpoint was not written. torch hides the system's reason behind one of its own."""
    reason: BaseException | None = error
    while reason is not None and not isinstance(reason, OSError):
        reason = reason.__cause__ or reason.__context__
    text = f"could not be written ({reason.strerror if reason else 'the file system refused'}); it takes about " \
           f"{state_bytes(state) / 2**20:,.1f} MiB{free_text(directory)}"
    before = CheckpointStore(directory).latest()
    return f"{text}. " + (f"{before.name}, saved before, is untouched" if before else "No checkpoint was saved before")


def read(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's content. Raises CheckpointError naming a file that is missing, damaged or no checkpoint."""
    path = Path(path)
    regular(path, CheckpointError, absent="no such checkpoint")
    try:
        state: dict[str, Any] = torch_files.load(path, CheckpointError)
    except Exception as error:
        raise CheckpointError(f"{path}: {unreadable(error, path)}") from error
    check_content(state, path)
    return state


def unreadable(error: BaseException, path: Path, what: str = "checkpoint") -> str:
    """Say why a file cannot be read. torch's own text is left out: it advises to load the file by running its code."""
    if found := _FORBIDDEN.search(str(error)):
        return (f"refused: it names {found.group(1)}, and reading that could run code; expected tensors, numbers and "
                "text only")
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    why = stranger(path) or (str(error) if isinstance(error, torch_files.Damaged) else "")
    return (f"damaged, or no {what}: expected a file of torch.save with tensors, numbers and text"
            + (f", found {why}" if why else ""))


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by their names in the module, without what data parallelism and torch.compile put before them."""
    return {_WRAPPED.sub("", name): value for name, value in state.items()}


def misfits(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Say in which names, shapes and kinds of numbers the tensors of a file differ from a module's; "": they fit."""
    texts = [*(f"missing {n} {list(v.shape)}" for n, v in own.items() if n not in found),
             *(f"unexpected {n} {list(v.shape)}" for n, v in found.items() if n not in own),
             *(f"{n}: expected shape {list(own[n].shape)}, found {list(v.shape)}"
               for n, v in found.items() if n in own and own[n].shape != v.shape),
             *(f"{n}: expected numbers of {own[n].dtype}, found {v.dtype}, {str(v.layout)} on {v.device}"
               for n, v in found.items() if n in own and not (
                   is_plain(v) and v.is_floating_point() == own[n].is_floating_point()))]
    return "; ".join(texts[:SHOWN]) + (f" (and {len(texts) - SHOWN} more)" if len(texts) > SHOWN else "")


def load_model_state(model: nn.Module, state: dict[str, Tensor], origin: str | Path) -> None:
    """Fit `model_state` strictly. Raises CheckpointError that lists missing, unexpected and misshapen names."""
    own, found = model.state_dict(), plain_names(state)
    if problems := misfits(own, found):
        raise CheckpointError(f"{origin}: does not fit this model: {problems}")
    if other := sorted({str(v.dtype) for n, v in found.items() if v.dtype != own[n].dtype}):
        _LOGGER.warning("%s: holds weights of %s, which are taken as they are, with fewer digits or more", origin,
                        ", ".join(other))
    model.load_state_dict(found)


def load_weights(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Read a checkpoint and fit its weights; returns its content."""
    state = read(path)
    load_model_state(model, state["model_state"], path)
    return state


def _alike(own: Any, found: Any) -> bool:
    """Return whether a value of a file is a number, a list of as many numbers, or of the type that the own one is."""
    if isinstance(own, (tuple, list)):
        return isinstance(found, (tuple, list)) and len(own) == len(found) and all(map(_alike, own, found))
    return isinstance(found, (int, float) if isinstance(own, (int, float)) else type(own))


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any], origin: str | Path) -> None:
    """Fit `optimizer_state` (groups in the published order). Raises CheckpointError when sizes or shapes differ."""
    own = [len(group["params"]) for group in optimizer.param_groups]
    found = [len(group["params"]) for group in state["param_groups"]]
    if own != found:
        raise CheckpointError(f"{origin}: optimizer groups: expected {own} parameters, found {found}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [i for group in state["param_groups"] for i in group["params"]]
    needed = {"step", "exp_avg", "exp_avg_sq"} if "betas" in optimizer.defaults else set()
    for parameter, number in zip(parameters, numbers, strict=True):
        moments = state["state"].get(number, {})
        if moments and not needed <= set(moments):
            raise CheckpointError(f"{origin}: optimizer state {number}: expected {', '.join(sorted(needed))}, found "
                                  f"{', '.join(moments)}")
        for name, moment in moments.items():
            shape = [] if name == "step" else list(parameter.shape)
            if moment is not None and list(torch.as_tensor(moment).shape) != shape:
                raise CheckpointError(f"{origin}: optimizer state {number}: expected shape {shape}, "
                                      f"found {list(torch.as_tensor(moment).shape)}")
    # How the update is computed is this run's choice, not the file's.
    chosen = [{name: group[name] for name in ("fused", "foreach") if name in group} for group in optimizer.param_groups]
    groups = [{**mine, **group, **how}
              for mine, group, how in zip(optimizer.param_groups, state["param_groups"], chosen, strict=True)]
    for mine, group in zip(optimizer.param_groups, groups, strict=True):
        if wrong := [name for name, value in mine.items() if name != "params" and not _alike(value, group[name])]:
            raise CheckpointError(f"{origin}: optimizer groups: {wrong[0]}: expected a value such as {mine[wrong[0]]}")
    with told(CheckpointError, Path(origin), "an optimizer's state"):
        optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, moments in optimizer.state.items():  # the file may be of a run with another memory format
        moments.update({name: torch.empty_like(parameter, dtype=value.dtype).copy_(value)
                        for name, value in moments.items() if isinstance(value, Tensor) and value.ndim})


def load_gradients(model: nn.Module, gradients: dict[str, Tensor], origin: str | Path) -> None:
    """Put back gradients that were adding up. Raises CheckpointError when one fits no parameter."""
    parameters = dict(model.named_parameters())
    for name, gradient in gradients.items():
        expected = list(parameters[name].shape) if name in parameters else "no such parameter"
        if expected != list(gradient.shape):
            raise CheckpointError(f"{origin}: resume: gradients: {name}: expected {expected}, "
                                  f"found shape {list(gradient.shape)}")
    for name, parameter in parameters.items():
        parameter.grad = torch.empty_like(parameter).copy_(gradients[name]) if name in gradients else None


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """Keep the checkpoints of a run in OUTPUT_DIR/checkpoints.

    checkpoint_epoch_%05d.pyth: after each validation, numbered from 1 (the published name and meaning).
    checkpoint_best.pyth: the one of these with the best validation accuracy.
    checkpoint_last.pyth: the state between two validations, while it is further along than the numbered ones.

    `keep` numbered checkpoints stay.
    """

    directory: Path
    keep: int = 2

    @property
    def best(self) -> Path:
        """Return the file of the best checkpoint, which need not exist."""
        return self.directory / "checkpoint_best.pyth"

    @property
    def last(self) -> Path:
        """Return the file of the state between two validations, which need not exist."""
        return self.directory / "checkpoint_last.pyth"

    def path(self, epoch: int) -> Path:
        """Return the file after the epoch-th validation (from 1)."""
        return self.directory / f"checkpoint_epoch_{epoch:05d}.pyth"

    def numbered(self) -> list[Path]:
        """Return the numbered checkpoints, latest first."""
        return [path for _, path in self._numbered()]

    def _numbered(self) -> list[tuple[int, Path]]:
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(((int(name[1]), path) for path in found if (name := _NAME.match(path.name)) and path.is_file()),
                      reverse=True)

    def states(self) -> list[Path]:
        """Return every file a run can go on from, the numbered ones latest first."""
        return [*([self.last] if self.last.is_file() else []), *self.numbered()]

    def latest(self) -> Path | None:
        """Return the state that was written last."""
        return max(self.states(), key=lambda p: p.stat().st_mtime_ns, default=None)

    def sweep(self) -> None:
        """Remove what killed writes left behind; only for a process that has OUTPUT_DIR's lock."""
        for stale in self.directory.glob(".checkpoint_*.tmp"):
            stale.unlink(missing_ok=True)

    def room_missing(self, one: int) -> str:
        """Return a warning if the disk cannot hold keep + 3 checkpoints of `one` bytes (the numbered ones, the best,
        the last, and one being written), else an empty string."""
        need = one * (self.keep + 3) - sum(path.stat().st_size for path in self.directory.glob("*.pyth"))
        place = next(parent for parent in (self.directory, *self.directory.absolute().parents) if parent.is_dir())
        free = shutil.disk_usage(place).free
        if need <= free:
            return ""
        return (f"{self.directory}: the checkpoints may take {need / 2**20:,.1f} MiB more ({one / 2**20:,.1f} MiB "
                f"each, TRAIN.KEEP_CHECKPOINTS {self.keep}), {free / 2**20:,.1f} MiB are free: the run may end for "
                "want of room")

    def save(self, state: dict[str, Any]) -> Path:
        """Write the checkpoint of state["epoch"], then drop what it supersedes and the oldest beyond `keep`."""
        path = self.path(state["epoch"])
        atomic_save(state, path)
        self.last.unlink(missing_ok=True)
        for old in self.numbered()[self.keep:]:
            old.unlink(missing_ok=True)
        return path

    def save_between(self, state: dict[str, Any]) -> Path:
        """Write the state between two validations."""
        atomic_save(state, self.last)
        return self.last

    def readable(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield (file, content) of the states that can be read, furthest along first, and warn about damaged ones."""
        last = self._try(self.last) if self.last.is_file() else None
        for number, path in self._numbered():
            if last and last.get("epoch", 0) >= number:
                yield self.last, last
                last = None
            if state := self._try(path):
                yield path, state
            elif self.best.is_file() and (best := self._try(self.best)) and best.get("epoch", 0) >= number:
                yield self.best, best
        if last:
            yield self.last, last

    def _try(self, path: Path) -> dict[str, Any] | None:
        try:
            return read(path)
        except CheckpointError as error:
            earlier = "falling back to the state before it" if len(self.states()) > 1 else "there is no other"
            warn_once(_LOGGER, f"{error}; {earlier}")
            return None
