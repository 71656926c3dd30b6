"""These are the steps of open_clip's ViT, for towers that put something between them.

F frames, L tokens, C channels.
"""

import torch
from torch import Tensor, nn


def frame_tokens(vit: nn.Module, frames_FCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the class token and the patches, with their positions, [F, L, C], and rows and columns of patches."""
    maps = vit.get_submodule("conv1")(frames_FCHW)
    patches = maps.flatten(2).transpose(1, 2)
    first = vit.get_parameter("class_embedding").to(patches.dtype).expand(len(patches), 1, -1)
    tokens = torch.cat([first, patches], dim=1) + vit.get_parameter("positional_embedding")
    return tokens, (maps.shape[2], maps.shape[3])


def run_block(block: nn.Module, x_FLC: Tensor) -> Tensor:
    """Compute a block: x = x + attention(ln_1 x); x = x + mlp(ln_2 x). [F, L, C] -> the same"""
    attention = block.get_submodule("attn")
    normed = block.get_submodule("ln_1")(x_FLC)
    if not attention.batch_first:
        normed = normed.transpose(0, 1)
    attended = attention(normed, normed, normed, need_weights=False)[0]
    x_FLC = x_FLC + (attended if attention.batch_first else attended.transpose(0, 1))
    return x_FLC + block.get_submodule("mlp")(block.get_submodule("ln_2")(x_FLC))
