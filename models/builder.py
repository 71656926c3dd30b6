"""Build the model of a configuration; nothing else under models/ knows the configuration."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models.encoders.clip
import models.heads
import models.layers.alignment
import models.layers.modulator  # noqa: F401  (these imports fill the registries)
from models.encoders import image
from models.encoders.base import Encoder, Output, Text
from models.heads.base import Head, Setting
from models.layers.batch_norm import freeze_batch_norm
from models.layers.efficiency import checkpoint_blocks, has_batch_statistics
from models.layers.products import products_lag, shorten_pool, use_onednn
from models.registries import ENCODERS, HEADS
from utils.config.class_names import names_by_split
from utils.config.layers import read_layer
from utils.config.options import head_options
from utils.config.schema import Config, HeadConfig
from utils.config.sections import TrainConfig
from utils.episode import Episode, EpisodeOutput
from utils.errors import ConfigError, EpisodeError

_LOGGER = logging.getLogger(__name__)


def _fitting_encoder(name: str) -> str:
    """Return the encoder that builds a BACKBONE_NAME."""
    return "image" if name in image.NAMES else "clip"


OFFICIAL = {"clip": "openai", "image": "imagenet"}  # encoder to the name of its published weights


def with_encoder(head: HeadConfig) -> HeadConfig:
    """Return VIDEO.HEAD with the encoder and the weights that an empty ENCODER and BACKBONE_WEIGHTS mean."""
    encoder = head.ENCODER or _fitting_encoder(head.BACKBONE_NAME)
    return replace(head, ENCODER=encoder, BACKBONE_WEIGHTS=head.BACKBONE_WEIGHTS or OFFICIAL[encoder])


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
    if weights == OFFICIAL[other]:
        found["VIDEO.HEAD.BACKBONE_WEIGHTS"] = (
            f"{weights} has no weights for {name}; leave it empty for its published ones, or write {OFFICIAL[fits]}, "
            "random, or the name of a file")
    return found


def build_encoder(cfg: Config, reads_text: bool, output: Output = "vector",
                  tower: Mapping[str, Any] | None = None) -> Encoder:
    """Build the towers that VIDEO.HEAD names.

    Args:
        reads_text: whether the head reads text; otherwise no text tower is built.
        output: what the head wants of each frame: a vector, or a map.
        tower: an Encoder.config that was kept: what BACKBONE_NAME means may not be known here.

    Raises ConfigError where names do not fit together or a crop does not fit the tower, WeightsError for weights that
    are missing, damaged or of another tower.
    """
    head = cfg.VIDEO.HEAD
    if problems := encoder_problems(head):
        raise ConfigError([f"{key}: {text}" for key, text in problems.items()])
    encoder = ENCODERS[head.ENCODER or _fitting_encoder(head.BACKBONE_NAME)](
        name=head.BACKBONE_NAME, weights=head.BACKBONE_WEIGHTS, weights_dir=head.WEIGHTS_DIR, reads_text=reads_text,
        output=output, config=tower)
    wrong = [
        f"DATA.{key}: {head.BACKBONE_NAME} takes pictures of {encoder.image_size} pixels, found a crop of {crop}"
        for key, crop in (("TRAIN_CROP_SIZE", cfg.DATA.TRAIN_CROP_SIZE), ("TEST_CROP_SIZE", cfg.DATA.TEST_CROP_SIZE))
        if encoder.image_size not in (None, crop)
    ]
    if wrong:
        raise ConfigError(wrong)
    if head.PRETRAINING is not None:
        encoder = replace(encoder, pretraining=head.PRETRAINING)
    _LOGGER.info("encoder %s, weights %s, pretraining: %s", head.BACKBONE_NAME, encoder.weights, encoder.pretraining)
    return encoder


class FewShotModel(nn.Module):
    """Joins a head, under whose name `head.` all weights lie in a checkpoint, and the texts of each split's classes.

    Args:
        head: the method. text_features: split name to [G, D]; empty where the head reads no text.
    """

    head: Head

    def __init__(self, head: Head, text_features: Mapping[str, Tensor] | None = None):
        super().__init__()
        self.head = head
        for split, features in (text_features or {}).items():
            self.register_buffer(f"text_{split}", features.detach().clone().float(), persistent=False)

    def text(self, split: str) -> Tensor | None:
        """Return the text features [G, D] of a split's classes; None for a head that reads no text.

        Raises EpisodeError for a split without class names.
        """
        if not self.head.reads_text:
            return None
        known = sorted(name.removeprefix("text_") for name, _ in self.named_buffers(recurse=False))
        if split not in known:
            raise EpisodeError(f"no class names were given for the {split} split (given: {', '.join(known)})")
        return self.get_buffer(f"text_{split}")

    def forward(self, episode: Episode, text_GD: Tensor | None) -> EpisodeOutput:
        """Return the head's output of one episode."""
        return self.head(episode, text_GD)


