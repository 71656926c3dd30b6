"""The tables that configuration names are looked up in."""

from utils.registry import Registry

ENCODERS: Registry = Registry("encoder")
MODULATORS: Registry = Registry("modulator")
ALIGNMENTS: Registry = Registry("alignment")
HEADS: Registry = Registry("head")
LOSSES: Registry = Registry("loss")
