"""This file builds CLIP's towers with open_clip: the visual one is trained, the text one reads class names.

open_clip is imported when it is first used: it brings timm and a hub's client, and takes longer than torch.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os.path import exists  # False where a name is too long for a file, at which Path.exists raises
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.encoders import weight_files
from models.encoders.base import Encoder, Output, Text
from models.registries import ENCODERS
from utils.config.layers import REPOSITORY
from utils.config.reading import shown
from utils.errors import ConfigError, WeightsError
from utils.foreign import parse_json, read_text, told

# OpenAI's names; the plain open_clip names keep GELU, with which OpenAI's weights give other features.
OPEN_CLIP_NAMES = {name: f"{name.replace('/', '-').replace('@336px', '-336')}-quickgelu"
                   for name in weight_files.OPENAI}
Config: TypeAlias = Mapping[str, Any]  # open_clip's model config
CONFIG_BYTES, LAYER_BYTES = 1 << 20, 20_000  # of a model config; of a layer's modules, without their weights
TEXT_SEED = 0  # random text towers are the same in every run: a checkpoint meets the features it was trained with
BLOCK = 32  # tokens that attention on a CPU takes together: a multiple of it leaves the last bits as they are
_LOGGER = logging.getLogger(__name__)


def tower_config(name: str) -> dict[str, Any]:
    """Find open_clip's model config of a backbone name or of a .json file. Raises WeightsError on an unknown name."""
    if name.endswith(".json"):
        return _config_file(name)
    import open_clip

    config: dict[str, Any] | None = open_clip.get_model_config(OPEN_CLIP_NAMES.get(name, name))
    if config is None:
        known = ", ".join([*OPEN_CLIP_NAMES, *weight_files.IMAGENET, "a .json file"])
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: expected {known} or a name of open_clip.list_models(), "
                           f"found {name!r}")
    return config


def _config_file(name: str) -> dict[str, Any]:
    """Read a model config, which a relative name finds from here, or from the checkout: a checkpoint names it so."""
    path = next((path for path in (Path(name), REPOSITORY / name) if exists(path)), Path(name))
    with told(WeightsError, Path(name), "VIDEO.HEAD.BACKBONE_NAME to be a readable model config"):
        return _checked(name, parse_json(read_text(path, WeightsError, CONFIG_BYTES)))


def _checked(name: str, config: Any) -> dict[str, Any]:
    """Return a model config from outside. Raises WeightsError where it is none."""
    parts = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
    wrong = [part for part, kind in parts.items()
             if not isinstance(config, dict) or type(config.get(part)) is not kind or config[part] == 0]
    if wrong:
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: {name}: expected a model config with embed_dim (a number), "
                           f"vision_cfg and text_cfg (sections), as open_clip's; wrong or missing: {', '.join(wrong)}")
    _check_config(name, config)
    return dict(config)


def _check_config(name: str, config: Config) -> None:
    """Raise WeightsError on a model config that asks a public hub for a model, or that no memory can hold."""
    hubs = [key for part in (config["vision_cfg"], config["text_cfg"]) for key in part
            if key.startswith("hf_") or key == "timm_model_name" and ":" in str(part[key])]
    if hubs:
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: {name}: {hubs[0]}: expected a tower that is described here, "
                           "found one that would be asked of a public hub")
    patch, image = (config["vision_cfg"].get(key) for key in ("patch_size", "image_size"))
    if isinstance(patch, int) and isinstance(image, int) and not 0 < patch <= image:
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: {name}: vision_cfg.patch_size: expected 1 to {image} pixels, as "
                           f"many as image_size, found {patch}")
    for part in ("vision_cfg", "text_cfg"):
        layers, width = (config[part].get(key, 1) for key in ("layers", "width"))
        if type(layers) is not int or type(width) is not int:  # a ResNet has a list of layers
            continue
        need = layers * (LAYER_BYTES + 48 * width**2)
        if min(layers, width) < 1 or need > psutil.virtual_memory().total:
            raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: {name}: {part}: expected layers that memory holds, found "
                               f"{shown(layers)} of width {shown(width)}, of {shown(need >> 20)} MiB")


def _built(make: Callable[[], nn.Module]) -> nn.Module:
    """Call one of open_clip's constructors. Raises WeightsError on a config that it refuses."""
    try:
        return make().float()
    except Exception as error:
        raise WeightsError(f"VIDEO.HEAD.BACKBONE_NAME: open_clip refuses this model config: {error}") from error


def build_towers(config: Config) -> nn.Module:
    """Build both towers with random weights, as open_clip does: the visual one first, at `.visual`."""
    import open_clip

    settings = dict(config)
    custom = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    return _built(partial(open_clip.CustomTextCLIP if custom else open_clip.CLIP, **settings))


def build_visual(config: Config) -> nn.Module:
    """Build the visual tower alone, with the weights that `build_towers` draws for it."""
    from open_clip.model import _build_vision_tower

    return _built(partial(_build_vision_tower, config["embed_dim"], config["vision_cfg"],
                          config.get("quick_gelu", False), config.get("cast_dtype")))


def _check_length(names: Sequence[str], prompt: str, tokenizer: Any) -> None:
    """Refuse a prompt that CLIP would cut inside a class name (WeightsError); warn where it cuts the end only."""
    import open_clip

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


class _TextOnly(nn.Module):
    """Makes encode_text the forward pass, so that functional_call can give it other tensors."""

    def __init__(self, towers: Any):
        super().__init__()
        self.towers = towers

    def forward(self, tokens: Tensor) -> Any:
        """Encode sentences. [B, 77] -> [B, D]"""
        return self.towers.encode_text(tokens)


