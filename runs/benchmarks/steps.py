"""Builds a training step in two ways, for bench_step.py: as the code base does it, and written plainly.

N = way*shot supports, M queries, K ways, T frames, C/H/W image.
"""

import concurrent.futures
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.builder import FewShotModel, build_model
from models.encoders.clip import tower_config
from models.heads.base import Features, Role
from runs.benchmarks.ending import deaf_to_interrupts, ending_workers
from runs.benchmarks.hardware import peak_memory
from runs.benchmarks.timing import Found
from runs.benchmarks.towers import SMALL_VIT
from runs.training.complexity import clip_flops
from runs.training.setup import keep_memory, loop_options, optimizer_of
from runs.training.step import Learner, PassPosition
from utils.config import resolve_config
from utils.config.schema import Config
from utils.device import choose_device
from utils.episode import Episode
from utils.errors import BenchmarkError
from utils.seed import seed_everything

SMALL = "small"  # towers.SMALL_VIT
CLASSES = 64  # training classes, as in Kinetics-100
LR = 1e-5
LESS = "a lower --query, --frames or --size, and --grad-checkpoint, need less"
Step = Callable[[], None]


@dataclass(frozen=True, slots=True)
class StepOptions:
    """Says what a step is made of.

    Args:
        backbone: RN50, ViT-B/16, any open_clip name, a .json model config, or small.
        way, shot, query: of an episode; query a class. frames: T of a clip.
        size: side of the picture in pixels; 0: the tower's.
        precision, channels_last, onednn, keep_memory, compile, grad_checkpoint: of the step as it is, never of the
            plain one.
        episodes: episodes of one step, in one pass of the step as it is.
        alignment: VIDEO.HEAD.ALIGNMENT of the step as it is; empty: a run's default.
        device: cpu or cuda.
    """

    backbone: str = SMALL
    way: int = 5
    shot: int = 1
    query: int = 1
    frames: int = 8
    size: int = 0
    precision: str = "fp32"
    channels_last: bool = True
    onednn: bool = False
    keep_memory: bool = True
    compile: bool = False
    grad_checkpoint: bool = False
    episodes: int = 1
    alignment: str = ""
    device: str = "cpu"

    @property
    def clips(self) -> int:
        """The clips of a step."""
        return self.episodes * self.way * (self.shot + self.query)


def overrides(options: StepOptions) -> list[str]:
    """Return the KEY VALUE pairs of the step as it is."""
    pairs = {"TRAIN.PRECISION": options.precision, "TRAIN.EPISODES_PER_STEP": options.episodes}
    for name in ("channels_last", "onednn", "keep_memory", "compile", "grad_checkpoint"):
        pairs[f"TRAIN.{name.upper()}"] = str(getattr(options, name)).lower()
    if options.alignment:
        pairs["VIDEO.HEAD.ALIGNMENT"] = options.alignment
    return [str(part) for pair in pairs.items() for part in pair]


PLAIN = ("TRAIN.CHANNELS_LAST", "false", "VIDEO.HEAD.ALIGNMENT", "otam_reference")  # of the step written plainly


def tower_name(backbone: str, scratch: Path) -> str:
    """Return the BACKBONE_NAME of a backbone; the description of a small one is written into `scratch`."""
    if backbone != SMALL:
        return backbone
    path = scratch / "small.json"
    path.write_text(json.dumps(SMALL_VIT))
    return str(path)


def configuration(options: StepOptions, pairs: Sequence[str], scratch: Path) -> Config:
    """Load a run's configuration from a project file in `scratch`. Raises ConfigError, WeightsError."""
    backbone = tower_name(options.backbone, scratch)
    size = options.size or tower_config(backbone)["vision_cfg"]["image_size"]
    names = [f"class {n}" for n in range(max(CLASSES, options.way))]
    project = scratch / "project.yaml"
    project.write_text(json.dumps({  # JSON is YAML
        "PROTOCOL": "clean", "NUM_GPUS": int(options.device == "cuda"), "OUTPUT_DIR": str(scratch / "out"),
        "TRAIN": {"WAY": options.way, "SHOT": options.shot, "QUERY_PER_CLASS": options.query, "CLASS_NAME": names,
                  "BATCH_SIZE_PER_TASK": options.episodes, "VAL_CLASS_NAME": names[:options.way]},
        "TEST": {"CLASS_NAME": names[:options.way]},
        "DATA": {"NUM_INPUT_FRAMES": options.frames, "TRAIN_CROP_SIZE": size, "TEST_CROP_SIZE": size,
                 "TRAIN_JITTER_SCALES": [size, size], "TEST_SCALE": size},
        "VIDEO": {"HEAD": {"BACKBONE_NAME": backbone, "BACKBONE_WEIGHTS": "random"}}}))
    return resolve_config(project, pairs).config


