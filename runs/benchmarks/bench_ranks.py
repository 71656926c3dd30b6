"""Measures episodes a second by number of ranks, each on a GPU of its own or on the CPU with one thread each.

The runs take turns. A run's figure is the mean over its last 50 iterations at most, loading included, as log.jsonl has
it. Ranks on the CPU pay where a step's work is large beside the exchange of gradients: the tower here is a ViT of 4
layers and 192 channels at 112 pixels.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from datasets.demo.render import SPLITS, class_names, render_demo
from runs.benchmarks.ending import ending
from runs.benchmarks.rows import Done, Row, silent
from runs.benchmarks.towers import SMALL_VIT
from utils.config.layers import REPOSITORY
from utils.cores import cores
from utils.errors import BenchmarkError

CLASSES, CLIPS = 8, 12
PROJECT = """
NUM_GPUS: 0
LOG_PERIOD: {iterations}
TRAIN: {{DATASET_FEW: HMDB_few_shot, WAY: 5, SHOT: 1, QUERY_PER_CLASS: 2, NUM_TRAIN_TASKS: {iterations},
        NUM_VAL_TASKS: 1, NUM_TEST_TASKS: 1, VAL_FRE_ITER: {iterations}, BATCH_SIZE_PER_TASK: 4, CLASS_NAME: {train},
        VAL_CLASS_NAME: {val}}}
TEST: {{CLASS_NAME: {test}}}
DATA: {{DATA_ROOT_DIR: {data}, ANNO_DIR: {data}, TRAIN_JITTER_SCALES: [128, 128], TEST_SCALE: 128,
       TRAIN_CROP_SIZE: {size}, TEST_CROP_SIZE: {size}}}
DATA_LOADER: {{NUM_WORKERS: 0}}
VIDEO: {{HEAD: {{BACKBONE_NAME: {tower}, BACKBONE_WEIGHTS: random}}}}
"""


def write_project(scratch: Path, data: Path, iterations: int) -> Path:
    """Write the project file."""
    tower, project = scratch / "tower.json", scratch / "project.yaml"
    tower.write_text(json.dumps(SMALL_VIT))
    names = {split: json.dumps(class_names(split)[:CLASSES]) for split in SPLITS}
    project.write_text(PROJECT.format(data=data, tower=tower, iterations=iterations,
                                      size=SMALL_VIT["vision_cfg"]["image_size"], **names))
    return project


def overrides(ranks: int, gpus: int) -> list[str]:
    """Return the KEY VALUE pairs of a run of so many ranks: on a GPU each, or on the CPU."""
    if gpus:  # decoding in the rank's own process would be all that is measured
        return ["NUM_GPUS", str(ranks), "DATA_LOADER.NUM_WORKERS", "4"]
    return ["NUM_PROCESSES", str(ranks)]


def episodes_a_second(project: Path, ranks: int, output: Path, gpus: int = 0) -> float:
    """Train once, and return the rate over the last 50 iterations at most. Raises BenchmarkError where it fails."""
    command_line = [sys.executable, "runs/run.py", "--cfg", str(project), *overrides(ranks, gpus), "OUTPUT_DIR",
                    str(output)]
    run = subprocess.Popen(command_line, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(project.parent)})
    with ending(run):
        text, _ = run.communicate()
    if run.returncode:
        raise BenchmarkError(f"a run of {ranks} ranks ended with {run.returncode}: {text.strip()[-500:]}")
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return ranks / next(r["seconds_an_iteration"] for r in records if r["kind"] == "train")


def in_turns(data: Path, counts: Sequence[int], *, turns: int, iterations: int, gpus: int = 0,
             done: Done = silent) -> dict[int, list[float]]:
    """Return the episodes a second by number of ranks, one value a turn."""
    render_demo(data, clips_per_class=CLIPS, max_classes=dict.fromkeys(SPLITS, CLASSES))
    found: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as scratch:
        project = write_project(Path(scratch), data.resolve(), iterations)
        for turn in range(turns):
            for place, count in enumerate(counts):
                found[count].append(episodes_a_second(project, count, Path(scratch) / f"{turn}_{count}", gpus))
                done((turn + (place + 1) / len(counts)) / turns)
    return found


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite: GPUs where there are several, else two ranks on the CPU.

    Raises BenchmarkError where there is one core only.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    effort = {"turns": 1 if quick else 3, "iterations": 6 if quick else 40}
    if gpus > 1:
        return {"counts": sorted({1, *(2 ** n for n in range(1, gpus.bit_length()) if 2 ** n < gpus), gpus}),
                "gpus": gpus, **effort}
    if cores() < 2:
        raise BenchmarkError("ranks: two ranks need two GPUs or two cores")
    return {"counts": [1, 2], "gpus": 0, **effort}


def measure(data: Path, done: Done = silent, *, counts: list[int], gpus: int, turns: int, iterations: int) -> list[Row]:
    """Return the rows of each number of ranks, and of each against one rank; a value a turn.

    Args:
        counts: numbers of ranks; 1 is measured in any case. gpus: 0: on the CPU.

    Raises:
        BenchmarkError: a run failed.
    """
    counts = sorted({1, *counts})
    found = in_turns(data, counts, turns=turns, iterations=iterations, gpus=gpus, done=done)
    where = "on a GPU each" if gpus else "on the CPU, a thread each"
    rows = [Row(f"{count} ranks {where}, against one", "times",
                [many / one for one, many in zip(found[1], found[count], strict=True)]) for count in counts[1:]]
    return rows + [Row(f"{count} rank{'s' if count > 1 else ''} {where}", "episodes/s", found[count])
                   for count in counts]
