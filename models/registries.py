"""The tables that configuration names are looked up in."""

from typing import Any

from utils.registry import Registry

ENCODERS: Registry[Any] = Registry("encoder", "models/encoders/")
MODULATORS: Registry[Any] = Registry("modulator", "models/layers/modulator.py")
ALIGNMENTS: Registry[Any] = Registry("alignment", "models/layers/alignment/")
HEADS: Registry[Any] = Registry("head", "models/heads/")
LOSSES: Registry[Any] = Registry("loss", "models/losses.py")