def random_episodes(options: StepOptions, cfg: Config) -> list[Episode]:
    """Make the episodes of one step of random pixels, on the device: moving them there is loading."""
    device, found = choose_device(cfg.NUM_GPUS), []
    for number in range(options.episodes):
        draw, size = torch.Generator().manual_seed(number), cfg.DATA.TRAIN_CROP_SIZE
        labels = [torch.arange(options.way).repeat_interleave(each) for each in (options.shot, options.query)]
        support, query = (torch.randn(len(one), options.frames, 3, size, size, generator=draw) for one in labels)
        found.append(Episode(support, labels[0], labels[0], query, labels[1], labels[1],
                             torch.arange(options.way)).to(device))
    return found


def _model(cfg: Config) -> FewShotModel:
    """Build the run's model on its device, in training mode, with the same weights each time."""
    seed_everything(0)
    return build_model(cfg).to(choose_device(cfg.NUM_GPUS)).train()


def step_of_a_run(cfg: Config) -> Callable[[Sequence[Episode]], None]:
    """Return a run's step on the episodes that it is given, taken by runs/training/step.py."""
    model = _model(cfg)
    learner = Learner(model, optimizer_of(cfg, model), loop_options(cfg), lambda episode: "",
                      choose_device(cfg.NUM_GPUS))

    def step(episodes: Sequence[Episode]) -> None:
        learner.learn(episodes, PassPosition(0, 0, LR))
        learner.step()

    return step


def as_it_is(cfg: Config, episodes: Sequence[Episode]) -> Step:
    """Return a run's step on these episodes."""
    return partial(step_of_a_run(cfg), episodes)


def plain_losses(model: FewShotModel, episode: Episode) -> dict[str, Tensor]:
    """Return the losses of an episode whose supports and queries pass the tower apart."""
    encoded: dict[Role, Features] = {"support": model.head.encode(episode.support_NTCHW),
                                     "query": model.head.encode(episode.query_MTCHW)}
    return model.head.losses(model.head.output(episode, encoded, model.text("train")), episode)


def written_plainly(cfg: Config, episodes: Sequence[Episode]) -> Step:
    """Return the same step in float32 with torch's defaults: memory format, number formats, Adam that is not fused."""
    model = _model(cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)

    def step() -> None:
        for episode in episodes:
            torch.stack(list(plain_losses(model, episode).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step_flops(cfg: Config, options: StepOptions) -> float:
    """Count the floating-point operations of a step: 2 a multiply-add, 3 times the forward pass (2 of them backward).

    The head's parts; alignment, losses and Adam are left out, as are the multiply-adds of what is computed twice.
    """
    model, size = build_model(cfg), cfg.DATA.TRAIN_CROP_SIZE
    clips: dict[Role, int] = {"support": options.way * options.shot, "query": options.way * options.query}
    adds = sum(count * sum(clip_flops(model, options.frames, size, role).values()) for role, count in clips.items())
    return 2.0 * 3 * adds * options.episodes


def kept_step(cfg: Config, options: StepOptions, plain: bool) -> Step:
    """Return a step of a process of its own, whose memory is kept as a run's is; never that of the plain one."""
    if not plain:
        keep_memory(cfg)
    return (written_plainly if plain else as_it_is)(cfg, random_episodes(options, cfg))


def _memory(options: StepOptions, pairs: Sequence[str], plain: bool, scratch: Path) -> float:
    """Return the bytes of two steps at their highest, after one that fills the optimizer's state."""
    cfg = configuration(options, pairs, scratch)
    step = kept_step(cfg, options, plain)
    step()
    return peak_memory(lambda: (step(), step()), choose_device(cfg.NUM_GPUS))


def alone(options: StepOptions, work: Callable[..., Found], *given: Any) -> Found:
    """Return what a function gives for some arguments in a process that does nothing else.

    Raises BenchmarkError where that process is ended, as systems do that run out of memory.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            with ending_workers():
                with deaf_to_interrupts():
                    found = pool.submit(work, *given)
                return found.result()
        except BrokenProcessPool as error:
            raise BenchmarkError(f"a training step of {options.clips} clips was ended by the system, which has likely "
                                 f"too little memory for it; {LESS}") from error


def step_memory(options: StepOptions, plain: bool) -> float:
    """Return a training step's bytes at their highest. Raises BenchmarkError: see alone."""
    pairs = PLAIN if plain else overrides(options)
    with tempfile.TemporaryDirectory() as scratch:
        return alone(options, _memory, options, pairs, plain, Path(scratch))
