"""Config -> model and losses: the one place under models/ that knows the configuration."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn

import models.encoders.clip
import models.heads
import models.layers.alignment
import models.layers.modulator  # noqa: F401  (these imports fill the registries)
from models.encoders.clip import Encoder
from models.heads.clip_fsar import FewShotModel, HeadOptions
from models.layers.efficiency import checkpoint_blocks, has_batch_statistics
from models.losses import Criterion, clip_fsar_criterion
from models.registries import ALIGNMENTS, ENCODERS, HEADS, MODULATORS
from utils.config.class_names import names_by_split
from utils.config.schema import Config
from utils.errors import ConfigError

_LOGGER = logging.getLogger(__name__)


def build_encoder(cfg: Config, names: Mapping[str, Sequence[str]]) -> Encoder:
    """The encoder of VIDEO.HEAD with text features of `names`. Raises ConfigError when a crop does not fit it."""
    head = cfg.VIDEO.HEAD
    encoder = ENCODERS[head.ENCODER](
        name=head.BACKBONE_NAME, weights=head.BACKBONE_WEIGHTS, weights_dir=head.WEIGHTS_DIR, class_names=names,
        prompt=cfg.TEST.PROMPT,
    )
    problems = [
        f"DATA.{key}: {head.BACKBONE_NAME} takes pictures of {encoder.image_size} pixels, found a crop of {crop}"
        for key, crop in (("TRAIN_CROP_SIZE", cfg.DATA.TRAIN_CROP_SIZE), ("TEST_CROP_SIZE", cfg.DATA.TEST_CROP_SIZE))
        if crop != encoder.image_size
    ]
    if problems:
        raise ConfigError(problems)
    return encoder


def head_options(cfg: Config) -> HeadOptions:
    """The method's switches from TRAIN."""
    train = cfg.TRAIN
    return HeadOptions(merge_before=train.MERGE_BEFORE, eval_text=train.EVAL_TEXT, combine=train.COMBINE,
                       text_weight=train.TEXT_COFF, combine_frames=train.COMBINE_FRAMES)


def build_model(cfg: Config) -> FewShotModel:
    """The model of a configuration on the CPU, with its backbone's weights loaded."""
    encoder = build_encoder(cfg, names_by_split(cfg))
    head = cfg.VIDEO.HEAD
    distance = partial(ALIGNMENTS[head.ALIGNMENT], smoothing=head.SMOOTHING,
                       single_direction=cfg.TRAIN.SINGLE_DIRECT)
    model = FewShotModel(HEADS[head.NAME](
        backbone=encoder.visual, modulator=MODULATORS[head.MODULATOR](encoder.dim, cfg.TRAIN.TRANSFORMER_DEPTH),
        text_features=encoder.text_features, distance=distance, options=head_options(cfg),
    ))
    if cfg.BN.FREEZE:
        freeze_batch_norm(model)
    _make_efficient(model, cfg)
    return model


def _make_efficient(model: FewShotModel, cfg: Config) -> None:
    """TRAIN.CHANNELS_LAST, GRAD_CHECKPOINT and COMPILE. Raises ConfigError where they do not fit the tower."""
    train, tower = cfg.TRAIN, model.head.backbone
    if train.EPISODES_PER_STEP > 1 and has_batch_statistics(tower):
        _LOGGER.warning("TRAIN.EPISODES_PER_STEP %d: %s has batch statistics, so every clip set passes it alone, and "
                        "nothing is gained", train.EPISODES_PER_STEP, cfg.VIDEO.HEAD.BACKBONE_NAME)
    if train.CHANNELS_LAST:
        tower.to(memory_format=torch.channels_last)  # convolutions hand the format on, whatever the pictures have
    if train.GRAD_CHECKPOINT:
        checkpoint_blocks(tower)
    if train.COMPILE:
        if train.GRAD_CHECKPOINT and has_batch_statistics(tower):
            raise ConfigError(["TRAIN.COMPILE, TRAIN.GRAD_CHECKPOINT: of a tower with batch statistics only one of "
                               f"them can be had, found both with {cfg.VIDEO.HEAD.BACKBONE_NAME}"])
        model.head.compile_training()


def freeze_batch_norm(model: FewShotModel) -> None:
    """Batch-norm layers keep statistics and affine weights as they are, in training, too."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
            module.eval()
            module.train = lambda mode=True, module=module: module


def build_criterion(cfg: Config) -> Criterion:
    """The losses of TRAIN.USE_CLASSIFICATION*, divided by TRAIN.BATCH_SIZE."""
    train = cfg.TRAIN
    return clip_fsar_criterion(
        use_classification=train.USE_CLASSIFICATION, classification_weight=train.USE_CLASSIFICATION_VALUE,
        classification_only=train.USE_CLASSIFICATION_ONLY, divisor=train.BATCH_SIZE,
    )
