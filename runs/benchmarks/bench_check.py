"""Measures the cores and the memory that `prepare.py check` uses on short rendered files.

The machine's idle cores say more than the cores in use where it does other things, too; the number of processes at work
is the check's own. Memory of all processes is the largest sum, pages that they share counted once (PSS).
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from datasets.demo.render import SPLITS, class_names, render_demo
from runs.benchmarks.ending import ending
from runs.benchmarks.rows import LOWER, NEITHER, Done, Row, silent
from utils.config.layers import REPOSITORY
from utils.errors import BenchmarkError

PROJECT = """
NUM_GPUS: 0
TRAIN: {{DATASET_FEW: HMDB_few_shot, CLASS_NAME: {names}, VAL_CLASS_NAME: {names}}}
TEST: {{CLASS_NAME: {names}}}
DATA: {{DATA_ROOT_DIR: {data}, ANNO_DIR: {data}, DECODER: {decoder}}}
"""
LINE = re.compile(r": (\d+) a second, ([\d.]+) cores busy, ([\d.]+) of \d+ processes at work, at most (\d+) MB in each")


def _memory(process: psutil.Process) -> int:
    """Bytes of a process and its children; pages that they share count once (Linux), else each time."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            found = one.memory_full_info()
            total += getattr(found, "pss", found.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended between the two calls
            continue
    return total


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure`."""
    return {"decoder": "decord", "classes": 20, "clips": 5 if quick else 100}


def measure(data: Path, done: Done = silent, *, decoder: str, classes: int, clips: int) -> list[Row]:
    """Return the rows of one check, in a process of its own. Raises BenchmarkError where it fails."""
    few = dict.fromkeys(SPLITS, 1)
    render_demo(data, clips_per_class={**few, "train": clips}, max_classes={**few, "train": classes})
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "project.yaml"
        project.write_text(PROJECT.format(names=json.dumps(class_names("train")[:classes]), data=data.resolve(),
                                          decoder=decoder))
        idle, started, memory = psutil.cpu_times().idle, time.perf_counter(), 0
        line = [sys.executable, "runs/prepare.py", "check", "--cfg", project, "--splits", "train", "--out", scratch]
        check = psutil.Popen([str(part) for part in line], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        with ending(check):
            while check.poll() is None:
                memory = max(memory, _memory(check))
                time.sleep(0.5)  # reading it costs the check time
            idle = (psutil.cpu_times().idle - idle) / (time.perf_counter() - started)
            text = check.stdout.read()
    found = LINE.search(text)
    if check.returncode or not found:
        raise BenchmarkError(f"a check ended with {check.returncode}: {text.strip()[-500:]}")
    done(1.0)
    rate, busy, at_work, each = map(float, found.groups())
    return [Row("files", "a second", [rate]), Row("cores in use", "cores", [busy]),
            Row("processes at work", "processes", [at_work]),
            Row("idle meanwhile, start included", "cores", [idle], NEITHER),
            Row("memory of a process", "MB", [each], LOWER), Row("memory of all", "MB", [memory / 1e6], LOWER)]
