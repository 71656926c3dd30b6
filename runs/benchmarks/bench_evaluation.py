"""Evaluation from stored features against episode by episode, on rendered videos shaped like Kinetics-100's test list.

python runs/benchmarks/bench_evaluation.py --data data/bench    (renders 24 classes x 100 clips there the first time)
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402

from datasets.builder import build_split  # noqa: E402
from datasets.demo.render import SPLITS, class_names, render_demo  # noqa: E402
from models.builder import build_model  # noqa: E402
from models.heads.clip_fsar import FewShotModel  # noqa: E402
from runs.benchmarks.arguments import whole  # noqa: E402
from runs.benchmarks.rows import LOWER, Done, Row, silent  # noqa: E402
from runs.benchmarks.towers import small_resnet  # noqa: E402
from runs.evaluation.evaluate import Evaluation, Evaluator, Places, score_places  # noqa: E402
from runs.evaluation.features import FeatureStore, clip_features  # noqa: E402
from utils.command import command  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.config.schema import Config  # noqa: E402

CLASSES, CLIPS, WIDTH = 24, 100, 1024
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
DATA_LOADER: {{NUM_WORKERS: {workers}}}
"""


def render(data: Path, classes: int = CLASSES, clips: int = CLIPS) -> None:
    """classes x clips as one test list."""
    few = dict.fromkeys(SPLITS, 1)
    render_demo(data, clips_per_class={**few, "train": clips}, max_classes={**few, "train": classes})
    text = (data / "train_few_shot.txt").read_text(encoding="utf-8")
    (data / "test_few_shot.txt").write_text(text.replace("train", "test"), encoding="utf-8")


def config(data: Path, scratch: Path, shot: int, *, episodes: int, workers: int, classes: int = CLASSES) -> Config:
    """A test of random weights on that list; 5-shot merges before modulation, as published."""
    tower = scratch / "tower.json"
    tower.write_text(json.dumps(TOWER))
    project = scratch / f"{shot}.yaml"
    project.write_text(PROJECT.format(
        out=scratch / "out", episodes=episodes, shot=shot, merge=str(shot > 1).lower(), data=data,
        names=json.dumps(class_names("train")[:classes]), tower=tower, workers=workers))
    return load_config(project)


def sampled(cfg: Config, episodes: int) -> Config:
    """The same test over its first episodes, one by one."""
    return replace(cfg, TRAIN=replace(cfg.TRAIN, NUM_TEST_TASKS=episodes), TEST=replace(cfg.TEST, FEATURE_STORE=False))


def timed(cfg: Config, model: FewShotModel, title: str) -> tuple[float, Evaluator, Evaluation]:
    """(seconds, evaluator, what it found) of a whole evaluation, the drawing of episodes included."""
    start = time.perf_counter()
    evaluator = Evaluator(cfg, build_split(cfg, "test"), torch.device("cpu"))
    found = evaluator.run(model, title)
    return time.perf_counter() - start, evaluator, found


@dataclass(frozen=True, slots=True)
class Sides:
    """Both ways on one setting: seconds an episode, stored, and one by one before and after; clips and videos read."""

    shot: int
    episodes: int
    sample: int
    stored: float
    before: float
    after: float
    clips: int
    encoded: int

    @property
    def one_by_one(self) -> float:
        """Mean of before and after, so that a drift of the machine evens out."""
        return (self.before + self.after) / 2

    def line(self) -> str:
        """In words."""
        return (f"{self.shot}-shot, {self.episodes:,} episodes: {self.encoded:,} videos decoded and encoded where one "
                f"by one takes {self.clips:,} ({self.clips / self.encoded:.0f} times); {self.stored * 1e3:.2f} ms an "
                f"episode, one by one {self.one_by_one * 1e3:.1f} ms (over twice {self.sample}): "
                f"{self.one_by_one / self.stored:.0f} times\n")


