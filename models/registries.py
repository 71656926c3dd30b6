"""The tables that configuration names are looked up in."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from models.encoders.base import EncoderBuilder
from utils.registry import Registry

ENCODERS: Registry[EncoderBuilder] = Registry("encoder")
MODULATORS: Registry[Callable[[int, int], nn.Module]] = Registry("modulator")
ALIGNMENTS: Registry[Callable[..., Tensor]] = Registry("alignment")
HEADS: Registry[type[nn.Module]] = Registry("head")
LOSSES: Registry[Callable[..., Any]] = Registry("loss")
