"""Every configuration key: its type, its unit, and whether anything reads it. Defaults live in configs/pool/base.yaml.

A key marked inert is accepted because published files set it; nothing reads it (as in the published code), and a
run that sets it to something else than the default is told so.
"""

from dataclasses import dataclass

from utils.config.fields import key
from utils.config.sections import AugmentationConfig, DataConfig, TestConfig, TrainConfig

_TORCHRUN = "torchrun says which machines take part"
_NO_FEW_SHOT = "the few-shot loop of the published code never reads it"
_SOLVER_RULES = "the published optimizer reads SOLVER for learning rates and OPTIMIZER for the rest"


@dataclass(frozen=True, slots=True)
class EmaConfig:
    """MODEL.EMA"""

    ENABLE: bool = key("keep an average of the weights", inert=_NO_FEW_SHOT)
    DECAY: float = key("decay of that average", inert=_NO_FEW_SHOT)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """MODEL"""

    NAME: str | None = key("meta architecture; VIDEO.HEAD.NAME decides", inert=_NO_FEW_SHOT)
    EMA: EmaConfig = key("average of the weights")


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """VIDEO.HEAD"""

    NAME: str = key("few-shot head, from the heads registry (published: CNN_OTAM_CLIPFSAR)")
    BACKBONE_NAME: str = key("CLIP: RN50, ViT-B/16, any open_clip name, or a .json file in open_clip's model-config "
                             "format; images: resnet18, resnet34, resnet50 or mobilenet_v2")
    BACKBONE_WEIGHTS: str | None = key("random, a weights file, or null: the published ones (CLIP: openai; images: "
                                       "imagenet), downloaded and their SHA-256 checked")
    WEIGHTS_DIR: str | None = key("cache directory of downloaded weights; null: ~/.cache/clip, for images torch's own")
    ENCODER: str | None = key("what builds the towers, clip or image; null: what fits BACKBONE_NAME")
    MODULATOR: str = key("prototype modulator, from the modulators registry")
    ALIGNMENT: str = key("distance of two frame sequences, from the alignments registry")
    SMOOTHING: float = key("lambda of the soft minimum in OTAM", minimum=0.0)
    ACTIVATION: str = key("output activation", inert=_NO_FEW_SHOT)
    DROPOUT_RATE: float = key("dropout before the classifier", inert=_NO_FEW_SHOT)
    NUM_CLASSES: int | None = key("outputs of the classifier", inert=_NO_FEW_SHOT)


@dataclass(frozen=True, slots=True)
class VideoConfig:
    """VIDEO"""

    HEAD: HeadConfig = key("the few-shot head")


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """OPTIMIZER"""

    OPTIM_METHOD: str = key("adam, adamw or sgd", choices=("adam", "adamw", "sgd"))
    WEIGHT_DECAY: float = key("L2 weight decay of the upstream protocol", minimum=0.0)
    MOMENTUM: float = key("momentum of sgd", minimum=0.0)
    DAMPENING: float = key("dampening of sgd", minimum=0.0)
    NESTEROV: bool = key("Nesterov momentum of sgd")
    FUSED: bool = key("the update in one pass over memory; the same but for rounding")
    BASE_LR: float = key("learning rate", inert=_SOLVER_RULES)
    LR_POLICY: str | None = key("learning-rate policy", inert=_SOLVER_RULES)
    MAX_EPOCH: int | None = key("length of the policy", inert=_SOLVER_RULES)
    WARMUP_EPOCHS: float | None = key("length of the warm-up", inert=_SOLVER_RULES)
    WARMUP_START_LR: float | None = key("start of the warm-up", inert=_SOLVER_RULES)
    ADJUST_LR: bool = key("scale the learning rate with the batch", inert=_SOLVER_RULES)


