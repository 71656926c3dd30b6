"""CLIP towers from open_clip: the visual tower is trained, the text tower only gives features of class names."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from models.encoders import clip_weights
from models.registries import ENCODERS
from utils.errors import WeightsError

# OpenAI's names; the plain open_clip names keep GELU, with which OpenAI's weights give other features.
OPEN_CLIP_NAMES = {
    "RN50": "RN50-quickgelu",
    "RN101": "RN101-quickgelu",
    "RN50x4": "RN50x4-quickgelu",
    "RN50x16": "RN50x16-quickgelu",
    "RN50x64": "RN50x64-quickgelu",
    "ViT-B/32": "ViT-B-32-quickgelu",
    "ViT-B/16": "ViT-B-16-quickgelu",
    "ViT-L/14": "ViT-L-14-quickgelu",
    "ViT-L/14@336px": "ViT-L-14-336-quickgelu",
}
TEXT_SEED = 0  # random text towers are the same in every run: a checkpoint meets the features it was trained with
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoder:
    """The visual tower and what it needs to know.

    Args:
        visual: [frames, 3, image_size, image_size] -> [frames, dim].
        dim: D. image_size: side of the picture in pixels.
        text_features: split name to [G, D].
        weights: what was loaded: "random", or file name and SHA-256.
    """

    visual: nn.Module
    dim: int
    image_size: int
    text_features: dict[str, Tensor]
    weights: str


def tower_config(name: str) -> dict[str, Any]:
    """open_clip's model config of a backbone name or of a .json file. Raises WeightsError on an unknown name."""
    if name.endswith(".json"):
        return _config_file(name)
    config = open_clip.get_model_config(OPEN_CLIP_NAMES.get(name, name))
    if config is None:
        known = ", ".join([*OPEN_CLIP_NAMES, "a .json file"])
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: expected {known} or a name of open_clip.list_models(), "
                           f"found {name!r}")
    return config


def _config_file(name: str) -> dict[str, Any]:
    try:
        config = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: {name}: not a readable model config ({error})") from error
    parts = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    wrong = [part for part, kind in parts.items()
             if not isinstance(config, dict) or not isinstance(config.get(part), kind)]
    if wrong:
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: {name}: expected a model config with embed_dim (a number), "
                           f"vision_cfg and text_cfg (sections), as open_clip's; wrong or missing: {', '.join(wrong)}")
    return config


def build_towers(config: Mapping[str, Any]) -> nn.Module:
    """Both towers with random weights, as open_clip builds them. Raises WeightsError on a config it refuses."""
    settings = dict(config)
    custom = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        return kind(**settings).float()
    except (TypeError, ValueError, KeyError, AssertionError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: open_clip refuses this model config: {error}") from error


def image_size(visual: nn.Module) -> int:
    """Side in pixels of the pictures a visual tower takes."""
    size = visual.image_size
    return int(size[0] if isinstance(size, (tuple, list)) else size)


def _check_length(names: Sequence[str], prompt: str, tokenizer) -> None:
    """Refuse a prompt that CLIP would cut inside a class name (WeightsError); warn where it cuts the end only."""
    if not isinstance(tokenizer, open_clip.SimpleTokenizer):
        return
    room = tokenizer.context_length - 2  # start and end marks
    for name in names:
        sentence = prompt.format(name)
        until_name = len(tokenizer.encode(sentence[:sentence.rindex(name) + len(name)])) if name else 0
        if until_name > room:
            raise WeightsError(f"TEST.PROMPT: the text tower reads {room} tokens, the class name {name!r} ends at "
                               f"token {until_name}: it would be cut off; shorten the prompt")
        if len(tokenizer.encode(sentence)) > room:
            _LOGGER.warning("TEST.PROMPT: only the first %d tokens of the sentence for %r are read", room, name)


@torch.inference_mode()
def encode_names(towers: nn.Module, names: Sequence[str], prompt: str, tokenizer) -> Tensor:
    """Text features of class names, as written, in `prompt`; not normalised. [G, D]"""
    towers.eval()
    _check_length(names, prompt, tokenizer)
    sentences = [prompt.format(name) for name in names]
    chunks = [towers.encode_text(tokenizer(sentences[i:i + 64])) for i in range(0, len(sentences), 64)]
    return torch.cat(chunks).float().clone()


def _tokenizer(name: str, config: Mapping[str, Any]):
    text = config["text_cfg"]
    if not name.endswith(".json"):
        return open_clip.get_tokenizer(OPEN_CLIP_NAMES.get(name, name))
    tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))
    if text.get("vocab_size", tokenizer.vocab_size) < tokenizer.vocab_size:
        raise WeightsError(f"{name}: text_cfg.vocab_size: expected at least {tokenizer.vocab_size} "
                           f"(CLIP's tokenizer), found {text['vocab_size']}")
    return tokenizer


def _random_towers(config: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    """(towers whose visual part follows the run's seed, towers whose text part is the same in every run)."""
    towers = build_towers(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(TEXT_SEED)
        return towers, build_towers(config)


@ENCODERS.register("clip", *OPEN_CLIP_NAMES)
def clip_encoder(*, name: str, weights: str, weights_dir: str | None, class_names: Mapping[str, Sequence[str]],
                 prompt: str) -> Encoder:
    """CLIP's visual tower, and text features of the classes of each split.

    Args:
        name: RN50, ViT-B/16, ..., any open_clip name, or a .json model config.
        weights: openai, random, or a file (see clip_weights.read_state).
        weights_dir: cache of downloads (None: ~/.cache/clip).
        class_names: split to names. prompt: sentence with {}.
    """
    config = tower_config(name)
    if weights == "random":
        towers, text_towers = _random_towers(config)
        loaded = "random"
    else:
        towers = text_towers = build_towers(config)
        path, digest = clip_weights.find(name, weights, weights_dir)
        clip_weights.load_into(towers, clip_weights.read_state(path), path)
        loaded = f"{path.name} sha256:{digest}"
    tokenizer = _tokenizer(name, config)
    text = {split: encode_names(text_towers, names, prompt, tokenizer) for split, names in class_names.items()}
    towers.train()
    _LOGGER.info("encoder %s, weights %s", name, loaded)
    return Encoder(towers.visual, int(config["embed_dim"]), image_size(towers.visual), text, loaded)
