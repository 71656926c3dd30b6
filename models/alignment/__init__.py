"""Distances of two frame sequences: `ALIGNMENTS["otam"](costs, smoothing=0.5, single_direction=False)`.

`otam` chooses between plain PyTorch and Triton kernels; `otam_plain` is the same distance without the kernels.
"""

from functools import partial

from models.alignment.otam import otam_distance
from models.registries import ALIGNMENTS

ALIGNMENTS.register("otam")(otam_distance)
ALIGNMENTS.register("otam_plain")(partial(otam_distance, backend="plain"))

__all__ = ["ALIGNMENTS", "otam_distance"]
