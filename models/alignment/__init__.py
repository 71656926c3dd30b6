"""Distances of two frame sequences: `ALIGNMENTS["otam"](costs, smoothing=0.5, single_direction=False)`."""

from models.alignment.otam import otam_distance
from models.registries import ALIGNMENTS

ALIGNMENTS.register("otam")(otam_distance)

__all__ = ["ALIGNMENTS", "otam_distance"]
