"""The tables that configuration names are looked up in."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.encoders.base import EncoderBuilder
from utils.registry import Registry

if TYPE_CHECKING:
    from models.heads.base import Head

ENCODERS: Registry[EncoderBuilder] = Registry("encoder", "models/encoders/")
MODULATORS: Registry[Callable[[int, int], nn.Module]] = Registry("modulator", "models/layers/modulator.py")
ALIGNMENTS: Registry[Callable[..., Tensor]] = Registry("alignment", "models/layers/alignment/")
HEADS: "Registry[type[Head]]" = Registry("head", "models/heads/")
