"""Keep Python from looking for garbage while a great many objects are made that all stay."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(loads: str | None = None) -> Iterator[None]:
    """Have no cycles of garbage looked for inside the block: imports of torch's size and long lists make none, and the
    search goes through all that is there again and again, which takes a third of a start. It goes on after the block.

    Args:
        loads: a large module that the block imports. The first time, what is there by the block's end lives as long as
            the process, and is not looked through afterwards either.
    """
    first, enabled = loads is not None and loads not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if first:
            gc.freeze()
        if enabled:
            gc.enable()
