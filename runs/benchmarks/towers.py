"""Small towers for the benchmarks, as model configs of open_clip."""

from typing import Any


def _text(width: int, heads: int, layers: int) -> dict[str, Any]:
    return {"context_length": 77, "vocab_size": 49408, "width": width, "heads": heads, "layers": layers}


# What a CPU trains in a second: 4 layers and 192 channels at 112 pixels.
SMALL_VIT: dict[str, Any] = {"embed_dim": 128, "quick_gelu": True, "text_cfg": _text(32, 1, 1), "vision_cfg": {
    "image_size": 112, "layers": 4, "width": 192, "head_width": 64, "patch_size": 16}}


def small_resnet(size: int, blocks: int, width: int) -> dict[str, Any]:
    """Describe a ResNet of four stages of `blocks` blocks, for pictures of `size` pixels."""
    return {"embed_dim": 128, "quick_gelu": True, "text_cfg": _text(64, 2, 2), "vision_cfg": {
        "image_size": size, "layers": [blocks] * 4, "width": width, "head_width": 64}}
