"""Evaluation from stored features against episode by episode, on rendered videos shaped like Kinetics-100's test list.

python runs/benchmarks/bench_evaluation.py --data data/bench    (renders 24 classes x 100 clips there the first time)
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402

from datasets.builder import build_split  # noqa: E402
from datasets.synthetic import SPLITS, class_names, render_demo  # noqa: E402
from models.builder import build_model  # noqa: E402
from models.heads.clip_fsar import FewShotModel  # noqa: E402
from runs.evaluate import Evaluation, Evaluator, Places, score_places  # noqa: E402
from runs.feature_store import FeatureStore, clip_features  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.config.schema import Config  # noqa: E402

CLASSES, CLIPS = 24, 100
TOWER = {
    "embed_dim": 128, "quick_gelu": True,
    "vision_cfg": {"image_size": 160, "layers": [2, 2, 2, 2], "width": 32, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
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


def render(data: Path) -> None:
    """24 classes x 100 clips as one test list."""
    names = class_names("train")[:CLASSES]
    few = dict.fromkeys(SPLITS, 1)
    render_demo(data, clips_per_class={**few, "train": CLIPS}, max_classes={**few, "train": len(names)})
    text = (data / "train_few_shot.txt").read_text(encoding="utf-8")
    (data / "test_few_shot.txt").write_text(text.replace("train", "test"), encoding="utf-8")


def config(data: Path, scratch: Path, shot: int, arguments: argparse.Namespace) -> Config:
    """A test of random weights on that list; 5-shot merges before modulation, as published."""
    tower = scratch / "tower.json"
    tower.write_text(json.dumps(TOWER))
    project = scratch / f"{shot}.yaml"
    project.write_text(PROJECT.format(
        out=scratch / "out", episodes=arguments.episodes, shot=shot, merge=str(shot > 1).lower(), data=data,
        names=json.dumps(class_names("train")[:CLASSES]), tower=tower, workers=arguments.workers))
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


def side_by_side(cfg: Config, sample: int) -> str:
    """Both ways on one setting, as a line; one by one before and after, so that a drift of the machine evens out."""
    model, few = build_model(cfg), sampled(cfg, sample)
    before, _, _ = timed(few, model, "one by one, before")
    whole, evaluator, found = timed(cfg, model, "stored")
    after, _, _ = timed(few, model, "one by one, after")
    fast, slow = whole / len(evaluator.specs), (before + after) / (2 * sample)
    clips = found.query_EM.size + found.support_EN.size
    return (f"{evaluator.split.sampler.shot}-shot, {len(evaluator.specs):,} episodes: {found.encoded:,} videos decoded "
            f"and encoded where one by one takes {clips:,} ({clips / found.encoded:.0f} times); {fast * 1e3:.2f} ms an "
            f"episode, one by one {slow * 1e3:.1f} ms (over twice {sample}): {slow / fast:.0f} times\n")


def scoring_alone(cfg: Config, dim: int = 1024) -> str:
    """The per-episode part with ready features of width `dim` of random numbers, as a line."""
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
    path.write_text(json.dumps(TOWER))
    return (f"{evaluator.split.sampler.shot}-shot, features of {dim} ready: {len(evaluator.specs):,} episodes scored "
            f"in {time.perf_counter() - start:.1f} s\n")


def main() -> None:
    """A line a setting: 1-shot and 5-shot, both ways, then the scoring alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the rendered videos")
    for name, value in (("episodes", 10000), ("sample", 20), ("workers", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    render(arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        for shot in (1, 5):
            cfg = config(arguments.data.resolve(), Path(scratch), shot, arguments)
            sys.stdout.write(side_by_side(cfg, arguments.sample) + scoring_alone(cfg))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
