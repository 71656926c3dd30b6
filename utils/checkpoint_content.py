"""Check a checkpoint part by part, so that an odd file is named instead of failing later."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import CheckpointError
from utils.foreign import parse_json

_Check = Callable[[Any], bool]


def _is(kind: type) -> _Check:
    return lambda value: isinstance(value, kind)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def is_plain(value: Any) -> bool:
    """Return whether a value is a tensor of real numbers that lies in memory, one after the other."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type != "meta" and not (
        value.is_quantized or value.is_complex() or value.is_nested)


def _figure(value: Any) -> bool:
    return type(value) in (int, float)


def _number(value: Any) -> bool:
    return _figure(value) and abs(value) < 1e300


def _list(item: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(item, value))


def _by_name(item: _Check) -> _Check:
    return lambda value: isinstance(value, Mapping) and all(isinstance(k, str) and item(v) for k, v in value.items())


def _optimizer(value: Any) -> bool:
    moments = _by_name(lambda moment: moment is None or _number(moment) or is_plain(moment))
    return isinstance(value, Mapping) and isinstance(value.get("state"), Mapping) and all(
        map(moments, value["state"].values())) and _list(
        lambda group: isinstance(group, Mapping) and _list(_count)(group.get("params")))(value.get("param_groups"))


def _config(value: Any) -> bool:
    try:
        content = parse_json(value)
        return all(isinstance(part, dict) for part in (content, content.get("TRAIN", {}), content.get("VIDEO", {}),
                                                       content.get("VIDEO", {}).get("HEAD", {})))
    except (AttributeError, TypeError, ValueError):
        return False


# Name of a part: (what it must be, in words; the check; whether a file may lack it).
_Parts = dict[str, tuple[str, _Check, bool]]
_CONFIG = "a configuration as JSON text"
_ANY: _Parts = {"epoch": ("a count", _count, True),
                "cfg": (_CONFIG, lambda value: not isinstance(value, str) or _config(value), True)}
_TRAINING: _Parts = {
    "epoch": ("a count", _count, False), "cfg": (_CONFIG, _config, False),
    "optimizer_state": ("state and param_groups", _optimizer, False), "resume": ("named parts", _is(dict), False)}
_RESUME: _Parts = {
    "iteration": ("a count", _count, False),
    "best": ("-1 to 1", lambda value: _figure(value) and -1 <= value <= 1, False),
    "best_iteration": ("a count", _count, False), "skipped": ("a count", _count, False),
    "selected_on": ("text", _is(str), False), "seed": ("an integer", lambda value: type(value) is int, False),
    "gradients": ("tensors by name", _by_name(is_plain), False),
    "lists": ("texts by split", _by_name(_is(str)), False),
    # Files of earlier versions lack these.
    "episodes": ("a count", _count, True), "validated": ("a count", _count, True),
    "rank_gradients": ("tensors by name, by rank", _list(_by_name(is_plain)), True),
    "scaler": ("numbers by name", _by_name(_number), True),
    "window": ("lists of numbers by name", _by_name(_list(_figure)), True),
}


def _kind(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor ({value.dtype}, {value.layout}, {value.device.type})"
    if isinstance(value, (int, float, type(None))) and not (isinstance(value, int) and abs(value) >= 2**63):
        return repr(value)
    return f"text of {len(value)} characters" if isinstance(value, str) else type(value).__name__


def _name(key: Any) -> str:
    return key[:80] if isinstance(key, str) else type(key).__name__


def _check_parts(found: Mapping[str, Any], parts: _Parts, origin: str) -> None:
    for name, (words, check, optional) in parts.items():
        if (name in found or not optional) and not check(found.get(name)):
            raise CheckpointError(f"{origin}: {name}: expected {words}, found {_kind(found.get(name))}")


def check_content(state: Any, path: Path) -> None:
    """Raise CheckpointError naming the file and the first part that is not as expected.

    Weights must be there; `cfg` is checked where it is text, `resume` and what goes with it where it is there: a
    checkpoint of the published code, and one of weights alone, pass.
    """
    if not isinstance(state, dict) or not isinstance(state.get("model_state"), dict):
        keys = ", ".join(map(_name, list(state)[:6])) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path}: expected a checkpoint with model_state, found {keys}")
    for name, value in state["model_state"].items():
        if not isinstance(name, str) or not is_plain(value):
            words = "a tensor" if isinstance(name, str) else "a name of a tensor"
            raise CheckpointError(f"{path}: model_state: {_name(name)}: expected {words}, found {_kind(value)}")
    _check_parts(state, _TRAINING if "resume" in state else _ANY, str(path))
    if "resume" in state:
        _check_parts(state["resume"], _RESUME, f"{path}: resume")
