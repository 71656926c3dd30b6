"""Heads with towers of one layer, and episodes of noise, for tests."""

from dataclasses import fields, replace

import torch
from torch import nn

from models.builder import FewShotModel
from models.encoders.base import Encoder
from models.encoders.clip import build_visual
from models.heads import HEADS
from models.heads.base import Head, Setting
from runs.benchmarks.bench_heads import LOSSES
from utils.episode import Episode

CLASSES, WIDTH, FRAMES = 6, 32, 4
SETTING = Setting(FRAMES, CLASSES, loss_divisor=2)
OF_VIT = ("D2ST_ADAPTER", "TS_FSAR")  # heads that build something into a ViT


def head_of(name: str, seed: int = 0, setting: Setting = SETTING, **options) -> Head:
    """The head with a tower of one convolution, or a small ViT where it needs one, in float64.

    What starts at zero gets some noise, as it would hold back the gradients of all that comes before it.
    """
    torch.manual_seed(seed)
    tower = nn.Sequential(nn.Conv2d(3, WIDTH, 4, 4), nn.ReLU())
    if HEADS[name].tower_output == "vector":
        tower.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    if name in OF_VIT:
        tower = build_visual({"embed_dim": WIDTH, "vision_cfg": {"image_size": 8, "layers": 1, "width": WIDTH,
                                                                 "head_width": 16, "patch_size": 1}})
    encoder = Encoder(visual=tower, dim=WIDTH, image_size=None, text=None, weights="random", pretraining="random")
    head = HEADS[name](encoder, setting, HEADS[name].Options(**options)).double()
    for parameter in head.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return head


def whole(name: str, **options) -> FewShotModel:
    """The head with all losses and scorings that its options offer, in float32."""
    offered = {one.name for one in fields(HEADS[name].Options)}
    losses = {name: value for name, value in LOSSES.items() if name in offered}
    head = head_of(name, setting=replace(SETTING, episodes=((3, 5), (3, 5))), **losses, **options)
    return FewShotModel(head.float(), {} if texts(head) is None else {"train": texts(head).float()})


def texts(head: Head) -> torch.Tensor | None:
    if not head.reads_text:
        return None
    return torch.randn(CLASSES, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def episode_of(shots: tuple[int, ...], queries: tuple[int, ...], seed: int = 0, kind=torch.float64) -> Episode:
    """An episode with the given supports and queries of each way, in random order."""
    draw = torch.Generator().manual_seed(seed)
    classes = torch.randperm(CLASSES, generator=draw)[:len(shots)]
    labels = [torch.arange(len(shots)).repeat_interleave(torch.tensor(counts)) for counts in (shots, queries)]
    labels = [own[torch.randperm(len(own), generator=draw)] for own in labels]
    clips = [torch.randn(len(own), FRAMES, 3, 8, 8, generator=draw, dtype=kind) for own in labels]
    return Episode(clips[0], labels[0], classes[labels[0]], clips[1], labels[1], classes[labels[1]], classes)
