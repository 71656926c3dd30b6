"""Measures encoding clips as an evaluation on the CPU does it against calling the head as training leaves it, in turns.

One clip a pass, random pixels and weights; "plain" is the head in evaluation mode, with TRAIN.CHANNELS_LAST as a run
has it. --rivals: what else could encode, beside them, and what each takes to start.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.builder import build_model
from models.heads.base import Head
from models.inference import for_evaluation
from runs.benchmarks.bench_export import by_onnxruntime
from runs.benchmarks.rows import LOWER, NEITHER, Done, Row, silent
from runs.benchmarks.steps import StepOptions, configuration, overrides
from runs.benchmarks.timing import Work, least_in_turns, threads, timed
from runs.own.export.modules import Part, check_installed, write_part
from runs.own.export.quantized import TOWER

CPU = torch.device("cpu")


def _onnxruntime(head: Head, clip: torch.Tensor) -> Work:
    """Return a pass of the tower by onnxruntime, as own clips are exported. Raises ExportError."""
    check_installed()
    with tempfile.TemporaryDirectory() as folder:
        write_part(Part("tower", head.backbone, {"frames": (clip[0], [])}, "features"), Path(folder), False)
        return by_onnxruntime(Path(folder) / TOWER, clip[0].numpy())


def _compiled(head: Head, clip: torch.Tensor) -> Work:
    """Return a pass of the compiled tower, its weights frozen into the code."""
    import torch._inductor.config as settings

    frames, tower = clip[0], torch.compile(head.backbone, dynamic=False)

    def work() -> None:
        with settings.patch(freezing=True):
            tower(frames)

    work()
    return work


RIVALS: dict[str, Callable[[Head, torch.Tensor], Work]] = {"onnxruntime": _onnxruntime, "compile": _compiled}


def works_of(backbone: str, rivals: bool) -> tuple[dict[str, Work], dict[str, float]]:
    """Return passes of one clip by name, and the seconds that each took to make."""
    options = StepOptions(backbone=backbone)
    with tempfile.TemporaryDirectory() as scratch:
        cfg = configuration(options, overrides(options), Path(scratch))
        head, size = build_model(cfg).eval().head, cfg.DATA.TEST_CROP_SIZE
    clip = torch.randn(1, options.frames, 3, size, size, generator=torch.Generator().manual_seed(0))
    took = {}
    took["as it is"], faster = timed(partial(for_evaluation, head, CPU, (options.frames, size)))
    made: dict[str, Work] = {"plain": lambda: head.encode(clip), "as it is": lambda: faster.encode(clip)}
    for name in RIVALS if rivals else ():
        took[name], made[name] = timed(partial(RIVALS[name], head, clip))
    return made, took


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite."""
    return {"backbones": ["small"] if quick else ["RN50", "ViT-B/16"], "rivals": False, "cpu_threads": 1,
            "rounds": 3 if quick else 5, "repeats": 1 if quick else 2}


def measure(done: Done = silent, *, backbones: list[str], rivals: bool, cpu_threads: int, rounds: int,
            repeats: int) -> list[Row]:
    """Return the rows of each backbone; one value a round, of the least time of `repeats` calls.

    Args:
        rivals: whether RIVALS are measured beside them.

    Raises BenchmarkError, WeightsError, ExportError.
    """
    rows = []
    with torch.inference_mode(), threads(cpu_threads):
        for place, backbone in enumerate(backbones):
            works, took = works_of(backbone, rivals)
            names, found = list(works), []
            for turn in least_in_turns(list(works.values()), rounds, repeats):
                found.append(dict(zip(names, turn, strict=True)))
                done((place + len(found) / rounds) / len(backbones))
            for name in names[1:]:
                rows += [Row(f"{backbone}, {name} against plain", "times", [one["plain"] / one[name] for one in found]),
                         Row(f"{backbone}, {name}: to start", "s", [took[name]], NEITHER)]
            rows += [Row(f"{backbone}, {name}", "ms a clip", [1e3 * one[name] for one in found], LOWER)
                     for name in names]
    return rows
