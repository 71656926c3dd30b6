"""A module can take the place of another under the same state names and with the same parameters."""

from collections.abc import Callable

from torch import nn


def replace_modules(model: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace every module below `model` for which `make` gives another one.

    A module that stands in several places is replaced by one and the same. `make` hands parameters, buffers and
    children on, so that names, order and identity of the parameters stay as they are.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if not path:
            continue
        if module not in made:
            made[module] = make(module)
        parent, _, name = path.rpartition(".")
        if (new := made[module]) is not None:
            setattr(model.get_submodule(parent), name, new)
