"""Apply TRAIN.PRECISION, what a training step computes in. Validation and test are float32 always.

fp32: float32 throughout, also where a GPU would round the factors of products to TF32 by default (its convolutions).
tf32: matrix products and convolutions of a GPU round their factors to 10 bits of mantissa; no effect on a CPU.
bf16, fp16: autocast; parameters, their gradients and the alignment stay float32. fp16's gradients are scaled.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_tf32(on: bool) -> None:
    """Say whether float32 products on a GPU may be computed in TF32, from here on."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


@contextmanager
def products_of(precision: str) -> Iterator[None]:
    """Compute products in TF32 in this block, forward and backward, if `precision` is tf32; then as before."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(precision == "tf32")
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context of a forward pass."""
    return torch.autocast(device.type, dtype=_AUTOCAST.get(precision), enabled=precision in _AUTOCAST)


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return a scaler that keeps fp16's small gradients above zero; for other precisions it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
