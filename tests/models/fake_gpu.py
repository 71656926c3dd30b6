"""A GPU that is not there: tensors on it have shapes, types and a device, but no numbers.

What a real one would refuse, wait for, or compute in too few bits is an error here. It has no backward pass.
"""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils.host_copy import HostCopy

CUDA = torch.device("cuda", 0)
HALF = (torch.float16, torch.bfloat16)
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "dot", "convolution"}
MOVING = {"_to_copy", "clone", "copy_", "cat", "stack", "index", "detach", "_unsafe_view"}  # they compute nothing


def _tensors(tree) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor)]


class _Python(TorchFunctionMode):
    """Knows whether the caller is under autocast, which operations cannot see."""

    autocast = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.autocast = torch.is_autocast_enabled("cuda")
        return func(*args, **(kwargs or {}))


class _Strict(TorchDispatchMode):
    """Refuses copies that are waited for, several devices or types together, and half precision outside autocast."""

    def __init__(self, python: _Python):
        super().__init__()
        self.python = python

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        found = func(*args, **kwargs)
        given, made = _tensors((args, kwargs)), _tensors(found)
        if name in ("_to_copy", "copy_"):
            devices = {one.device.type for one in (*given, *made)}
            free = len(devices) == 1 or kwargs.get("non_blocking") or args[2:] == (True,)
            assert free, f"{func}: a copy that is waited for"
        else:
            devices = {one.device.type for one in (*given, *made) if one.ndim}
            assert len(devices) < 2, f"{func}: tensors on {' and '.join(sorted(devices))}"
        kinds = {one.dtype for one in given}
        assert name not in PRODUCTS or len(kinds) == 1, f"{func}: factors of several types, {kinds}"
        if not (self.python.autocast or func.is_view or name in MOVING):
            low = [str(one.dtype) for one in made if one.dtype in HALF]
            assert not low, f"{func}: computes in {low[0]} where autocast is off"
        return found


def _gone(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


def to_gpu(model: nn.Module) -> None:
    """Replace parameters and buffers, in place, by such without numbers on the GPU."""
    for module in model.modules():
        for name, own in module._parameters.items():
            module._parameters[name] = None if own is None else nn.Parameter(_gone(own), own.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else _gone(buffer)


def moved(item):
    """The item with its tensors on the GPU."""
    return item._with(_gone)


@contextmanager
def fake_gpu():
    """Have one in this block. Host copies read as zeros, and backward passes do nothing; yields what was noted."""
    python, notes = _Python(), []
    stream = SimpleNamespace(record_event=lambda: notes.append("event"))

    def read(copy: HostCopy):
        notes.append("read")
        assert copy._copy.device.type == "cpu"
        return SimpleNamespace(flatten=lambda: SimpleNamespace(tolist=lambda: [0.0] * copy._copy.numel()))

    with ExitStack() as stack:
        for owner, name, value in (
                (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
                (torch.cuda, "is_bf16_supported", lambda *_: True),
                (torch.cuda, "current_stream", lambda device: stream),
                (Tensor, "backward", lambda loss: notes.append("backward")), (HostCopy, "read", read)):
            stack.enter_context(patch.object(owner, name, value))
        for mode in (FakeTensorMode(), _Strict(python), python):
            stack.enter_context(mode)
        yield notes
