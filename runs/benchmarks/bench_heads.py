"""Measures what each head costs beside its tower: a training step after the tower, and scoring from ready features.

Training: forward and backward of everything behind the tower, from random frames, with every loss that the head's
options offer, as a share of a ResNet-50's forward and backward over the same clips. The tower is timed on --tower-clips
of them; its seconds are taken to be proportional to the clips.

Scoring: the evaluation of --episodes episodes of a list of --classes x --clips videos, from a store of what the head
keeps of random frames. Fewer than 10,000 episodes are scaled to so many. CPU seconds are those of all threads: on a
machine that does other work they say more than the clock.

A head stands on the first of TOWERS that it can be built on, with random weights.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from datasets.builder import build_split
from models.builder import FewShotModel, build_encoder, build_model
from models.heads import HEADS
from runs.benchmarks.rows import LOWER, Done, Row, silent
from runs.benchmarks.steps import StepOptions, plain_losses, random_episodes
from runs.benchmarks.timing import Work, seconds, threads
from runs.evaluation.evaluate import Evaluator, score_stored
from runs.evaluation.features import FeatureStore
from utils.config import resolve_config
from utils.config.fields import keys_of
from utils.config.schema import Config
from utils.cores import cores
from utils.errors import ConfigError

TOWERS = ("ResNet50", "RN50", "ViT-B/16")
CPU = torch.device("cpu")
CLASSES = 64  # of the training list, as in Kinetics-100
WHOLE = 10_000  # episodes of a published test
STORED = 16  # clips that pass a head at once
LOSSES = {"USE_CLASSIFICATION": True, "USE_CLASSIFICATION_VALUE": 1.0, "USE_CONTRASTIVE": True,
          "USE_CONTRASTIVE_COFF": 1.0, "USE_MOTION": True, "USE_RECONS": True, "RECONS_COFF": 1.0,
          "TEMPORAL_LOSS_WEIGHT": 1.0}  # a head gets those that it has


@dataclass(frozen=True, slots=True)
class Sizes:
    """Says how much is measured.

    Args:
        shots, query: of a training episode of 5 ways; queries of a class. turns: of tower and head in training.
        tower_clips: clips that the tower is timed on. size: side of the pictures in pixels.
        classes, clips: videos of the test list. episodes, test_query: of the test; queries of a class.
    """

    shots: Sequence[int] = (1, 5)
    query: int = 5
    turns: int = 3
    tower_clips: int = 3
    size: int = 224
    classes: int = 24
    clips: int = 100
    episodes: int = WHOLE
    test_query: int = 1


def write_project(scratch: Path, classes: int, clips: int, size: int) -> Path:
    """Write a project whose test list has classes x clips videos, which need not be there."""
    lines = [f"test{label}//{label}/{clip}.mp4\n" for label in range(classes) for clip in range(clips)]
    (scratch / "test_few_shot.txt").write_text("".join(lines), encoding="utf-8")
    path, names = scratch / "project.yaml", [f"class {n}" for n in range(max(CLASSES, classes))]
    path.write_text(json.dumps({  # JSON is YAML
        "PROTOCOL": "clean", "NUM_GPUS": 0, "OUTPUT_DIR": str(scratch / "out"),
        "TRAIN": {"DATASET_FEW": "HMDB_few_shot", "CLASS_NAME": names[:CLASSES], "VAL_CLASS_NAME": names[:classes]},
        "TEST": {"CLASS_NAME": names[:classes]},
        "DATA": {"DATA_ROOT_DIR": str(scratch), "ANNO_DIR": str(scratch), "TRAIN_CROP_SIZE": size,
                 "TRAIN_JITTER_SCALES": [size, size], "TEST_SCALE": size, "TEST_CROP_SIZE": size}}), encoding="utf-8")
    return path


def configured(project: Path, name: str, pairs: Sequence[Any]) -> tuple[Config, FewShotModel]:
    """Return the configuration and the model of a head. Raises ConfigError where it stands on none of TOWERS."""
    own = keys_of(HEADS[name].Options)
    given: dict[str, Any] = {"VIDEO.HEAD.NAME": name, "VIDEO.HEAD.BACKBONE_WEIGHTS": "random",
                             **{f"VIDEO.HEAD.OPTIONS.{key}": value for key, value in LOSSES.items() if key in own}}
    problems: list[str] = []
    for tower in TOWERS:
        both = (given | {"VIDEO.HEAD.BACKBONE_NAME": tower}).items()
        try:
            cfg = resolve_config(project, [*(str(part) for pair in both for part in pair), *map(str, pairs)]).config
            return cfg, build_model(cfg)
        except ConfigError as error:
            problems += error.problems
    raise ConfigError(problems)


@contextmanager
def ready_tower(model: FewShotModel, size: int) -> Iterator[None]:
    """Have the tower give random frames at once, of its own shape, from clips of any pixels."""
    tower, kept = model.head.backbone, {}
    whole = getattr(tower, "takes_clips", False)
    with torch.no_grad():
        training, probe = tower.training, torch.rand(1, model.head.setting.frames, 3, size, size)
        found = tower.eval()(probe if whole else probe.flatten(0, 1))
        tower.train(training)

    def frames(shape: torch.Size) -> Tensor:
        if not model.training:
            return torch.rand(shape)
        if shape not in kept:
            kept[shape] = torch.rand(shape, requires_grad=True)
        return kept[shape]

    def ready(x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if isinstance(found, Tensor):
            return frames(torch.Size((len(x), *found.shape[1:])))
        return tuple(frames(torch.Size((len(x), *one.shape[1:]))) for one in found)

    with patch.object(tower, "forward", ready):
        yield


def head_step(cfg: Config, model: FewShotModel, options: StepOptions) -> Work:
    """Return forward and backward of an episode of random pixels, with what the tower gives."""
    [episode] = random_episodes(options, cfg)

    def step() -> None:
        torch.stack(list(plain_losses(model, episode).values())).sum().backward()
        model.zero_grad(set_to_none=True)

    return step


def tower_step(project: Path, clips: int, size: int) -> Work:
    """Return forward and backward of the first of TOWERS over so many clips, which are one pass."""
    cfg = resolve_config(project, ["VIDEO.HEAD.BACKBONE_NAME", TOWERS[0], "VIDEO.HEAD.BACKBONE_WEIGHTS",
                                   "random"]).config
    tower = build_encoder(cfg, reads_text=False).visual.to(memory_format=torch.channels_last).train()
    frames = torch.rand(clips * cfg.DATA.NUM_INPUT_FRAMES, 3, size, size)

    def step() -> None:
        tower(frames).sum().backward()
        tower.zero_grad(set_to_none=True)

    step()
    return step


def training_rows(project: Path, name: str, tower: Work, sizes: Sizes) -> list[Row]:
    """Return the share of each number of shots; a value a turn."""
    found: dict[int, list[float]] = {shot: [] for shot in sizes.shots}
    cfg, model = configured(project, name, [])
    options = [StepOptions(shot=shot, query=sizes.query, frames=cfg.DATA.NUM_INPUT_FRAMES) for shot in sizes.shots]
    with ready_tower(model.train(), sizes.size):
        steps = [head_step(cfg, model, one) for one in options]
        for step in steps:
            step()
        for _ in range(sizes.turns):
            a_clip = seconds(tower) / sizes.tower_clips
            for one, step in zip(options, steps, strict=True):
                found[one.shot].append(100 * seconds(step) / (a_clip * one.clips))
    return [Row(f"{name}, {shot}-shot: training step after the tower, of ResNet-50's", "%", values, LOWER)
            for shot, values in found.items()]


@torch.inference_mode()
def stored(model: FewShotModel, clips: int, size: int) -> FeatureStore:
    """Return a store of what the head keeps of so many clips, of which the tower has given random frames."""
    features: dict[str, Tensor] = {}
    with ready_tower(model.eval(), size):
        for first in range(0, clips, STORED):
            count = min(STORED, clips - first)
            made = model.head.clip_features(model.head.encode(torch.zeros(count, model.head.setting.frames, 3, 1, 1)))
            for name, value in made.items():
                features.setdefault(name, torch.empty(clips, *value.shape[1:]))[first:first + count] = value
    return FeatureStore({(video, 0): video for video in range(clips)}, features, {}, 0)


def scoring_rows(project: Path, name: str, sizes: Sizes, pairs: Sequence[Any] = (),
                 device: torch.device = CPU) -> list[Row]:
    """Return the seconds of scoring 10,000 episodes of 5 ways and one shot, and the milliseconds a query.

    Args:
        pairs: KEY VALUE pairs beside those of the test. device: the one that computes.
    """
    episodes, query = sizes.episodes, sizes.test_query
    cfg, model = configured(project, name, ["TRAIN.NUM_TEST_TASKS", episodes, "TRAIN.SHOT_TEST", 1,
                                            "TRAIN.WAY_TEST", 5, "TRAIN.QUERY_PER_CLASS_TEST", query, *pairs])
    evaluator = Evaluator(cfg, build_split(cfg, "test"), device)
    store = stored(model, len(evaluator.split.records), sizes.size)
    ready = evaluator.stored(model.to(device), store)
    score_stored(model, replace(ready, query_EM=ready.query_EM[:64]), "warm up")
    clock, cpu = time.perf_counter(), time.process_time()
    score_stored(model, ready, name)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    what = f"{name}, 1-shot, {query} of a class: scoring"
    scaled = f"{WHOLE:,} episodes" + ("" if episodes == WHOLE else f", from {episodes:,}")
    return [Row(f"{what} {scaled}", "s", [clock * WHOLE / episodes], LOWER),
            Row(f"{what} {scaled}, all threads", "CPU s", [cpu * WHOLE / episodes], LOWER),
            Row(f"{what} a query", "ms", [1e3 * clock / ready.query_EM.numel()], LOWER)]


def settings(quick: bool) -> dict[str, Any]:
    """Return the arguments of `measure`."""
    small = Sizes((1,), turns=1, tower_clips=1, size=64, classes=5, clips=8, episodes=4)
    sizes = asdict(small if quick else Sizes())
    return {**sizes, "shots": list(sizes["shots"]), "heads": sorted(HEADS)[:1] if quick else sorted(HEADS),
            "cpu_threads": min(2, cores())}


def measure(done: Done = silent, *, heads: list[str], cpu_threads: int, **given: Any) -> list[Row]:
    """Return the rows of each head; `given` are those of Sizes.

    Raises RegistryError, ConfigError: a head that there is not, or that stands on none of TOWERS.
    """
    rows, sizes = list[Row](), Sizes(**given)
    with tempfile.TemporaryDirectory() as scratch, threads(cpu_threads):
        project = write_project(Path(scratch), sizes.classes, sizes.clips, sizes.size)
        tower = tower_step(project, sizes.tower_clips, sizes.size)
        for place, name in enumerate(heads):
            if HEADS[name].trains:
                rows += training_rows(project, name, tower, sizes)
            if HEADS[name].episode_free:
                rows += scoring_rows(project, name, sizes)
            done((place + 1) / len(heads))
    return rows
