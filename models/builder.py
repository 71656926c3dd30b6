"""Config -> model and losses: the one place under models/ that knows the configuration."""

import logging
from functools import partial

import torch

import models.encoders.clip
import models.heads
import models.layers.alignment
import models.layers.modulator  # noqa: F401  (these imports fill the registries)
from models.encoders import image
from models.encoders.base import Encoder, Output
from models.heads.clip_fsar import FewShotModel, HeadOptions
from models.layers.batch_norm import freeze_batch_norm
from models.layers.efficiency import checkpoint_blocks, has_batch_statistics
from models.losses import Criterion, clip_fsar_criterion
from models.registries import ALIGNMENTS, ENCODERS, HEADS, MODULATORS
from utils.config.class_names import names_by_split
from utils.config.schema import Config, HeadConfig
from utils.errors import ConfigError

_LOGGER = logging.getLogger(__name__)


def _fitting_encoder(name: str) -> str:
    """The encoder that builds a BACKBONE_NAME."""
    return "image" if name in image.NAMES else "clip"


def encoder_problems(head: HeadConfig) -> dict[str, str]:
    """Find what is wrong with the names of VIDEO.HEAD's encoder, by dotted key; empty where they fit together."""
    name, encoder, weights, found = head.BACKBONE_NAME, head.ENCODER, head.BACKBONE_WEIGHTS, {}
    fits = _fitting_encoder(name)
    other = {"clip": "image", "image": "clip"}[fits]
    advice = f"leave it empty, or write {fits} (VIDEO.HEAD.BACKBONE_NAME alone says which tower is built)"
    if encoder is not None and encoder not in ENCODERS:
        found["VIDEO.HEAD.ENCODER"] = f"{ENCODERS.unknown(encoder)}; {advice}"
    elif encoder == other:
        found["VIDEO.HEAD.ENCODER"] = f"{other} does not build {name}; {advice}"
    official = {"clip": "openai", "image": "imagenet"}
    if weights == official[other]:
        found["VIDEO.HEAD.BACKBONE_WEIGHTS"] = (
            f"{weights} has no weights for {name}; leave it empty for its published ones, or write {official[fits]}, "
            "random, or the name of a file")
    return found


def build_encoder(cfg: Config, reads_text: bool, output: Output = "vector") -> Encoder:
    """Build the towers that VIDEO.HEAD names.

    Args:
        reads_text: whether the head reads text; otherwise no text tower is built.
        output: what the head wants of each frame: a vector, or a map.

    Raises ConfigError where names do not fit together or a crop does not fit the tower, WeightsError for weights that
    are missing, damaged or of another tower.
    """
    head = cfg.VIDEO.HEAD
    if problems := encoder_problems(head):
        raise ConfigError([f"{key}: {text}" for key, text in problems.items()])
    encoder = ENCODERS[head.ENCODER or _fitting_encoder(head.BACKBONE_NAME)](
        name=head.BACKBONE_NAME, weights=head.BACKBONE_WEIGHTS, weights_dir=head.WEIGHTS_DIR, reads_text=reads_text,
        output=output)
    wrong = [
        f"DATA.{key}: {head.BACKBONE_NAME} takes pictures of {encoder.image_size} pixels, found a crop of {crop}"
        for key, crop in (("TRAIN_CROP_SIZE", cfg.DATA.TRAIN_CROP_SIZE), ("TEST_CROP_SIZE", cfg.DATA.TEST_CROP_SIZE))
        if encoder.image_size not in (None, crop)
    ]
    if wrong:
        raise ConfigError(wrong)
    _LOGGER.info("encoder %s, weights %s, pretraining: %s", head.BACKBONE_NAME, encoder.weights, encoder.pretraining)
    return encoder


def head_options(cfg: Config) -> HeadOptions:
    """The method's switches from TRAIN."""
    train = cfg.TRAIN
    return HeadOptions(merge_before=train.MERGE_BEFORE, eval_text=train.EVAL_TEXT, combine=train.COMBINE,
                       text_weight=train.TEXT_COFF, combine_frames=train.COMBINE_FRAMES)


def build_model(cfg: Config) -> FewShotModel:
    """The model of a configuration on the CPU, with its backbone's weights loaded."""
    encoder = build_encoder(cfg, reads_text=True)
    text = {split: encoder.text(names, cfg.TEST.PROMPT) for split, names in names_by_split(cfg).items()}
    head = cfg.VIDEO.HEAD
    distance = partial(ALIGNMENTS[head.ALIGNMENT], smoothing=head.SMOOTHING,
                       single_direction=cfg.TRAIN.SINGLE_DIRECT)
    model = FewShotModel(HEADS[head.NAME](
        backbone=encoder.visual, modulator=MODULATORS[head.MODULATOR](encoder.dim, cfg.TRAIN.TRANSFORMER_DEPTH),
        text_features=text, distance=distance, options=head_options(cfg),
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


def build_criterion(cfg: Config) -> Criterion:
    """The losses of TRAIN.USE_CLASSIFICATION*, divided by TRAIN.BATCH_SIZE."""
    train = cfg.TRAIN
    return clip_fsar_criterion(
        use_classification=train.USE_CLASSIFICATION, classification_weight=train.USE_CLASSIFICATION_VALUE,
        classification_only=train.USE_CLASSIFICATION_ONLY, divisor=train.BATCH_SIZE,
    )
