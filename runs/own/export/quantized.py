"""Makes a tower of 8-bit weights for processors that are slow with floats, and measures what that changes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runs.own.export.modules import quietly
from runs.own.export.proof import NOISE_BATCHES, noise
from runs.own.export.references import Examples, Runtime
from utils.errors import ExportError

TOWER, INT8 = "tower.onnx", "tower_int8.onnx"
PRODUCTS, LEAST_SHARE = ("MatMul", "Gemm"), 0.5


def _share_of_products(path: Path) -> float:
    """Return the share of a file's weights that stand in matrix products."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    sizes = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer}
    used = {name for node in model.graph.node if node.op_type in PRODUCTS for name in node.input}
    return sum(size for name, size in sizes.items() if name in used) / max(1, sum(sizes.values()))


def takes_int8(directory: Path) -> bool:
    """Return whether most of the tower's weights stand in matrix products."""
    return _share_of_products(directory / TOWER) >= LEAST_SHARE


def write_int8(directory: Path) -> None:
    """Write the tower of 8-bit weights beside the other. Raises ExportError where it is made of convolutions."""
    if not takes_int8(directory):
        share = _share_of_products(directory / TOWER)
        raise ExportError(f"--int8 changes matrix products, which hold {100 * share:.0f} % of this tower's weights: "
                          "expected a ViT, found a tower of convolutions")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quietly():
        quantize_dynamic(str(directory / TOWER), str(directory / INT8), op_types_to_quantize=["MatMul"],
                         weight_type=QuantType.QInt8, per_channel=True)


@dataclass(frozen=True, slots=True)
class Change:
    """Holds what 8-bit weights change.

    Args:
        lowest, mean: cosine of a frame's features with those of the tower of floats. of: the frames, in words.
        changed: held-out answers that differ, of how many; None: nothing to measure them on.
    """

    lowest: float
    mean: float
    of: str
    changed: tuple[int, int] | None

    def __str__(self) -> str:
        answers = ("how many answers change is not known: a pack holds no pictures, --support DIR does"
                   if self.changed is None else
                   f"{self.changed[0]} of {self.changed[1]} answers of held-out clips change")
        return (f"{INT8}: not equal to torch. Cosine with the features of floats: lowest {self.lowest:.4f}, mean "
                f"{self.mean:.4f}, over {self.of}; {answers}.")


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


def measured(floats: Any, eights: Any, side: int, pictures: np.ndarray | None, examples: Examples,
             clips_n: np.ndarray) -> Change:
    """Measure two bundles that differ by their tower.

    Args:
        pictures: of the examples, [N, T, 3, S, S]; None: noise is taken.
        clips_n: clips that are held out; references are made of the features of floats, as the runner has them.
    """
    batches = [noise(frames, side).numpy() for frames in NOISE_BATCHES] if pictures is None else list(pictures)
    wholes, parts = [floats.features(one) for one in batches], [eights.features(one) for one in batches]
    cosines = _cosines(np.concatenate(wholes), np.concatenate(parts))
    changed = None
    if pictures is not None:
        answers = []
        for features in (wholes, parts):
            asked = np.stack(features)
            found = examples.held_out(clips_n, Runtime(floats.modulated, floats.distances), asked)
            answers.append(found.argmin(axis=1) if len(found) else np.zeros(0))
        changed = (int((answers[0] != answers[1]).sum()), len(clips_n))
    what = "noise" if pictures is None else "the examples"
    return Change(float(cosines.min()), float(cosines.mean()), f"{len(cosines)} frames of {what}", changed)
