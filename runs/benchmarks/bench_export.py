"""Measures an exported tower against torch, one thread each, and how long the packages of its runner take to import.

Weights are random: they are as fast as any. 8-bit weights are measured where a tower takes them (a ViT).
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.encoders.clip import build_visual, tower_config
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.timing import Work, least_in_turns, new_python, threads
from runs.benchmarks.towers import SMALL_VIT
from runs.own.export.modules import Part, check_installed, write_part
from runs.own.export.quantized import INT8, TOWER, takes_int8, write_int8

SMALL = "small"  # a ViT of 4 layers, for --quick
RUNNER, TORCH = "import numpy, onnxruntime, av", "import torch"


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite."""
    return {"backbones": [SMALL] if quick else ["RN50", "ViT-B/16"], "frames": 2 if quick else 8,
            "rounds": 2 if quick else 5, "repeats": 1 if quick else 2}


def _tower(name: str) -> tuple[nn.Module, int]:
    config: Mapping[str, Any] = SMALL_VIT if name == SMALL else tower_config(name)
    torch.manual_seed(0)
    return build_visual(config).eval(), config["vision_cfg"]["image_size"]


def by_onnxruntime(path: Path, frames_FCHW: np.ndarray) -> Work:
    """Return a pass of an exported tower, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"frames": frames_FCHW})


def _of_tower(name: str, frames: int, rounds: int, repeats: int) -> list[Row]:
    """Return the ratios of one tower."""
    tower, side = _tower(name)
    pixels = torch.randn(frames, 3, side, side)
    with tempfile.TemporaryDirectory() as folder, threads(1), torch.inference_mode():
        root = Path(folder)
        with torch.inference_mode(False):
            example = torch.randn(3, 3, side, side)  # of one frame, one would be taken for a fixed size
            write_part(Part("tower", tower, {"frames": (example, ["n"])}, "features"), root, pt2=False)
        works: dict[str, Work] = {"torch": lambda: tower(pixels),
                                  "bundle": by_onnxruntime(root / TOWER, pixels.numpy())}
        if takes_int8(root):
            write_int8(root)
            works["bundle of 8-bit weights"] = by_onnxruntime(root / INT8, pixels.numpy())
        times = list(least_in_turns(tuple(works.values()), rounds, repeats))
    return [Row(f"{name}, {frames} frames, one thread: {work} against torch", "times",
                [turn[0] / turn[place] for turn in times]) for place, work in enumerate(works) if place]


def measure(done: Done = silent, *, backbones: list[str], frames: int, rounds: int, repeats: int) -> list[Row]:
    """Return the ratios of each tower, and of the imports. Raises ExportError where packages are missing."""
    check_installed()
    rows = []
    for place, name in enumerate(backbones, start=1):
        rows += _of_tower(name, frames, rounds, repeats)
        done(place / (len(backbones) + 1))
    times = list(least_in_turns((new_python("-c", TORCH), new_python("-c", RUNNER)), rounds, repeats))
    return [*rows, Row("import of the runner's packages against torch's", "%",
                       [100 * runner / whole for whole, runner in times], LOWER)]
