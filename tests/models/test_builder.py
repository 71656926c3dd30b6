"""Which tower a configuration builds: BACKBONE_NAME alone says so, and names that do not fit are told in words."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.builder import build_encoder, build_head, build_model, class_texts, encoder_problems
from utils.config import load_config
from utils.config.layers import REPOSITORY
from utils.errors import ConfigError, WeightsError

DEMO = REPOSITORY / "configs" / "projects" / "demo" / "CLIPFSAR_Demo_1shot.yaml"


def demo(*pairs: str):
    """The demo's configuration with settings of VIDEO.HEAD."""
    return load_config(DEMO, [f"VIDEO.HEAD.{item}" if i % 2 == 0 else item for i, item in enumerate(pairs)])


@pytest.mark.parametrize("name, children", [("resnet18", 10), ("ResNet34", 10), ("MobileNetV2", 3)])
def test_torchvision_names_build_image_towers_of_any_size(name, children):
    encoder = build_encoder(demo("BACKBONE_NAME", name), reads_text=False)
    assert len(encoder.visual) == children and encoder.image_size is None and encoder.text is None


def test_all_other_names_build_clip():
    encoder = build_encoder(demo(), reads_text=True)
    assert hasattr(encoder.visual, "attnpool") and encoder.text(["run"], "{}").shape == (1, encoder.dim)
    with pytest.raises(ConfigError, match="DATA.TRAIN_CROP_SIZE: .*demo_clip.json takes pictures of 64 pixels, found a "
                                          "crop of 32"):
        build_encoder(load_config(DEMO, ["DATA.TRAIN_CROP_SIZE", "32"]), reads_text=False)


@pytest.mark.parametrize("name, encoder", [("RN50", "clip"), ("ViT-B/16", "clip"), ("resnet50", "image"),
                                           ("MobileNetV2", "image"), ("RN50", None), ("resnet50", None)])
@pytest.mark.parametrize("weights", ["null", "random", "some_file.pt"])
def test_names_that_fit(name, encoder, weights):
    head = demo("BACKBONE_NAME", name, "ENCODER", encoder or "null", "BACKBONE_WEIGHTS", weights).VIDEO.HEAD
    assert not encoder_problems(head)


@pytest.mark.parametrize("pairs, text", [
    (("ENCODER", "ViT-B/16"), "leave it empty, or write clip (VIDEO.HEAD.BACKBONE_NAME alone says which tower is "
                              "built)"),
    (("ENCODER", "image", "BACKBONE_NAME", "RN50"), "VIDEO.HEAD.ENCODER: image does not build RN50; leave it empty, or "
                                                    "write clip"),
    (("ENCODER", "clip", "BACKBONE_NAME", "resnet50"), "VIDEO.HEAD.ENCODER: clip does not build resnet50; leave it "
                                                       "empty, or write image"),
    (("BACKBONE_NAME", "resnet50", "BACKBONE_WEIGHTS", "openai"),
     "VIDEO.HEAD.BACKBONE_WEIGHTS: openai has no weights for resnet50; leave it empty for its published ones, or write "
     "imagenet, random, or the name of a file"),
    (("BACKBONE_NAME", "RN50", "BACKBONE_WEIGHTS", "imagenet"),
     "VIDEO.HEAD.BACKBONE_WEIGHTS: imagenet has no weights for RN50; leave it empty for its published ones, or write "
     "openai, random, or the name of a file"),
])
def test_names_that_do_not_fit_are_refused_with_what_to_write(pairs, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        build_encoder(demo(*pairs), reads_text=False)


def test_an_unknown_encoder_is_told_the_known_ones():
    with pytest.raises(ConfigError, match="VIDEO.HEAD.ENCODER: unknown encoder 'ViT-B/16'; known: clip, image"):
        build_encoder(demo("ENCODER", "ViT-B/16"), reads_text=False)


def test_the_pool_leaves_weights_and_encoder_to_the_tower():
    head = load_config(REPOSITORY / "configs/projects/CLIPFSAR/ssv2_full/CLIPFSAR_SSv2_Full_1shot_v1.yaml").VIDEO.HEAD
    assert (head.ENCODER, head.BACKBONE_WEIGHTS) == (None, None)


def test_seeds_decide_the_tower():
    encoders = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        encoders.append(build_encoder(demo("BACKBONE_NAME", "resnet18"), reads_text=False).visual[0].weight)
    assert torch.equal(encoders[0], encoders[1]) and not torch.equal(encoders[0], encoders[2])


def test_a_head_without_class_lists_reads_names_that_come_later():
    """Many times, on one model: as for the texts of a split, and at the scale that CLIP itself has for them."""
    cfg = demo()
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.manual_seed(0)
    bare = replace(cfg, TRAIN=replace(cfg.TRAIN, CLASS_NAME=None, VAL_CLASS_NAME=None),
                   TEST=replace(cfg.TEST, CLASS_NAME=None))
    head, encoder = build_head(bare)
    assert all(torch.equal(one, head.state_dict()[name]) for name, one in model.head.state_dict().items())
    assert torch.equal(class_texts(encoder.text, {"mine": cfg.TEST.CLASS_NAME}, bare)["mine"], model.text("test"))
    for names in (["wave"], ["jump", "fall over"]):
        found = class_texts(encoder.text, {"mine": names}, bare)["mine"]
        assert found.shape == (len(names), encoder.dim)
        torch.testing.assert_close(found, encoder.text(names, cfg.TEST.PROMPT))
    assert encoder.logit_scale == pytest.approx(1 / 0.07)
    assert build_encoder(cfg, reads_text=False).logit_scale is None


def test_a_tower_is_found_from_the_checkout_and_can_be_carried_in_full(tmp_path, monkeypatch):
    """A checkpoint's settings name configs/projects/demo/demo_clip.json: from wherever they are read."""
    cfg = demo()
    assert not Path(cfg.VIDEO.HEAD.BACKBONE_NAME).is_absolute()
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    head, encoder = build_head(cfg)
    elsewhere = demo("BACKBONE_NAME", "not_here.json")
    with pytest.raises(WeightsError, match="not_here.json: no such file"):
        build_head(elsewhere)
    kept = json.loads(json.dumps(encoder.config))
    torch.manual_seed(0)
    again, other = build_head(elsewhere, kept)
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in head.state_dict().items())
    assert torch.equal(encoder.text(["run"], "{}"), other.text(["run"], "{}")) and other.config == encoder.config
    kept["vision_cfg"]["timm_model_name"] = "hf-hub:somebody/something"
    with pytest.raises(WeightsError, match="expected a tower that is described here"):
        build_head(elsewhere, kept)
    assert build_encoder(demo("BACKBONE_NAME", "resnet18"), reads_text=False).config is None
