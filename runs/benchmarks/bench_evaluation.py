"""Measures an evaluation from stored features against one that encodes every episode anew.

The videos are rendered. Kinetics-100's test list has 24 classes of 100 clips: --classes 24 --clips 100 --episodes 10000
is that size, and takes several times as long as the default.
"""

import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.builder import build_split
from datasets.demo.render import SPLITS, class_names, render_demo
from models.builder import FewShotModel, build_model
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.towers import small_resnet
from runs.evaluation.evaluate import Evaluation, Evaluator, score_stored
from runs.evaluation.features import FeatureStore
from utils.config import load_config
from utils.config.schema import Config

WIDTH = 1024  # of the features that are scored
TOWER = small_resnet(160, 2, 32)
PROJECT = """
PROTOCOL: clean
NUM_GPUS: 0
OUTPUT_DIR: {out}
TRAIN: {{ENABLE: false, DATASET_FEW: HMDB_few_shot, NUM_TEST_TASKS: {episodes}, SHOT_TEST: {shot},
         MERGE_BEFORE: {merge}, CLASS_NAME: {names}, VAL_CLASS_NAME: {names}}}
TEST: {{ENABLE: true, CLASS_NAME: {names}}}
DATA: {{DATA_ROOT_DIR: {data}, ANNO_DIR: {data}, TRAIN_JITTER_SCALES: [176, 176], TRAIN_CROP_SIZE: 160, TEST_SCALE: 176,
        TEST_CROP_SIZE: 160}}
VIDEO: {{HEAD: {{BACKBONE_NAME: {tower}, BACKBONE_WEIGHTS: random}}}}
DATA_LOADER: {{NUM_WORKERS: 0}}
"""


def render(data: Path, classes: int, clips: int) -> None:
    """Render classes x clips as one test list."""
    few = dict.fromkeys(SPLITS, 1)
    render_demo(data, clips_per_class={**few, "train": clips}, max_classes={**few, "train": classes})
    text = (data / "train_few_shot.txt").read_text(encoding="utf-8")
    (data / "test_few_shot.txt").write_text(text.replace("train", "test"), encoding="utf-8")


def config(data: Path, scratch: Path, shot: int, *, episodes: int, classes: int) -> Config:
    """Configure a test of random weights on that list; 5-shot merges before modulation, as published."""
    tower = scratch / "tower.json"
    tower.write_text(json.dumps(TOWER))
    project = scratch / f"{shot}.yaml"
    project.write_text(PROJECT.format(
        out=scratch / "out", episodes=episodes, shot=shot, merge=str(shot > 1).lower(), data=data,
        names=json.dumps(class_names("train")[:classes]), tower=tower))
    return load_config(project)


def sampled(cfg: Config, episodes: int) -> Config:
    """Configure the same test over its first episodes, one by one."""
    return replace(cfg, TRAIN=replace(cfg.TRAIN, NUM_TEST_TASKS=episodes), TEST=replace(cfg.TEST, FEATURE_STORE=False))


def timed(cfg: Config, model: FewShotModel, title: str) -> tuple[float, Evaluator, Evaluation]:
    """Time a whole evaluation, the drawing of episodes included; return (seconds, evaluator, what it found)."""
    start = time.perf_counter()
    evaluator = Evaluator(cfg, build_split(cfg, "test"), torch.device("cpu"))
    found = evaluator.run(model, title)
    return time.perf_counter() - start, evaluator, found


@dataclass(frozen=True, slots=True)
class Sides:
    """Holds what both ways took on one setting.

    Args:
        stored, before, after: seconds an episode from stored features, and one by one before and after that.
        clips: clips of all episodes. encoded: videos that were decoded and encoded for the stored features.
    """

    stored: float
    before: float
    after: float
    clips: int
    encoded: int


def side_by_side(cfg: Config, sample: int) -> Sides:
    """Run both ways on one setting; one by one before and after."""
    model, few = build_model(cfg), sampled(cfg, sample)
    before, _, _ = timed(few, model, "one by one, before")
    whole, evaluator, found = timed(cfg, model, "stored")
    after, _, _ = timed(few, model, "one by one, after")
    count = len(evaluator.specs)
    return Sides(whole / count, before / sample, after / sample, found.query_EM.size + found.support_EN.size,
                 found.encoded or 0)


def scoring_seconds(cfg: Config, dim: int = WIDTH) -> float:
    """Return the seconds of scoring all episodes from ready features of width `dim`, which are random numbers."""
    tower = {**TOWER, "embed_dim": dim}
    path = Path(cfg.VIDEO.HEAD.BACKBONE_NAME)
    path.write_text(json.dumps(tower))
    model = build_model(cfg)
    evaluator = Evaluator(cfg, build_split(cfg, "test"), torch.device("cpu"))
    rows = {(video, 0): video for video in range(len(evaluator.split.records))}
    frames = torch.randn(len(rows), cfg.DATA.NUM_INPUT_FRAMES, dim, generator=torch.Generator().manual_seed(0))
    store = FeatureStore(rows, {"frames": frames}, {}, 0)
    episodes = evaluator.stored(model, store)
    start = time.perf_counter()
    score_stored(model, episodes, "scoring")
    taken = time.perf_counter() - start
    path.write_text(json.dumps(TOWER))
    return taken


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure` in the suite."""
    small = {"classes": 6, "clips": 10, "episodes": 200, "sample": 3, "rounds": 1}
    whole = {"classes": 12, "clips": 40, "episodes": 2000, "sample": 10, "rounds": 2}
    return {"shots": [1, 5], **(small if quick else whole)}


def measure(data: Path, done: Done = silent, *, shots: list[int], classes: int, clips: int, episodes: int, sample: int,
            rounds: int) -> list[Row]:
    """Return the rows of each number of shots; two ratios a round, to one by one before and after.

    Args:
        classes, clips: videos of the list. sample: episodes that are evaluated one by one.
    """
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        render(data, classes, clips)
        for place, shot in enumerate(shots):
            cfg = config(data.resolve(), Path(scratch), shot, episodes=episodes, classes=classes)
            sides, scoring = [], []
            for turn in range(rounds):
                sides.append(side_by_side(cfg, sample))
                scoring.append(scoring_seconds(cfg))
                done((place + (turn + 1) / rounds) / len(shots))
            each = [time for side in sides for time in (side.before / side.stored, side.after / side.stored)]
            rows += [
                Row(f"{shot}-shot, stored features against one by one", "times", each),
                Row(f"{shot}-shot, clips that one by one decodes and encodes, against stored", "times",
                    [sides[0].clips / sides[0].encoded]),
                Row(f"{shot}-shot, stored features", "ms an episode", [1e3 * side.stored for side in sides], LOWER),
                Row(f"{shot}-shot, scoring from ready features of {WIDTH}", "ms an episode",
                    [1e3 * one / episodes for one in scoring], LOWER)]
    return rows
