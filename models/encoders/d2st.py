"""These are towers with the adapters of D2ST: disentangled-and-deformable spatio-temporal adapter (Pei et al., ICCV
2025, arXiv 2312.01431), in a frozen CLIP ViT or a frozen ResNet.

An adapter is a bottleneck with two paths, one dense in space and one dense in time. Each lets every token attend to a
few samples of the clip's volume, read at places that the tokens themselves choose (deformable attention).

P clips, T frames, L tokens of a frame (a class token if there is one, then h * w patches, row by row), C channels,
A = C / 4 channels in the adapter, N samples, G groups of channels, which are the attention's heads, too.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from models.encoders.vit import frame_tokens, run_block
from models.layers.batch_norm import freeze_batch_norm
from utils.errors import ConfigError

Volume = tuple[int, int, int]  # frames, rows, columns
Path = tuple[Volume, Volume]  # kernel and stride
VIT_GROUPS, VIT_PATHS = 4, (((4, 5, 5), (4, 3, 3)), ((1, 7, 7), (1, 7, 7)))  # dense in space, dense in time
LARGE_PATHS = (((4, 7, 7), (4, 7, 7)), ((1, 14, 14), (1, 14, 14)))
STAGES = ((1, LARGE_PATHS), (2, LARGE_PATHS), (4, VIT_PATHS), (8, (((4, 4, 4), (4, 3, 3)), ((1, 7, 7), (1, 7, 7)))))
FRAMES, PATCHES = 4, 7  # the fewest that the kernels fit into, of a clip, and along a side


def pointwise(layer: nn.Linear | _ConvNd, x: Tensor) -> Tensor:
    """Apply a linear map, or a convolution of one cell, to the last dimension."""
    return F.linear(x, layer.weight.flatten(1), layer.bias)


class ChannelNorm(nn.Module):
    """Norm channels that come second, under the published name `norm`."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class DeformableAttention(nn.Module):
    """Let tokens attend to samples of their clip, read where an offset network says. [P, T, L, A] -> the same"""

    def __init__(self, channels: int, groups: int, path: Path, convolutional: bool):
        super().__init__()
        self.groups, own = groups, channels // groups
        kernel, stride = path
        self.conv_offset = nn.Sequential(nn.Conv3d(own, own, kernel, stride, groups=own), ChannelNorm(own), nn.GELU(),
                                         nn.Conv3d(own, 3, 1, bias=False))
        self.proj_q, self.proj_k, self.proj_v, self.proj_out = (
            nn.Conv3d(channels, channels, 1) if convolutional else nn.Linear(channels, channels) for _ in range(4))

    def places(self, queries: Tensor) -> Tensor:
        """Return where to read, in -1..1 and beyond, (column, row, frame) last. [P G, A/G, T, h, w] -> [.., n, 3]"""
        offsets = self.conv_offset(queries).tanh()
        size = offsets.shape[2:]
        limited = torch.stack([own * min(1.0, 2.0 / cells)
                               for own, cells in zip(offsets.unbind(dim=1), size, strict=True)], dim=1)
        centres = [(torch.arange(cells, device=offsets.device, dtype=offsets.dtype) + 0.5) / cells * 2 - 1
                   for cells in size]
        reference = torch.stack(torch.meshgrid(*centres, indexing="ij"))
        return (reference + limited).movedim(1, -1).flip(-1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Attend, in frames of so many rows and columns of patches."""
        frames, first = x.shape[1], x.shape[2] - size[0] * size[1]

        def volumes(tokens: Tensor) -> Tensor:
            return rearrange(tokens[:, :, first:], "p t (h w) (g a) -> (p g) a t h w", h=size[0], g=self.groups)

        q = pointwise(self.proj_q, x)
        samples = F.grid_sample(volumes(x), self.places(volumes(q)), align_corners=True)
        samples = rearrange(samples, "(p g) a t h w -> p (t h w) (g a)", g=self.groups)
        q, k, v = (rearrange(tokens, "p n (g a) -> p g n a", g=self.groups)
                   for tokens in (q.flatten(1, 2), pointwise(self.proj_k, samples), pointwise(self.proj_v, samples)))
        mixed = rearrange(F.scaled_dot_product_attention(q, k, v), "p g (t l) a -> p t l (g a)", t=frames)
        return pointwise(self.proj_out, mixed)


class Adapter(nn.Module):
    """Add to tokens what both paths make of them. [P, T, L, C] -> the same; it starts as the identity.

    Args:
        channels, inner: C and A. groups: G. paths: of space and of time.
        convolutional: the form of ResNets, which has fewer GELUs and other shapes of weights.
    """

    def __init__(self, channels: int, inner: int, groups: int, paths: tuple[Path, Path], convolutional: bool = False):
        super().__init__()
        if inner < groups or inner % groups:
            raise ConfigError([f"VIDEO.HEAD.OPTIONS.ADAPTER_SCALE: expected a multiple of {groups} channels in an "
                               f"adapter of {channels}, found {inner}"])
        self.convolutional = convolutional
        self.down = nn.Conv3d(channels, inner, 1) if convolutional else nn.Linear(channels, inner)
        self.up = nn.Conv3d(inner, channels, 1) if convolutional else nn.Linear(inner, channels)
        self.pos_embed = nn.Conv3d(inner, inner, 3, padding=1, groups=inner)
        self.s_ln, self.t_ln = ((ChannelNorm if convolutional else nn.LayerNorm)(inner) for _ in range(2))
        self.s_attn, self.t_attn = (DeformableAttention(inner, groups, path, convolutional) for path in paths)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Adapt tokens of frames of so many rows and columns of patches."""
        first = x.shape[2] - size[0] * size[1]
        y = pointwise(self.down, x)
        y = y if self.convolutional else F.gelu(y)
        volume = rearrange(y[:, :, first:], "p t (h w) a -> p a t h w", h=size[0])
        places = rearrange(self.pos_embed(volume), "p a t h w -> p t (h w) a")
        y = torch.cat([y[:, :, :first], y[:, :, first:] + places], dim=2)
        paths = [y + attention(norm.norm(y) if isinstance(norm, ChannelNorm) else norm(y), size)
                 for norm, attention in ((self.s_ln, self.s_attn), (self.t_ln, self.t_attn))]
        out = pointwise(self.up, F.gelu((paths[0] + paths[1]) / 2))
        return x + (out if self.convolutional else F.gelu(out))


class AdaptedBlock(nn.Module):
    """Is a block of a ViT with an adapter at its end; the block's own parts keep their names."""

    def __init__(self, block: nn.Module, adapter: Adapter):
        super().__init__()
        for name in ("attn", "ln_1", "mlp", "ln_2"):
            self.add_module(name, block.get_submodule(name))
        self.Adapter = adapter

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the block on tokens [P, T, L, C]."""
        return self.Adapter(run_block(self, x.flatten(0, 1)).view_as(x), size)


class AdaptedVit(nn.Module):
    """Is CLIP's ViT with an adapter a block, and a vector for each place in time. [P, T, 3, H, W] -> [P, T, C]

    A frame's feature is its class token after the last norm: CLIP's projection is not used.
    """

    takes_clips = True

    def __init__(self, visual: nn.Module, frames: int, scale: float):
        super().__init__()
        for name in ("class_embedding", "positional_embedding"):
            self.register_parameter(name, visual.get_parameter(name))
        self.dim = visual.get_parameter("class_embedding").numel()
        self.temporal_embedding = nn.Parameter(torch.zeros(1, frames, self.dim))
        self.conv1, self.ln_pre, self.ln_post = (visual.get_submodule(name) for name in ("conv1", "ln_pre", "ln_post"))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(
            AdaptedBlock(block, Adapter(self.dim, int(self.dim * scale), VIT_GROUPS, VIT_PATHS))
            for block in visual.get_submodule("transformer.resblocks").children())})

    def forward(self, clips_PTCHW: Tensor) -> Tensor:
        x, size = frame_tokens(self, clips_PTCHW.flatten(0, 1))
        x = self.ln_pre(x.unflatten(0, clips_PTCHW.shape[:2]) + self.temporal_embedding[0, :, None])
        for block in self.transformer["resblocks"].children():
            x = block(x, size)
        return self.ln_post(x[:, :, 0])


class AdaptedResNet(nn.Sequential):
    """Is a ResNet, as models/encoders/image.py builds it, with an adapter a stage. [P, T, 3, H, W] -> [P, T, C]

    Its batch norms keep their statistics.
    """

    takes_clips = True

    def __init__(self, visual: nn.Sequential, scale: float):
        super().__init__(*visual.children())
        freeze_batch_norm(self)
        for number, (groups, paths) in enumerate(STAGES, start=1):
            convolutions = [module for module in self[3 + number].modules() if isinstance(module, nn.Conv2d)]
            self.dim = max(module.out_channels for module in convolutions)
            self.add_module(f"Adapter_{number}", Adapter(self.dim, int(self.dim * scale), groups, paths, True))

    def forward(self, clips_PTCHW: Tensor) -> Tensor:
        x = clips_PTCHW.flatten(0, 1)
        for number in range(8):
            x = self[number](x)
            if number > 3:
                tokens = rearrange(x, "(p t) c h w -> p t (h w) c", t=clips_PTCHW.shape[1])
                tokens = self.get_submodule(f"Adapter_{number - 3}")(tokens, tuple(x.shape[2:]))
                x = rearrange(tokens, "p t (h w) c -> (p t) c h w", h=x.shape[2])
        return x.mean(dim=(2, 3)).unflatten(0, clips_PTCHW.shape[:2])


def adapted(visual: nn.Module, frames: int, scale: float) -> AdaptedVit | AdaptedResNet:
    """Return a tower with adapters. Raises ConfigError for one that is neither CLIP's ViT nor a ResNet."""
    if frames < FRAMES:
        raise ConfigError([f"DATA.NUM_INPUT_FRAMES: expected at least {FRAMES} frames, as the adapters take so many at "
                           f"once, found {frames}"])
    if hasattr(visual, "class_embedding") and hasattr(visual, "transformer"):
        patches = len(visual.get_parameter("positional_embedding")) - 1
        if patches < PATCHES ** 2:
            raise ConfigError([f"VIDEO.HEAD.BACKBONE_NAME: expected a ViT of at least {PATCHES} x {PATCHES} patches, "
                               f"as the adapters take so many at once, found {patches} patches"])
        return AdaptedVit(visual, frames, scale)
    if isinstance(visual, nn.Sequential) and len(visual) >= 8 and isinstance(visual[7], nn.Sequential):
        return AdaptedResNet(visual, scale)
    raise ConfigError(["VIDEO.HEAD.BACKBONE_NAME: expected one of CLIP's ViTs or a ResNet (resnet50), which adapters "
                       f"fit into, found a {type(visual).__name__}"])