def _encoded(towers: Any, tokens: Tensor) -> Any:
    """Encode sentences, without most of the padding behind the longest: where each place sees those before it alone and
    the end mark is what is read (OpenAI's towers), nothing depends on it. [B, 77] -> [B, D]"""
    import open_clip

    mask = getattr(towers, "attn_mask", None)
    if type(towers) is not open_clip.CLIP or mask is None or towers.text_pool_type != "argmax":
        return towers.encode_text(tokens)
    longest = int(tokens.argmax(dim=-1).max()) + 1
    length = min(tokens.shape[1], -(-longest // BLOCK) * BLOCK)
    shorter = {"towers.positional_embedding": towers.positional_embedding[:length],
               "towers.attn_mask": mask[:length, :length]}
    return functional_call(_TextOnly(towers), shorter, (tokens[:, :length],))


@torch.no_grad()
def encode_names(towers: Any, tokenizer: Any, names: Sequence[str], prompt: str) -> Tensor:
    """Encode class names, as written, in the sentence `prompt`: [G, D], not normalised."""
    _check_length(names, prompt, tokenizer)
    sentences = [prompt.format(name) for name in names]
    parts = [_encoded(towers, tokenizer(sentences[i:i + 64])) for i in range(0, len(sentences), 64)]
    return torch.cat(parts).float()


def _tokenizer(name: str, config: Config) -> Any:
    import open_clip

    if not name.endswith(".json"):
        return open_clip.get_tokenizer(OPEN_CLIP_NAMES.get(name, name))
    text = config["text_cfg"]
    tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))
    if text.get("vocab_size", tokenizer.vocab_size) < tokenizer.vocab_size:
        raise WeightsError(f"{name}: text_cfg.vocab_size: expected at least {tokenizer.vocab_size} "
                           f"(CLIP's tokenizer), found {text['vocab_size']}")
    return tokenizer


def _reader(towers: nn.Module, name: str, config: Config) -> Text:
    """Return the Encoder.text of these towers. The mode of their visual tower, which is trained, is left alone."""
    for part, module in towers.named_children():
        if part != "visual":
            module.eval()
    return partial(encode_names, towers, _tokenizer(name, config))


def _random_towers(config: Config, reads_text: bool) -> tuple[Any, nn.Module | None]:
    """Draw a visual tower from the run's seed, and towers whose text part is the same in every run."""
    if not reads_text:
        return build_visual(config), None
    towers: Any = build_towers(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(TEXT_SEED)
        return towers.visual, build_towers(config)


def _loaded_towers(config: Config, reads_text: bool, path: Path) -> tuple[Any, nn.Module | None]:
    """Read the visual tower, and both towers where the text is read, from a file."""
    state = weight_files.read_state(path)
    if not reads_text:
        visual = build_visual(config)
        of_visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
        weight_files.fit(visual, of_visual, path)
        return visual, None
    towers: Any = build_towers(config)
    weight_files.fit(towers, state, path)
    return towers.visual, towers


def fitting_name(state: Mapping[str, Tensor]) -> str | None:
    """Return the model of OpenAI's whose visual tower is among tensors; None: of none of them."""
    of_visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    for name in weight_files.OPENAI if of_visual else ():
        with torch.device("meta"):
            own = build_visual(tower_config(name)).state_dict()
        if weight_files.fits(own, of_visual):
            return name
    return None


@ENCODERS.register("clip")
def clip_encoder(*, name: str, weights: str | None, weights_dir: str | None, reads_text: bool,
                 output: Output = "vector", config: Config | None = None) -> Encoder:
    """Build CLIP's visual tower, and its text tower for a head that reads text (see EncoderBuilder).

    Args:
        name: RN50, ViT-B/16, ..., any open_clip name, or a .json model config.
        config: a model config to build in place of the one of this name, which may not be known here.
        weights: openai (None), random, or a file (see weight_files.read_state).
        output: "map", which ResNets alone have, cuts the attention pool.
    """
    config = tower_config(name) if config is None else _checked(name, config)
    if output == "map" and not isinstance(config["vision_cfg"].get("layers"), list):
        raise ConfigError([f"VIDEO.HEAD.BACKBONE_NAME: the head reads feature maps, which {name} does not give; "
                           f"expected one of CLIP's ResNets, {', '.join(weight_files.IMAGENET)}"])
    if weights == "random":
        visual, towers = _random_towers(config, reads_text)
        loaded = pretraining = "random"
    else:
        official = weights in (None, "openai")
        if official and name not in weight_files.OPENAI:
            raise WeightsError(f"VIDEO.HEAD.BACKBONE_WEIGHTS: openai has no weights for {name!r} "
                               f"(it has: {', '.join(weight_files.OPENAI)}); name a file, or random")
        path, digest = weight_files.find(weight_files.OPENAI[name] if official else str(weights), weights_dir)
        visual, towers = _loaded_towers(config, reads_text, path)
        loaded = f"{path.name} sha256:{digest}"
        pretraining = "CLIP, 400 M image-text pairs (OpenAI)" if official else f"not known ({path.name})"
    size, dim = visual.image_size, int(config["embed_dim"])
    if output == "map":
        visual, dim = _without_pool(visual)
    return Encoder(visual, dim, int(size[0] if isinstance(size, (tuple, list)) else size),
                   None if towers is None else _reader(towers, name, config), loaded, pretraining,
                   None if towers is None else float(towers.get_parameter("logit_scale").detach().exp()), config)


def _without_pool(resnet: Any) -> tuple[nn.Module, int]:
    """Return a ResNet of CLIP that gives the maps before its attention pool, and their channels."""
    parts = OrderedDict((name, part) for name, part in resnet.named_children() if name != "attnpool")
    return nn.Sequential(parts), resnet.attnpool.k_proj.in_features
