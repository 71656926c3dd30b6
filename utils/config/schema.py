"""Declare every configuration key: its type, its unit, what it affects. Defaults live in configs/pool/base.yaml.

Keys that published files set and nothing reads stand in configs/pool/inert_keys.yaml instead.
"""

from dataclasses import dataclass
from typing import Any

from utils.config.fields import NUMBERS, PLACE, SPEED, TRAINING, free_section, key, section
from utils.config.sections import AugmentationConfig, DataConfig, TestConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """VIDEO.HEAD"""

    NAME: str = key("few-shot head, from the heads registry (published: CNN_OTAM_CLIPFSAR)", affects=NUMBERS)
    BACKBONE_NAME: str = key("CLIP: RN50, ViT-B/16, any open_clip name, or a .json file in open_clip's model-config "
                             "format; images: resnet18, resnet34, resnet50 or mobilenet_v2", affects=NUMBERS)
    BACKBONE_WEIGHTS: str | None = key("random, a weights file, or null: the published ones (CLIP: openai; images: "
                                       "imagenet), downloaded and their SHA-256 checked", affects=NUMBERS)
    WEIGHTS_DIR: str | None = key("cache directory of downloaded weights; null: ~/.cache/clip, for images torch's own",
                                  affects=PLACE)
    ENCODER: str | None = key("what builds the towers, clip or image; null: what fits BACKBONE_NAME", affects=NUMBERS)
    PRETRAINING: str | None = key("one line on what the tower's weights were trained on, for tables, which mark towers "
                                  "trained on the tested data set; null: what the encoder knows of them",
                                  affects=PLACE)
    OPTIONS: dict[str, Any] = free_section("the head's own options, typed by its Options class (models/heads)")


@dataclass(frozen=True, slots=True)
class VideoConfig:
    """VIDEO"""

    HEAD: HeadConfig = section("the few-shot head")


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """OPTIMIZER"""

    OPTIM_METHOD: str = key("adam, adamw or sgd", affects=TRAINING, choices=("adam", "adamw", "sgd"))
    WEIGHT_DECAY: float = key("L2 weight decay of the upstream protocol", affects=TRAINING, minimum=0.0)
    MOMENTUM: float = key("momentum of sgd", affects=TRAINING, minimum=0.0)
    DAMPENING: float = key("dampening of sgd", affects=TRAINING, minimum=0.0)
    NESTEROV: bool = key("Nesterov momentum of sgd", affects=TRAINING)
    EPS: float = key("added to the root of the second moment by adam and adamw", affects=TRAINING, minimum=0.0)
    FUSED: bool = key("the update in one pass over memory; the same but for rounding", affects=SPEED)


@dataclass(frozen=True, slots=True)
class SolverConfig:
    """SOLVER"""

    BASE_LR: float = key("learning rate after the warm-up", affects=TRAINING, minimum=0.0)
    LR_POLICY: str = key("steps_with_relative_lrs, cosine, or cosine_late: one iteration late, as TS-FSAR's",
                         affects=TRAINING, choices=("steps_with_relative_lrs", "cosine", "cosine_late"))
    STEPS_ITER: int = key("iterations a unit of progress takes", affects=TRAINING, minimum=1)
    STEPS: tuple[float, ...] = key("progress at which each factor of LRS starts", affects=TRAINING)
    LRS: tuple[float, ...] = key("factors of BASE_LR, one a step", affects=TRAINING, minimum=0.0)
    MAX_EPOCH: float = key("progress at which the cosine policy ends", affects=TRAINING)
    WARMUP_EPOCHS: float = key("length of the linear warm-up, in progress", affects=TRAINING, minimum=0.0)
    WARMUP_START_LR: float = key("learning rate at iteration 0", affects=TRAINING, minimum=0.0)
    WEIGHT_DECAY: float = key("L2 weight decay of the clean protocol", affects=TRAINING, minimum=0.0)
    WEIGHT_DECAY_FROM: str = key("section whose WEIGHT_DECAY holds", affects=TRAINING, choices=("OPTIMIZER", "SOLVER"))
    PROGRESS: str = key("double: floor(i/STEPS_ITER) + i/STEPS_ITER, as published; single: i/STEPS_ITER",
                        affects=TRAINING, choices=("double", "single"))
    MEAN: tuple[float, ...] | None = key("pixel mean misplaced by CLIPFSAR_UCF101_5shot; see DATA.MEAN_FROM",
                                         affects=NUMBERS, items=3)
    STD: tuple[float, ...] | None = key("pixel deviation misplaced by CLIPFSAR_UCF101_5shot; see DATA.MEAN_FROM",
                                        affects=NUMBERS, items=3, above=0.0)


@dataclass(frozen=True, slots=True)
class BnConfig:
    """BN"""

    FREEZE: bool = key("keep batch-norm statistics and affine weights as loaded", affects=TRAINING)
    WEIGHT_DECAY: float = key("weight decay of parameters named bn or norm", affects=TRAINING, minimum=0.0)
    SYNC: bool = key("batch statistics over the episodes of all ranks, in training", affects=TRAINING)


@dataclass(frozen=True, slots=True)
class LoaderConfig:
    """DATA_LOADER"""

    NUM_WORKERS: int = key("decoding processes; 0 decodes in the main process", affects=SPEED, minimum=0)
    PIN_MEMORY: bool = key("page-locked episodes, which a GPU fetches while the process goes on (NUM_GPUS over 0)",
                           affects=SPEED)


@dataclass(frozen=True, slots=True)
class Config:
    """Hold a run's resolved configuration."""

    PROTOCOL: str = key("upstream: every published numeric quirk; clean: none of them",
                        affects=NUMBERS, choices=("upstream", "clean"))
    TASK_TYPE: str = key("the only task here", affects=NUMBERS, choices=("few_shot_action",))
    RANDOM_SEED: int = key("seed of episodes, frames, augmentation and weights", affects=NUMBERS, minimum=0)
    RANDOM_SEEDS: tuple[int, ...] | None = key("seeds to train and test one by one, in OUTPUT_DIR/seed_<n>; null: one",
                                               affects=NUMBERS, minimum=0)
    OUTPUT_DIR: str = key("directory of everything a run writes", affects=PLACE)
    LOG_PERIOD: int = key("iterations between two records of log.jsonl", affects=PLACE, minimum=1)
    # With n ranks an iteration takes n episodes, so a training depends on the number of ranks; a test does not.
    NUM_GPUS: int = key("CUDA devices of this machine, one rank each; 0: CPU. Under torchrun only whether it is 0",
                        affects=TRAINING, may_change=True, minimum=0)
    NUM_PROCESSES: int = key("ranks on the CPU (NUM_GPUS 0)", affects=TRAINING, may_change=True, minimum=1)
    TRAIN: TrainConfig = section("training and episodes")
    TEST: TestConfig = section("testing")
    DATA: DataConfig = section("videos and frames")
    AUGMENTATION: AugmentationConfig = section("augmentation of training clips")
    VIDEO: VideoConfig = section("encoder and head")
    OPTIMIZER: OptimizerConfig = section("optimizer")
    SOLVER: SolverConfig = section("learning rate")
    BN: BnConfig = section("batch normalisation")
    DATA_LOADER: LoaderConfig = section("loader")
