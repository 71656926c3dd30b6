"""Build what a training needs from the configuration: learning rates, optimizer, numbers of the loop."""

import torch

from models.builder import FewShotModel
from runs.training.step import LoopOptions
from utils import allocator
from utils.config.schema import Config
from utils.optim import OptimizerSettings, build_optimizer
from utils.schedule import Schedule


def schedule_of(cfg: Config) -> Schedule:
    """Return the learning rates of SOLVER."""
    s = cfg.SOLVER
    return Schedule(s.BASE_LR, s.STEPS_ITER, s.STEPS, s.LRS, s.WARMUP_EPOCHS, s.WARMUP_START_LR, s.LR_POLICY,
                    s.MAX_EPOCH, s.PROGRESS == "double")


def optimizer_of(cfg: Config, model: FewShotModel) -> torch.optim.Optimizer:
    """Build OPTIMIZER's optimizer over the head's groups; SOLVER.WEIGHT_DECAY_FROM says whose decay holds."""
    o = cfg.OPTIMIZER
    groups = model.head.parameter_groups()
    own = None if groups is None else [{"params": list(group.parameters), "weight_decay": group.weight_decay,
                                        "lr_scale": group.lr_scale} for group in groups]
    decay = cfg.SOLVER.WEIGHT_DECAY if cfg.SOLVER.WEIGHT_DECAY_FROM == "SOLVER" else o.WEIGHT_DECAY
    return build_optimizer(model, OptimizerSettings(
        method=o.OPTIM_METHOD, lr=cfg.SOLVER.BASE_LR, weight_decay=decay, norm_weight_decay=cfg.BN.WEIGHT_DECAY,
        momentum=o.MOMENTUM, dampening=o.DAMPENING, nesterov=o.NESTEROV, eps=o.EPS, fused=o.FUSED),
                           own)


def keep_memory(cfg: Config) -> None:
    """Have this process keep what its steps free, if TRAIN.KEEP_MEMORY says so and they are taken on the CPU."""
    if cfg.TRAIN.KEEP_MEMORY and cfg.NUM_GPUS == 0:
        allocator.keep_freed_memory()


def loop_options(cfg: Config) -> LoopOptions:
    """Return the numbers of the training loop."""
    t = cfg.TRAIN
    return LoopOptions(iterations=t.NUM_TRAIN_TASKS, validate_every=t.VAL_FRE_ITER,
                       iterations_a_step=t.BATCH_SIZE_PER_TASK, log_every=cfg.LOG_PERIOD,
                       together=t.EPISODES_PER_STEP, clip_grad_norm=t.CLIP_GRAD_NORM, precision=t.PRECISION,
                       skip_nonfinite=t.ON_NONFINITE == "skip", seed=cfg.RANDOM_SEED,
                       mean_over_ranks=t.RANK_GRADIENTS == "mean", batch_over_ranks=cfg.BN.SYNC)