def side_by_side(cfg: Config, sample: int) -> Sides:
    """Both ways on one setting; one by one before and after."""
    model, few = build_model(cfg), sampled(cfg, sample)
    before, _, _ = timed(few, model, "one by one, before")
    whole, evaluator, found = timed(cfg, model, "stored")
    after, _, _ = timed(few, model, "one by one, after")
    count = len(evaluator.specs)
    return Sides(evaluator.split.sampler.shot, count, sample, whole / count, before / sample, after / sample,
                 found.query_EM.size + found.support_EN.size, found.encoded)


def scoring_seconds(cfg: Config, dim: int = WIDTH) -> float:
    """Of the per-episode part of all episodes, with ready features of width `dim` of random numbers."""
    tower = {**TOWER, "embed_dim": dim}
    path = Path(cfg.VIDEO.HEAD.BACKBONE_NAME)
    path.write_text(json.dumps(tower))
    model = build_model(cfg)
    evaluator = Evaluator(cfg, build_split(cfg, "test"), torch.device("cpu"))
    rows = {(video, 0): video for video in range(len(evaluator.split.records))}
    frames = torch.randn(len(rows), cfg.DATA.NUM_INPUT_FRAMES, dim, generator=torch.Generator().manual_seed(0))
    store = FeatureStore(rows, frames, {}, 0)
    features = clip_features(model, store, evaluator.split, evaluator.device, Path(cfg.OUTPUT_DIR))
    start = time.perf_counter()
    places = Places.of(evaluator.split, evaluator.specs, store)
    score_places(model, features, places, "test", evaluator.device, "scoring")
    taken = time.perf_counter() - start
    path.write_text(json.dumps(TOWER))
    return taken


def settings(quick: bool) -> dict[str, Any]:
    """Arguments of `measure` in the suite: fewer videos than the command above, which takes several times as long."""
    small = {"classes": 6, "clips": 10, "episodes": 200, "sample": 3, "rounds": 1}
    whole = {"classes": 12, "clips": 40, "episodes": 2000, "sample": 10, "rounds": 2}
    return {"shots": [1, 5], "workers": 0, **(small if quick else whole)}


def measure(data: Path, done: Done = silent, *, shots: list[int], classes: int, clips: int, episodes: int, sample: int,
            workers: int, rounds: int) -> list[Row]:
    """Rows of each number of shots; two ratios a round, to one by one before and after."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        render(data, classes, clips)
        for place, shot in enumerate(shots):
            cfg = config(data.resolve(), Path(scratch), shot, episodes=episodes, workers=workers, classes=classes)
            sides, scoring = [], []
            for turn in range(rounds):
                sides.append(side_by_side(cfg, sample))
                scoring.append(scoring_seconds(cfg))
                done((place + (turn + 1) / rounds) / len(shots))
            each = [time for side in sides for time in (side.before / side.stored, side.after / side.stored)]
            rows += [
                Row(f"{shot}-shot, stored features against one by one", "times", each),
                Row(f"{shot}-shot, stored features", "ms an episode", [1e3 * side.stored for side in sides], LOWER),
                Row(f"{shot}-shot, scoring from ready features of {WIDTH}", "ms an episode",
                    [1e3 * one / episodes for one in scoring], LOWER)]
    return rows


def main() -> None:
    """A line a setting: 1-shot and 5-shot, both ways, then the scoring alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the rendered videos")
    for name, value in (("episodes", 10000), ("sample", 20), ("workers", 0)):
        parser.add_argument(f"--{name}", type=whole(0 if name == "workers" else 1), default=value)
    arguments = parser.parse_args()
    render(arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        for shot in (1, 5):
            cfg = config(arguments.data.resolve(), Path(scratch), shot, episodes=arguments.episodes,
                         workers=arguments.workers)
            sys.stdout.write(side_by_side(cfg, arguments.sample).line())
            sys.stdout.write(f"{shot}-shot, features of {WIDTH} ready: {arguments.episodes:,} episodes scored in "
                             f"{scoring_seconds(cfg):.1f} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(command(main))
