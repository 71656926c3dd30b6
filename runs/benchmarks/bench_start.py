"""Measures what a run takes until its first episode is there, and what its command line takes, beside `import torch`.

Lists of SSv2-Full's length (67,013 videos to train on, 1,926 and 2,857 to validate and test), a tower of random
weights, loader workers. CPU seconds of the process itself, with one thread, fresh processes in turns: other work on
the machine matters little. By the clock, the workers' decoding of the first episode counts, too. A start is compared
with `import torch` until that is done, a whole command line with a process that does nothing else.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datasets.demo.render import SPLITS, render_demo
from runs.benchmarks.rows import LOWER, NEITHER, Done, Row, silent
from runs.benchmarks.towers import small_resnet
from utils.config.layers import REPOSITORY
from utils.errors import BenchmarkError

CLASSES = {"train": 64, "val": 12, "test": 24}
OTHERS = {"val": 1_926, "test": 2_857}  # videos of the lists that do not grow
EPISODES = 10_000  # of the test
PUBLISHED = "configs/projects/CLIPFSAR/ssv2_full/CLIPFSAR_SSv2_Full_1shot_v1.yaml"
LINKS = 10_000  # names of one file: file systems allow 32,000 or more
PROJECT = """
_BASE: {base}
NUM_GPUS: 0
OUTPUT_DIR: {out}
TRAIN: {{DATASET_FEW: HMDB_few_shot, NUM_TEST_TASKS: {episodes}, CLASS_NAME: {train}, VAL_CLASS_NAME: {val}}}
TEST: {{CLASS_NAME: {test}}}
DATA: {{DATA_ROOT_DIR: {data}, ANNO_DIR: {lists}}}
VIDEO: {{HEAD: {{BACKBONE_NAME: {tower}, BACKBONE_WEIGHTS: random}}}}
DATA_LOADER: {{NUM_WORKERS: {workers}}}
"""
# What a process has used until then, and the time: printed at once, as its end takes time, too.
TORCH = "import torch, time; print('used', time.process_time(), time.time())"
# Runs the command up to its first episode. What it imports first is what the command imports first, too.
UNTIL_FIRST = """
import sys, time
from utils.collecting import uncollected
with uncollected(loads="torch"):
    import runs.session.launch
    from runs.training import driver
def train(learner, episodes, *rest):
    episodes = iter(episodes)  # held: one that goes waits for its workers
    next(episodes)
    print("used", time.process_time(), time.time(), flush=True)
    raise KeyboardInterrupt
driver.train = train
from runs.clip_fsar import main
sys.exit(main(sys.argv[1:]))
"""


def project(data: Path, scratch: Path, backbone: str, videos: int, workers: int) -> Path:
    """Write a project of lists of that length, whose lines are names of one rendered clip; return its path."""
    one = dict.fromkeys(SPLITS, 1)
    render_demo(data, clips_per_class=one, max_classes=one)
    clip, folder = next((data / "videos").rglob("*.mp4")), scratch / "videos"
    folder.mkdir()
    number = 0
    for split, count in {"train": videos, **OTHERS}.items():
        names = [f"{number + k}.mp4" for k in range(count)]
        for k, name in enumerate(names):
            if k % LINKS:
                os.link(folder / names[k - k % LINKS], folder / name)
            else:
                shutil.copy(clip, folder / name)
        number += count
        (scratch / f"{split}_few_shot.txt").write_text("".join(
            f"{split}{k % CLASSES[split]}//videos/{name}\n" for k, name in enumerate(names)), encoding="utf-8")
    (scratch / "tower.json").write_text(json.dumps(small_resnet(224, 1, 16)))
    path = scratch / "project.yaml"
    path.write_text(PROJECT.format(
        base=REPOSITORY / "configs/pool/run/clipfsar.yaml", out=scratch / "out", episodes=EPISODES, data=scratch,
        lists=scratch, tower=scratch / "tower.json" if backbone == "small" else backbone, workers=workers,
        **{split: json.dumps([f"{split} {k}" for k in range(count)]) for split, count in CLASSES.items()}))
    return path


def _python(*arguments: str, expected: int = 0) -> str:
    """Return what a fresh python with one thread prints. Raises BenchmarkError where it ends otherwise."""
    done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != expected:
        raise BenchmarkError(f"python {' '.join(arguments)[:80]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _until(script: str, *arguments: str, expected: int = 0) -> tuple[float, float]:
    """Return the CPU seconds that a script says it has used, and the seconds that had passed by then."""
    began = time.time()
    used, at = _python("-c", script, *arguments, expected=expected).split("used")[1].split()[:2]
    return float(used), float(at) - began


def _whole(*arguments: str, expected: int = 0) -> float:
    """Return the CPU seconds of a command line, from its start to its end."""
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    _python(*arguments, expected=expected)
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure`."""
    return {"backbone": "small", "videos": 640 if quick else 67_013, "workers": 2, "turns": 1 if quick else 5}


def measure(data: Path, done: Done = silent, *, backbone: str, videos: int, workers: int, turns: int) -> list[Row]:
    """Return what `import torch` takes, and what a start and command lines take as multiples of it in the same turn.

    Args:
        data: folder of the rendered clip. backbone: RN50, ...; small: a tower that is made at once. videos: of the
            train list, at least six of each of 64 classes. workers: of the loader. turns: how often each is measured.
    """
    found: dict[str, list[float]] = {}
    lines = {"--help": (["--help"], 0), "--print-config": (["--cfg", PUBLISHED, "--print-config"], 0),
             "a wrong setting": (["--cfg", PUBLISHED, "TRAIN.SHOT", "none"], 1)}
    with tempfile.TemporaryDirectory() as scratch:
        path = str(project(data, Path(scratch).resolve(), backbone, videos, workers))
        for turn in range(turns):
            torch_cpu, torch_wall = _until(TORCH)
            start_cpu, start_wall = _until(UNTIL_FIRST, "run", "--cfg", path, expected=130)
            whole = _whole("-c", "import torch")
            values = {"import torch": torch_cpu, "a process that imports torch": whole,
                      "start until the first episode": start_cpu / torch_cpu,
                      "the same, by the clock": start_wall / torch_wall}
            for name, (line, status) in lines.items():
                values[name] = _whole("runs/run.py", *line, expected=status) / whole
            for name, value in values.items():
                found.setdefault(name, []).append(value)
            done((turn + 1) / turns)
    return [Row(name, "s", values, NEITHER) if "import" in name else Row(name, "times", values, LOWER)
            for name, values in found.items()]