def _episode_sizes(train: TrainConfig) -> tuple[tuple[int, int], ...]:
    """Return ways and shots of training and of the test."""
    return (train.WAY, train.SHOT), (train.WAY_TEST or train.WAY, train.SHOT_TEST or train.SHOT)


def class_texts(read: Text, names: Mapping[str, Sequence[str]], cfg: Config) -> dict[str, Tensor]:
    """Return the text features [G, D] of each list of class names, whatever its key: a split's, or someone's own.

    They are read in TEST.PROMPT, or are means over the sentences of a file (TEST.PROMPTS).

    Args:
        read: the text of an encoder; it may be called as often as there are new names.

    Raises ConfigError naming the classes that TEST.PROMPTS has no sentences for.
    """
    if cfg.TEST.PROMPTS is None:
        return {split: read(own, cfg.TEST.PROMPT) for split, own in names.items()}
    layer = read_layer(Path(cfg.TEST.PROMPTS))
    given = {name.replace("_", " "): sentences for name, sentences in layer.values.items() if isinstance(name, str)}
    lists = {name: given.get(name.replace("_", " ")) for own in names.values() for name in own}
    wrong = [name for name, sentences in lists.items() if not isinstance(sentences, list) or not sentences
             or not all(isinstance(one, str) for one in sentences)]
    if wrong:
        raise ConfigError([f"{layer.name}: expected a list of sentences for each class (TEST.PROMPTS), found none for "
                           f"{len(wrong)}: {', '.join(wrong[:5])}"])
    means = {name: F.normalize(read(cast(list[str], sentences), "{}"), dim=-1).mean(dim=0)
             for name, sentences in lists.items()}
    return {split: F.normalize(torch.stack([means[name] for name in own]), dim=-1) for split, own in names.items()}


def build_head(cfg: Config, tower: Mapping[str, Any] | None = None) -> tuple[Head, Encoder]:
    """Build the head of a configuration on the CPU, its tower's weights loaded, and the encoder that reads names.

    No class names are needed: `class_texts(encoder.text, {"mine": names}, cfg)` reads any, at any time. A checkpoint is
    loaded into `FewShotModel(head)`. `tower` is an Encoder.config that was kept, in place of the one of BACKBONE_NAME.
    """
    kind = HEADS[cfg.VIDEO.HEAD.NAME]
    encoder = build_encoder(cfg, kind.reads_text, kind.tower_output, tower)
    setting = Setting(frames=cfg.DATA.NUM_INPUT_FRAMES, train_classes=len(cfg.TRAIN.CLASS_NAME or ()),
                      loss_divisor=cfg.TRAIN.BATCH_SIZE, episodes=_episode_sizes(cfg.TRAIN),
                      texts="names" if cfg.TEST.PROMPTS is None else "llm")
    head = kind(encoder, setting, head_options(kind.Options, cfg.VIDEO.HEAD.OPTIONS))
    if cfg.BN.FREEZE:
        freeze_batch_norm(head)
    _make_efficient(head, cfg)
    return head, encoder


def build_model(cfg: Config) -> FewShotModel:
    """Build the model of a configuration on the CPU, with the texts of the classes that it names."""
    head, encoder = build_head(cfg)
    return FewShotModel(head, class_texts(encoder.text, names_by_split(cfg), cfg) if encoder.text else {})


def _make_efficient(head: Head, cfg: Config) -> None:
    """Apply TRAIN.CHANNELS_LAST, ONEDNN, GRAD_CHECKPOINT and COMPILE.

    Raises ConfigError where they do not fit the tower.
    """
    train, tower = cfg.TRAIN, head.backbone
    if train.EPISODES_PER_STEP > 1 and has_batch_statistics(tower):
        _LOGGER.warning("TRAIN.EPISODES_PER_STEP %d: %s has batch statistics, so every clip set passes it alone, and "
                        "nothing is gained", train.EPISODES_PER_STEP, cfg.VIDEO.HEAD.BACKBONE_NAME)
    if train.CHANNELS_LAST:
        for weight in tower.parameters():  # convolutions pass the format on, whatever the pictures have
            if weight.ndim == 4:
                weight.data = weight.data.to(memory_format=torch.channels_last)
    if train.ONEDNN:
        shorten_pool(head)
        use_onednn(head)
    elif cfg.NUM_GPUS == 0 and train.ENABLE and products_lag():
        _LOGGER.info("TRAIN.ONEDNN true computes linear layers faster on this processor")
    if train.GRAD_CHECKPOINT:
        checkpoint_blocks(tower)
    if train.COMPILE:
        if train.GRAD_CHECKPOINT and has_batch_statistics(tower):
            raise ConfigError(["TRAIN.COMPILE, TRAIN.GRAD_CHECKPOINT: of a tower with batch statistics only one of "
                               f"them can be had, found both with {cfg.VIDEO.HEAD.BACKBONE_NAME}"])
        head.compile_training()


