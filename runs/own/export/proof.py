"""Proves that a bundle gives the numbers that torch gives: on noise, on the examples' features, on the examples.

The bundle is run by its own runner, recognise.py, from the files that a user gets.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.layers.exported import Exportable
from runs.own.actions import Actions
from runs.own.export.references import Examples, Runtime
from runs.own.learning import encode

TOLERANCE = 1e-4  # largest absolute difference between the bundle and torch
NOISE_BATCHES = (1, 3, 8)
PIXELS = "pixels"  # of a processor that rounds positions otherwise they may be further apart


@dataclass(slots=True)
class Proof:
    """Holds what was compared: the largest absolute differences by kind, and answers of clips that were held out.

    Args:
        differences: of features, references, distances, and of pixels where files were read again.
        changed: held-out answers that differ, of `held_out`. clips: examples whose features were compared.
        read: examples that were read again as pictures, by torch's way and by the runner's.
    """

    differences: dict[str, float] = field(default_factory=dict)
    changed: int = 0
    held_out: int = 0
    clips: int = 0
    read: int = 0

    def see(self, kind: str, expected: np.ndarray, found: np.ndarray) -> None:
        """Take the largest difference of two arrays into account; one that is no number counts as infinite."""
        apart = np.abs(np.asarray(expected, np.float64) - found)
        largest = float(apart.max(initial=0.0)) if np.isfinite(apart).all() else float("inf")
        self.differences[kind] = max(self.differences.get(kind, 0.0), largest)

    @property
    def holds(self) -> bool:
        """Gives whether every number is near enough and every answer the same; of pixels, what comes of them counts."""
        return not self.changed and all(value <= TOLERANCE for kind, value in self.differences.items()
                                        if kind != PIXELS)

    def __str__(self) -> str:
        return (", ".join(f"{kind} {value:.1e}" for kind, value in self.differences.items())
                + f"; answers of held-out clips that differ: {self.changed} of {self.held_out}")


def load_runner(directory: Path) -> Any:
    """Return the module recognise.py of a bundle."""
    spec = importlib.util.spec_from_file_location("recognise_of_bundle", directory / "recognise.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(directory / "recognise.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_runtime(made: Exportable) -> Runtime:
    """Return torch's own modules as a Runtime."""
    def call(module: torch.nn.Module, *arrays: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = module(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)).numpy()
            return found

    modulator = made.modulator
    return Runtime((lambda tokens: tokens) if modulator is None else lambda tokens: call(modulator, tokens),
                   lambda queries, references: call(made.compare, queries, references))


def noise(frames: int, side: int) -> Tensor:
    """Return pictures of noise, the same in every run. [frames, 3, S, S]"""
    return torch.randn(frames, 3, side, side, generator=torch.Generator().manual_seed(frames))


@torch.inference_mode()
def tower_features(actions: Actions, pixels_FCHW: Tensor) -> np.ndarray:
    """Return what torch's tower gives of frames, [F, D]."""
    found, = actions.model.head.encode(pixels_FCHW.unsqueeze(0)).values()
    array: np.ndarray = found[0].float().numpy()
    return array


def prove(actions: Actions, examples: Examples, made: Exportable, bundle: Any, static: bool) -> Proof:
    """Compare torch and a bundle on noise and on the features of the examples.

    Args:
        static: the modulator takes queries alone, so references that it would make are not compared with torch's anew.
    """
    proof, matcher, side = Proof(clips=len(examples.labels_N)), actions.matcher, actions.model.reading.pixels.crop
    for frames in NOISE_BATCHES:
        pixels = noise(frames, side)
        proof.see("features", tower_features(actions, pixels), bundle.features(pixels.numpy()))
    ours, theirs = torch_runtime(made), Runtime(bundle.modulated, bundle.distances)
    expected = examples.references(ours)
    proof.see("references", expected, bundle.references)
    makes = not static or made.modulator is None
    if makes:
        proof.see("references", expected, examples.references(theirs))
    queries = bundle.modulated(examples.frames_NTD)
    proof.see("distances", matcher.distances(matcher.features), bundle.of_actions(
        bundle.distances(queries, bundle.references)))
    held = actions.held_out
    found_nK = examples.held_out(held.clips_n, theirs if makes else Runtime(ours.modulate, theirs.compare))
    proof.see("distances", held.distances_nK, found_nK)
    proof.held_out = len(held.labels_n)
    proof.changed = int((held.distances_nK.argmin(axis=1) != found_nK.argmin(axis=1)).sum()) if len(found_nK) else 0
    return proof


def prove_clips(proof: Proof, actions: Actions, bundle: Any, paths: Sequence[Path], pictures_NTCHW: Tensor) -> None:
    """Compare torch and a bundle on clips themselves.

    Args:
        paths: of clips; a file is read by the runner, too. pictures_NTCHW: as this project reads them.
    """
    for path, pixels in zip(paths, pictures_NTCHW, strict=True):
        features = bundle.features(pixels.numpy())
        proof.see("features", tower_features(actions, pixels), features)
        expected = actions.matcher.distances(encode(actions.model, pixels))
        if path.is_file():
            read, _ = bundle.read(path)
            proof.see(PIXELS, pixels.numpy(), read)
            features = bundle.features(read)
        queries = bundle.modulated(features[None])
        proof.see("distances", expected, bundle.of_actions(bundle.distances(queries, bundle.references)))
        proof.read += 1