@dataclass(frozen=True, slots=True)
class SolverConfig:
    """SOLVER"""

    BASE_LR: float = key("learning rate after the warm-up", minimum=0.0)
    LR_POLICY: str = key("steps_with_relative_lrs or cosine", choices=("steps_with_relative_lrs", "cosine"))
    STEPS_ITER: int = key("iterations a unit of progress takes", minimum=1)
    STEPS: tuple[float, ...] = key("progress at which each factor of LRS starts")
    LRS: tuple[float, ...] = key("factors of BASE_LR, one a step")
    MAX_EPOCH: float = key("progress at which the cosine policy ends")
    WARMUP_EPOCHS: float = key("length of the linear warm-up, in progress", minimum=0.0)
    WARMUP_START_LR: float = key("learning rate at iteration 0", minimum=0.0)
    WEIGHT_DECAY: float = key("L2 weight decay of the clean protocol", minimum=0.0)
    WEIGHT_DECAY_FROM: str = key("section whose WEIGHT_DECAY holds", choices=("OPTIMIZER", "SOLVER"))
    PROGRESS: str = key(
        "double: floor(i/STEPS_ITER) + i/STEPS_ITER, as published; single: i/STEPS_ITER", choices=("double", "single")
    )
    MEAN: tuple[float, ...] | None = key("pixel mean misplaced by CLIPFSAR_UCF101_5shot; see DATA.MEAN_FROM")
    STD: tuple[float, ...] | None = key("pixel deviation misplaced by CLIPFSAR_UCF101_5shot; see DATA.MEAN_FROM")
    OPTIM_METHOD: str | None = key("optimizer", inert=_SOLVER_RULES)
    MOMENTUM: float = key("momentum", inert=_SOLVER_RULES)
    DAMPENING: float = key("dampening", inert=_SOLVER_RULES)
    NESTEROV: bool = key("Nesterov momentum", inert=_SOLVER_RULES)


@dataclass(frozen=True, slots=True)
class BnConfig:
    """BN"""

    FREEZE: bool = key("keep batch-norm statistics and affine weights as loaded")
    WEIGHT_DECAY: float = key("weight decay of parameters named bn or norm", minimum=0.0)
    MOMENTUM: float = key("momentum of the running statistics", inert="CLIP towers keep torch's 0.1")
    EPS: float = key("epsilon", inert="CLIP towers keep torch's 1e-5")
    SYNC: bool = key("batch statistics over the episodes of all ranks, in training")
    WB_LOCK: bool = key("lock weight and bias", inert=_NO_FEW_SHOT)


@dataclass(frozen=True, slots=True)
class LoaderConfig:
    """DATA_LOADER"""

    NUM_WORKERS: int = key("decoding processes; 0 decodes in the main process", minimum=0)
    PIN_MEMORY: bool = key("page-locked episodes, which a GPU fetches while the process goes on (NUM_GPUS over 0)")


@dataclass(frozen=True, slots=True)
class Config:
    """A run's resolved configuration."""

    PROTOCOL: str = key("upstream: every published numeric quirk; clean: none of them", choices=("upstream", "clean"))
    TASK_TYPE: str = key("the only task here", choices=("few_shot_action",))
    RANDOM_SEED: int = key("seed of episodes, frames, augmentation and weights", minimum=0)
    RANDOM_SEEDS: tuple[int, ...] | None = key("seeds to train and test one by one, in OUTPUT_DIR/seed_<n>; null: one",
                                               minimum=0)
    OUTPUT_DIR: str = key("directory of everything a run writes")
    LOG_PERIOD: int = key("iterations between two records of log.jsonl", minimum=1)
    NUM_GPUS: int = key("CUDA devices of this machine, one rank each; 0: CPU. Under torchrun only whether it is 0",
                        minimum=0)
    NUM_PROCESSES: int = key("ranks on the CPU (NUM_GPUS 0)", minimum=1)
    SHARD_ID: int = key("rank of this machine", inert=_TORCHRUN)
    NUM_SHARDS: int = key("number of machines", inert=_TORCHRUN)
    DIST_BACKEND: str = key("communication between ranks", inert="nccl on GPUs, gloo on CPUs")
    TRAIN: TrainConfig = key("training and episodes")
    TEST: TestConfig = key("testing")
    DATA: DataConfig = key("videos and frames")
    AUGMENTATION: AugmentationConfig = key("augmentation of training clips")
    MODEL: ModelConfig = key("model")
    VIDEO: VideoConfig = key("encoder and head")
    OPTIMIZER: OptimizerConfig = key("optimizer")
    SOLVER: SolverConfig = key("learning rate")
    BN: BnConfig = key("batch normalisation")
    DATA_LOADER: LoaderConfig = key("loader")
