"""Writes the files of a bundle into a folder of another name, which gets its own once all of them are proved.

K actions, N clips, R references, T frames, D features, S side of a picture.
"""

import json
import os
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from models.heads.base import Head
from models.layers.exported import Exportable
from models.registries import HEADS
from runs.own.actions import Actions
from runs.own.calibration import Wishes
from runs.own.clips import content_hash
from runs.own.export.modules import Part
from runs.own.export.references import Examples
from runs.own.learning import pack_of
from runs.own.matching import Matcher
from runs.own.predicting import model_facts
from runs.own.results import FORMAT
from runs.own.timeline import shares_frames
from utils.errors import ExportError
from utils.files import give_name, refusals

ACTIONS, FACTS, RUNNER, CHECK = "actions.safetensors", "bundle.json", "recognise.py", "CHECK.txt"
RECOGNISE = Path(__file__).with_name(RUNNER)  # it needs packages that may not be here, so it is not imported
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "av")
RESIZE = ("float32 0..1; bilinear to exactly `size` (half-pixel centres, no antialias, aspect ratio not kept); the "
          "middle `crop` x `crop`; (x - mean) / std")


def exportable(actions: Actions) -> Exportable:
    """Return what is done behind the tower. Raises ExportError where the head or the scoring cannot be exported."""
    head, wanted = actions.model.head, actions.model.scoring
    made = head.exportable(wanted)
    if made is not None and shares_frames(head):
        return made
    can = [one.name for one in head.scorings if head.exportable(one.name) is not None]
    if can and shares_frames(head):
        raise ExportError(f"--scoring {wanted}: of {head.title}, expected one that can be exported: {', '.join(can)}")
    heads = [name for name in HEADS if HEADS[name].exportable is not Head.exportable]
    raise ExportError(f"{head.title} cannot be exported: expected a head that can ({', '.join(heads)}) with a tower "
                      "that sees frames one by one")


def examples_of(matcher: Matcher, made: Exportable) -> Examples:
    """Return the clips of actions, as a bundle makes references of them."""
    frames, = matcher.features.values()
    text = matcher.text_KD if made.text else None
    return Examples(frames.numpy(), matcher.labels_N.numpy(), None if text is None else text.float().numpy(),
                    made.merge)


def parts_of(actions: Actions, made: Exportable, references: int, static: bool) -> list[Part]:
    """Return the modules, with example inputs of the sizes that are kept where `static`."""
    model = actions.model
    T, side, D = model.reading.frames, model.reading.pixels.crop, model.head.dim
    few, clips, count = (T, 1, references) if static else (3, 2, 3)
    parts = [Part("tower", model.head.backbone, {"frames": (torch.randn(few, 3, side, side), [] if static else ["n"])},
                  "features")]
    width = T
    if made.modulator is not None:
        tokens = torch.randn(clips, T if static else T + 1, D)
        width = made.modulator(torch.randn(1, T, D)).shape[1]
        varying = [] if static else ["b", "l"]
        parts.append(Part("modulator", made.modulator, {"tokens": (tokens, varying)}, "modulated"))
    parts.append(Part("align", made.compare, {
        "queries": (torch.randn(clips, width, D), [] if static else ["m"]),
        "references": (torch.randn(count, width, D), [] if static else ["k"])}, "distances"))
    return parts


def facts_of(actions: Actions, examples: Examples, made: Exportable, wishes: Wishes, static: bool) -> dict[str, Any]:
    """Return what bundle.json says, without the files' sums."""
    model, check = actions.model, actions.check(wishes)
    pixels = model.reading.pixels
    return {
        "bundle": FORMAT, "format": FORMAT, "model": model_facts(model), **check.to_dict(),
        "identity": dict(model.facts), "source": dict(model.source), "frames": model.reading.frames,
        "dim": model.head.dim, "static": static, "merge": made.merge,
        "pixels": {"size": list(pixels.frame_size), "crop": pixels.crop, "mean": list(pixels.mean),
                   "std": list(pixels.std), "resize": RESIZE},
        "taken": "frame (2 t + 1) n // (2 T) of n, t = 0 .. T - 1", "references": examples.reference_labels.tolist(),
        "clips": [{"name": one.clip.name, "sha256": one.clip.sha256} for one in actions.clips],
        "usual": {"seconds": actions.median_seconds, "aspect": statistics.median(
            one.clip.size[1] / one.clip.size[0] for one in actions.clips)},
        "versions": {name: version(name) for name in PACKAGES}}


def write_actions(actions: Actions, references_RTD: np.ndarray, path: Path) -> None:
    """Write the pack with the references."""
    pack_of(actions.model, [*actions.clips, *actions.of_none], actions.texts, actions.text_KD, actions.model.source
            ).save(path, {"references": torch.from_numpy(np.ascontiguousarray(references_RTD))})


def write_facts(directory: Path, facts: dict[str, Any]) -> None:
    """Write bundle.json with the sums of the other files that are there."""
    names = sorted(path.name for path in directory.iterdir() if path.is_file() and path.name not in (FACTS, CHECK))
    sums = {name: content_hash(directory / name) for name in names}
    (directory / FACTS).write_text(json.dumps(facts | {"files": sums}, indent=1, ensure_ascii=False, default=_plain)
                                   + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return asdict(value)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder to write to, which gets the name `path` at the end of the block; else nothing is left.

    Raises ExportError where something is there already, DiskError.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ExportError(f"--out {path}: expected a folder that is not there yet, or empty, found "
                          + ("a folder with files" if path.is_dir() else "a file"))
    for left in path.parent.glob(f".{path.name}.*.part"):  # of an export that was killed
        number = left.name.split(".")[-2]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with refusals(path):
        part.mkdir(parents=True)
        try:
            yield part
            give_name(part, path)
        finally:
            with suppress(OSError):
                shutil.rmtree(part)
