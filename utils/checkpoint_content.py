"""Check a checkpoint part by part, so that an odd file is named instead of failing later."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.errors import CheckpointError

_Check = Callable[[Any], bool]


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _gradients_by_rank(value: Any) -> bool:
    return isinstance(value, list) and all(map(_tensors, value))


def _numbers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _number(v) for k, v in value.items())


def _texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(x, str) for pair in value.items() for x in pair)


def _windows(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, list) and all(type(x) in (int, float) for x in v)
        for k, v in value.items())


# Part of `resume`: (what it must be, in words; the check; whether files of earlier versions lack it).
_RESUME: dict[str, tuple[str, _Check, bool]] = {
    "iteration": ("a count", _count, False), "best": ("a number", _number, False),
    "best_iteration": ("a count", _count, False), "skipped": ("a count", _count, False),
    "selected_on": ("text", lambda value: isinstance(value, str), False),
    "seed": ("an integer", lambda value: type(value) is int, False),
    "gradients": ("tensors by name", _tensors, False), "lists": ("texts by split", _texts, False),
    "episodes": ("a count", _count, True), "rank_gradients": ("tensors by name, by rank", _gradients_by_rank, True),
    "scaler": ("numbers by name", _numbers, True), "validated": ("a count", _count, True),
    "window": ("lists of numbers by name", _windows, True),
}


def _optimizer(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    return isinstance(groups, list) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups) and all(
        isinstance(moments, Mapping) for moments in value["state"].values())


def _config(value: Any) -> bool:
    try:
        content = json.loads(value)
        return isinstance(content, dict) and isinstance(content.get("VIDEO", {}), dict) and isinstance(
            content.get("VIDEO", {}).get("HEAD", {}), dict)
    except (TypeError, ValueError):
        return False


def _kind(value: Any) -> str:
    """Describe a value in a few words."""
    return repr(value) if isinstance(value, (int, float, type(None))) else (
        f"text of {len(value)} characters" if isinstance(value, str) else type(value).__name__)


def check_content(state: Any, path: Path) -> None:
    """Raise CheckpointError naming the file and the first part that is not as expected.

    Weights must be there; `cfg` is checked where it is text, `resume` and what goes with it where it is there: a
    checkpoint of the published code, and one of weights alone, pass.
    """
    if not isinstance(state, dict) or not isinstance(state.get("model_state"), dict):
        keys = ", ".join(map(str, list(state)[:6])) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: expected a checkpoint with model_state, found {keys}")
    for name, value in state["model_state"].items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: model_state: {name}: expected a tensor, found {_kind(value)}")
    if "epoch" in state and not _count(state["epoch"]):
        raise CheckpointError(f"{path}: epoch: expected a count, found {_kind(state['epoch'])}")
    ours = "resume" in state
    if (ours or isinstance(state.get("cfg"), str)) and not _config(state.get("cfg")):
        raise CheckpointError(f"{path}: cfg: expected a configuration as JSON text, found {_kind(state.get('cfg'))}")
    if ours:
        _check_training(state, path)


def _check_training(state: dict[str, Any], path: Path) -> None:
    """Check the parts that a restart needs."""
    parts: list[tuple[str, str, _Check]] = [
        ("epoch", "a count", _count), ("optimizer_state", "state and param_groups", _optimizer),
        ("resume", "named parts", lambda value: isinstance(value, dict))]
    for name, words, check in parts:
        if not check(state.get(name)):
            raise CheckpointError(f"{path}: {name}: expected {words}, found {_kind(state.get(name))}")
    resume = state["resume"]
    for name, (words, check, optional) in _RESUME.items():
        if optional and name not in resume:
            continue
        if not check(resume.get(name)):
            raise CheckpointError(f"{path}: resume: {name}: expected {words}, found {_kind(resume.get(name))}")
