"""Watch which operations run, and where numbers are read by the host, which waits for a GPU there."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# What a GPU must be waited for: the value itself, or a shape that depends on it.
READING = {"_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero", "masked_select", "unique_dim", "_unique2",
           "unique_consecutive", "bincount", "histc", "repeat_interleave.Tensor", "linalg_eigvals"}
READERS = {Tensor.tolist: "tolist", Tensor.cpu: "cpu", Tensor.numpy: "numpy"}  # on the CPU they dispatch nothing


class Watch(TorchDispatchMode):
    """Notes each operation as (name, whether it reads, whether it is of a backward pass)."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[str, bool, bool]] = []
        self._python = _Python(self)

    def note(self, name: str, reads: bool) -> None:
        self.seen.append((name, reads, torch._C._current_graph_task_id() != -1))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        of_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1])
        self.note(name, of_mask or bool({name, f"{name}.{func._overloadname}"} & READING))
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        self._python.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._python.__exit__(*error)

    def reads(self, first: int = 0, last: int | None = None) -> list[str]:
        return [name for name, reads, _ in self.seen[first:last] if reads]


class _Python(TorchFunctionMode):
    """Notes what reads a tensor without an operation."""

    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in READERS:
            self.watch.note(READERS[func], True)
        return func(*args, **(kwargs or {}))
