"""Distances of two frame sequences: `ALIGNMENTS["otam"](costs, smoothing=0.5, single_direction=False)`.

`otam` is plain PyTorch; `otam_triton` the same distance by Triton kernels on a GPU, where Triton can be imported. They
become the default once a GPU has shown them to be faster.
"""

from functools import partial

from models.layers.alignment.otam import otam_distance
from models.registries import ALIGNMENTS

ALIGNMENTS.register("otam")(partial(otam_distance, backend="plain"))
ALIGNMENTS.register("otam_triton")(otam_distance)

__all__ = ["ALIGNMENTS", "otam_distance"]
