"""This is a frozen CLIP ViT with a small network at its side, which TS-FSAR trains (Long et al., AAAI 2026, arXiv
2512.11340). No gradient passes the tower.

The side network has a block for each block of the tower. It reads the tower's tokens before the first and after every
block, mapped to fewer channels, and mixes them by a learned gate with its own. Some of its blocks attend over time.

P clips, T frames, L tokens of a frame (the class token first), C channels of the tower, d of the side network, E width
of CLIP's projection.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.vit import frame_tokens, run_block
from models.layers.attend import attend
from utils.errors import ConfigError

GATE_TEMPERATURE = 0.1


class Attention(nn.Module):
    """Multi-head attention with four maps that have biases. [N, L, d] -> [N, L, d]"""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_linear, self.k_linear, self.v_linear, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(self.q_linear(x), self.k_linear(x), self.v_linear(x), self.heads))


class SideBlock(nn.Module):
    """Is a Transformer block that attends over the tokens of a frame, or over the frames at each place."""

    def __init__(self, dim: int, heads: int, over_time: bool):
        super().__init__()
        self.over_time = over_time
        self.norm1, self.norm2, self.attn = nn.LayerNorm(dim), nn.LayerNorm(dim), Attention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        """Compute [P, T, L, d] from the same."""
        normed = self.norm1(x)
        sequences = normed.transpose(1, 2) if self.over_time else normed
        attended = self.attn(sequences.flatten(0, 1)).view_as(sequences)
        x = x + (attended.transpose(1, 2) if self.over_time else attended)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class TextAdapter(nn.Module):
    """Mix frames with what they attend to: (2 - alpha) x + alpha MHA(norm x). [P, T, E] -> [P, T, E]"""

    def __init__(self, dim: int, alpha: float):
        super().__init__()
        self.alpha, self.norm1, self.attn = alpha, nn.LayerNorm(dim), Attention(dim, 8)

    def forward(self, x: Tensor) -> Tensor:
        return (2 - self.alpha) * x + self.alpha * self.attn(self.norm1(x))


class SideNetwork(nn.Module):
    """Gives side tokens [P, T, L, d] and CLIP's features of frames [P, T, E] of clips [P, T, 3, H, W]."""

    takes_clips = True

    def __init__(self, visual: nn.Module, embed: int, dim: int | None, over_time: Sequence[int], alpha: float,
                 classes: int):
        super().__init__()
        if not (hasattr(visual, "class_embedding") and hasattr(visual, "transformer")):
            raise ConfigError(["VIDEO.HEAD.BACKBONE_NAME: expected one of CLIP's ViTs, beside which a side network is "
                               f"built, found a {type(visual).__name__}"])
        self.visual, width = visual, visual.get_parameter("class_embedding").numel()
        self.dim = d = min(256, width) if dim is None else dim
        blocks = list(visual.get_submodule("transformer.resblocks").children())
        self.side_LN = nn.ModuleList(nn.LayerNorm(width) for _ in range(len(blocks) + 1))
        self.side_downsample = nn.ModuleList(nn.Linear(width, d, bias=False) for _ in range(len(blocks) + 1))
        self.side_transformer = nn.ModuleList(SideBlock(d, max(1, d // 64), i in over_time) for i in range(len(blocks)))
        self.side_gate_params = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in blocks)
        self.Adapter = TextAdapter(embed, alpha)
        self.Linear = nn.Linear(d * (d + 1) // 2, classes, bias=False)  # classifies what is made of the side tokens
        self.up_ln, self.up_linear = nn.LayerNorm(d), nn.Linear(d, embed, bias=False)

    def forward(self, clips_PTCHW: Tensor) -> tuple[Tensor, Tensor]:
        sizes = clips_PTCHW.shape[:2]
        with torch.no_grad():
            x = self.visual.get_submodule("ln_pre")(frame_tokens(self.visual, clips_PTCHW.flatten(0, 1))[0])
            states = [x]
            for block in self.visual.get_submodule("transformer.resblocks").children():
                states.append(x := run_block(block, x))
            features = self.visual.get_submodule("ln_post")(x[:, 0]) @ self.visual.get_parameter("proj")
        given = [down(norm(state)).unflatten(0, sizes)
                 for state, norm, down in zip(states, self.side_LN, self.side_downsample, strict=True)]
        side = given[0]
        for block, gate, own in zip(self.side_transformer, self.side_gate_params, given[1:], strict=True):
            share = torch.sigmoid(gate / GATE_TEMPERATURE)
            side = share * block(side) + (1 - share) * own
        return side, features.unflatten(0, sizes)

    @torch.no_grad()
    def start(self) -> None:
        """Give side blocks and adapter the main components of the tower's own weights (exact SVD)."""
        width, most = self.visual.get_parameter("class_embedding").numel(), max(self.dim, self.up_linear.out_features)
        if most > width:
            raise ConfigError([f"VIDEO.HEAD.OPTIONS.PCA_START: expected a tower at least as wide as its projection and "
                               f"OUTPUT_DIM, {most}, found {width} channels; false starts from random weights"])
        blocks = list(self.visual.get_submodule("transformer.resblocks").children())
        own: Any
        block: Any
        for block, own in zip(blocks, self.side_transformer, strict=True):
            _start_attention(own.attn, block.attn, self.dim)
            for norm, source in ((own.norm1, block.ln_1), (own.norm2, block.ln_2)):
                for name, parameter in norm.named_parameters():
                    parameter.copy_(reduced(getattr(source, name), self.dim, self.dim))
            for name, source, sizes in (("fc1", block.mlp.c_fc, (self.dim, 4 * self.dim)),
                                        ("fc2", block.mlp.c_proj, (4 * self.dim, self.dim))):
                own.mlp[name].weight.copy_(reduced(source.weight, *sizes))
                own.mlp[name].bias.copy_(reduced(source.bias, *sizes))
        _start_attention(self.Adapter.attn, cast(Any, blocks[-1]).attn, self.up_linear.out_features)


def _start_attention(own: Attention, source: nn.MultiheadAttention, dim: int) -> None:
    weights = [*source.in_proj_weight.chunk(3), source.out_proj.weight]
    biases = [*source.in_proj_bias.chunk(3), source.out_proj.bias]
    for linear, weight, bias in zip((own.q_linear, own.k_linear, own.v_linear, own.proj), weights, biases, strict=True):
        linear.weight.copy_(reduced(weight, dim, dim))
        linear.bias.copy_(reduced(bias, dim, dim))


def reduced(values: Tensor, columns: int, rows: int) -> Tensor:
    """Return the main components of a matrix, [rows, columns], or a vector resized to `rows` entries.

    Of a matrix: scores of its rows in a PCA with `columns` components; where that is more than `rows`, scores of its
    columns with `rows` components, transposed. Of a vector: cubic interpolation.
    """
    if values.ndim == 1:
        return F.interpolate(values.view(1, 1, 1, -1), (1, rows), mode="bicubic", align_corners=False).view(-1)
    if rows >= columns:
        return _scores(values, columns)[:rows]
    return _scores(values.transpose(0, 1), rows).transpose(0, 1)[:, :columns]


def _scores(x: Tensor, components: int) -> Tensor:
    u, s, _ = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    return u[:, :components] * s[:components]
