"""This file builds torchvision's ResNets, the backbones of OTAM, TRX, HyRSM and MoLo, and MobileNetV2.

The tower is one sequence of the network's children without the classifier, as in the published baselines, so state
names start with a number: 0 conv1, 1 bn1, 4 to 7 the stages, 8 the pool; of MobileNetV2 0 the features, 1 the pool.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.encoders import weight_files
from models.encoders.base import Encoder, Output
from models.registries import ENCODERS
from utils.errors import ConfigError

# Spellings in YAML files to torchvision's names.
NAMES = {"ResNet18": "resnet18", "ResNet34": "resnet34", "ResNet50": "resnet50", "MobileNetV2": "mobilenet_v2",
         **{name: name for name in weight_files.IMAGENET}}
_CUT = ("avgpool", "fc", "classifier")


def _load(network: nn.Module, weights: str | weight_files.Published, weights_dir: str | None) -> tuple[str, str]:
    """Fill a network, but for its classifier, from a file; return (file name, SHA-256)."""
    file, digest = weight_files.find(weights, weights_dir)
    state = {k: v for k, v in weight_files.read_state(file).items() if not k.startswith(_CUT)}
    state |= {k: v for k, v in network.state_dict().items() if k.startswith(_CUT)}
    weight_files.fit(network, state, file)
    return file.name, digest


def fitting_name(state: Mapping[str, Tensor]) -> str | None:
    """Return the network that tensors are the weights of, but for the classifier; None: of none here."""
    import torchvision.models

    for name in weight_files.IMAGENET:
        with torch.device("meta"):
            own = torchvision.models.get_model(name).state_dict()
        parts = ({k: v for k, v in tensors.items() if not k.startswith(_CUT)} for tensors in (own, state))
        if weight_files.fits(*parts):
            return name
    return None


@ENCODERS.register("image")
def image_encoder(*, name: str, weights: str | None, weights_dir: str | None, reads_text: bool,
                  output: Output = "vector", config: Mapping[str, Any] | None = None) -> Encoder:
    """Build an image tower that takes frames of any size (see EncoderBuilder).

    Args:
        name: one of NAMES.
        weights: imagenet (None: torchvision's IMAGENET1K_V1), random, or a file with torchvision's state names.
        config: nothing is read of it: the name says all.
        output: "vector" of D = 512 (ResNet-18, -34), 2048 or 1280 (MobileNetV2) numbers; "map" cuts the pool.
    """
    import torchvision.models

    if reads_text:
        raise ConfigError([f"VIDEO.HEAD.BACKBONE_NAME: the head reads class names and {name} has no text tower; "
                           f"expected one of {', '.join(weight_files.OPENAI)}, an open_clip name or a .json file"])
    network = torchvision.models.get_model(NAMES[name])
    dim = [module.in_features for module in network.modules() if isinstance(module, nn.Linear)][-1]
    loaded = pretraining = "random"
    if weights != "random":
        official = weights in (None, "imagenet")
        file, digest = _load(network, weight_files.published(NAMES[name]) if official else str(weights), weights_dir)
        loaded = f"{file} sha256:{digest}"
        pretraining = "ImageNet-1k classification" if official else f"not known ({file})"
    children = [child for part, child in network.named_children() if part not in _CUT]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if output == "vector" else []
    return Encoder(nn.Sequential(*children, *pool), dim, None, None, loaded, pretraining)
