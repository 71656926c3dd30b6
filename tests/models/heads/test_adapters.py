"""Towers with parts to train inside or beside: their sizes as published, what starts as the tower, what is refused."""

import pytest
import torch
import torchvision
from torch import nn

from models.encoders.base import Encoder
from models.encoders.clip import build_visual, tower_config
from models.encoders.d2st import AdaptedVit, adapted
from models.heads import HEADS
from models.heads.base import Setting
from models.heads.d2st_adapter import D2stOptions
from models.heads.ts_fsar import TsFsarOptions
from tests.models.heads.small import head_of
from utils.errors import ConfigError


def full_size(name: str, options, classes: int = 64):
    """A head on CLIP's ViT-B/16, without memory."""
    with torch.device("meta"):
        visual = build_visual(tower_config("ViT-B/16"))
        return HEADS[name](Encoder(visual, 512, 224, None, "random", "random"), Setting(8, classes), options)


def trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_d2st_trains_seven_million_parameters():
    head = full_size("D2ST_ADAPTER", D2stOptions(USE_CLASSIFICATION_VALUE=1.0))
    assert trained(head.backbone.transformer["resblocks"][0].Adapter) == 606_192
    assert 7.32e6 < trained(head) < 7.34e6 and head.dim == 768


def test_ts_fsar_trains_four_groups_of_fifteen_million():
    head = full_size("TS_FSAR", TsFsarOptions(PCA_START=False))
    groups = {group.name: sum(p.numel() for p in group.parameters) / 1e6 for group in head.parameter_groups()}
    assert {name: round(size, 2) for name, size in groups.items()} == {
        "head": 2.24, "side": 12.05, "generator": 0.02, "adapter": 1.05}
    assert sum(groups.values()) * 1e6 == pytest.approx(trained(head))


@torch.no_grad()
def test_an_adapted_tower_starts_as_the_tower():
    torch.manual_seed(0)
    visual = build_visual({"embed_dim": 16, "quick_gelu": True, "vision_cfg": {
        "image_size": 8, "layers": 2, "width": 32, "head_width": 16, "patch_size": 1}}).eval()
    clips = torch.randn(2, 4, 3, 8, 8)
    alone = visual(clips.flatten(0, 1))
    frames = AdaptedVit(visual, 4, 0.25).eval()(clips)
    torch.testing.assert_close((frames @ visual.proj).flatten(0, 1), alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_resnet_gets_four_adapters_and_keeps_its_statistics():
    torch.manual_seed(0)
    children = list(torchvision.models.resnet50().children())[:-2]
    tower = adapted(nn.Sequential(*children, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4, 0.25).train()
    before = tower[1].running_mean.clone()
    assert tower(torch.randn(1, 4, 3, 224, 224)).shape == (1, 4, 2048) and tower.dim == 2048
    assert torch.equal(tower[1].running_mean, before)
    assert [name for name, _ in tower.named_children() if "Adapter" in name] == [f"Adapter_{i}" for i in (1, 2, 3, 4)]


def test_towers_and_clips_that_adapters_do_not_fit_are_refused():
    conv = nn.Sequential(nn.Conv2d(3, 8, 4))
    with pytest.raises(ConfigError, match="expected one of CLIP's ViTs or a ResNet"):
        adapted(conv, 8, 0.25)
    with pytest.raises(ConfigError, match="DATA.NUM_INPUT_FRAMES: expected at least 4 frames.*found 3"):
        adapted(conv, 3, 0.25)
    small = build_visual({"embed_dim": 16, "vision_cfg": {"image_size": 8, "layers": 1, "width": 32, "head_width": 16,
                                                          "patch_size": 2}})
    with pytest.raises(ConfigError, match="a ViT of at least 7 x 7 patches.*found 16 patches"):
        adapted(small, 8, 0.25)
    with pytest.raises(ConfigError, match="ADAPTER_SCALE: expected a multiple of 4 channels"):
        adapted(build_visual({"embed_dim": 16, "vision_cfg": {"image_size": 8, "layers": 1, "width": 32,
                                                              "head_width": 16, "patch_size": 1}}), 8, 0.2)
    with pytest.raises(ConfigError, match="PCA_START: expected a tower at least as wide .*, 64, found 32 channels"):
        HEADS["TS_FSAR"](Encoder(head_of("TS_FSAR").backbone.visual, 64, None, None, "random", "random"), Setting(4, 6))
    with pytest.raises(ConfigError, match="expected one of CLIP's ViTs, beside which"):
        HEADS["TS_FSAR"](Encoder(conv, 8, None, None, "random", "random"), Setting(4, 6))


def test_classes_without_names_have_no_classifier():
    with pytest.raises(ConfigError, match="DATA.CLASSES: expected the names of the training classes"):
        full_size("D2ST_ADAPTER", D2stOptions(USE_CLASSIFICATION_VALUE=1.0), classes=0)


def test_a_head_says_which_texts_it_uses():
    assert head_of("CNN_OTAM").texts is None and head_of("TS_FSAR").texts == "names"
    with torch.device("meta"):
        visual = build_visual(tower_config("ViT-B/16"))
        head = HEADS["CNN_OTAM_CLIPFSAR"](Encoder(visual, 512, 224, None, "random", "random"), Setting(8, texts="llm"))
    assert head.texts == "llm"
