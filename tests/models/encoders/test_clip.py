"""CLIP's towers: the weights that open_clip draws, the text tower only where it is read, prompts that do not fit."""

import json

import open_clip
import pytest
import torch

from models.encoders.clip import TEXT_SEED, _check_length, build_towers, clip_encoder, encode_names, tower_config
from tests.conftest import REPOSITORY, TINY_TOWER
from utils.errors import ConfigError, WeightsError

DEMO = REPOSITORY / "configs" / "projects" / "demo" / "demo_clip.json"
CONFIGS = {"demo": json.loads(DEMO.read_text()), "tiny": TINY_TOWER}


def encoder_of(path, seed: int, reads_text: bool, weights: str = "random"):
    """The encoder of a model config file, drawn from `seed`."""
    torch.manual_seed(seed)
    return clip_encoder(name=str(path), weights=weights, weights_dir=None, reads_text=reads_text)


@pytest.mark.parametrize("reads_text", [True, False])
@pytest.mark.parametrize("config", CONFIGS)
def test_random_towers_are_those_that_open_clip_draws(tmp_path, config, reads_text):
    path = tmp_path / "tower.json"
    path.write_text(json.dumps(CONFIGS[config]))
    encoder = encoder_of(path, 7, reads_text)
    after = torch.rand(1)
    torch.manual_seed(7)
    reference = open_clip.CLIP(**CONFIGS[config])
    torch.testing.assert_close(encoder.visual.state_dict(), reference.visual.state_dict(), rtol=0, atol=0)
    frames = torch.rand(2, 3, encoder.image_size, encoder.image_size)
    assert torch.equal(encoder.visual.eval()(frames), reference.visual.eval()(frames))
    assert (encoder.weights, encoder.pretraining) == ("random", "random")
    if not reads_text:
        assert encoder.text is None
        return
    torch.manual_seed(7)
    open_clip.CLIP(**CONFIGS[config])
    assert torch.equal(after, torch.rand(1))  # a head with text draws the weights it always drew
    torch.manual_seed(TEXT_SEED)
    reference = open_clip.CLIP(**CONFIGS[config]).eval()
    tokens = open_clip.SimpleTokenizer()(["a photo of run", "a photo of draw_sword"])
    with torch.inference_mode():
        expected = reference.encode_text(tokens)
    assert torch.equal(encoder.text(["run", "draw_sword"], "a photo of {}"), expected)


def test_text_features_are_the_same_in_every_run_and_of_each_class(tmp_path):
    path = tmp_path / "tower.json"
    path.write_text(json.dumps(TINY_TOWER))
    a, b = (encoder_of(path, seed, True) for seed in (0, 1))
    names = ["run", "draw_sword"]
    text = a.text(names, "a photo of {}")
    assert torch.equal(text, b.text(names, "a photo of {}")) and not torch.equal(text[0], text[1])
    assert not torch.equal(a.visual.proj, b.visual.proj)


def test_a_file_gives_both_towers_or_the_visual_one_alone(tmp_path):
    path, file = tmp_path / "tower.json", tmp_path / "weights.pt"
    path.write_text(json.dumps(TINY_TOWER))
    towers = build_towers(TINY_TOWER)
    torch.save(towers.state_dict(), file)
    both, visual = (encoder_of(path, 0, reads_text, str(file)) for reads_text in (True, False))
    for encoder in (both, visual):
        torch.testing.assert_close(encoder.visual.state_dict(), towers.visual.state_dict(), rtol=0, atol=0)
        assert encoder.weights.startswith("weights.pt sha256:") and encoder.pretraining == "not known (weights.pt)"
        assert (encoder.dim, encoder.image_size) == (32, 32)
    assert visual.text is None
    with torch.no_grad():
        expected = towers.eval().encode_text(open_clip.SimpleTokenizer()(["jump"]))
    before = both.visual.training
    found = both.text(["jump"], "{}")
    assert torch.equal(found, expected) and not found.is_inference()
    assert before and all(module.training for module in both.visual.modules())  # reading text ends no training


@pytest.mark.parametrize("words", [1, 40, 70])
def test_padding_behind_sentences_is_left_out_without_a_trace(words):
    """Of 77 places the tower sees 32, 64 or all, and gives the same bits."""
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3}
    towers, tokenizer = build_towers({**TINY_TOWER, "text_cfg": text}).eval(), open_clip.SimpleTokenizer()
    names, seen = ["run", "jump " * words], list[int]()
    with torch.no_grad():
        expected = towers.encode_text(tokenizer(names))
    towers.transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    assert torch.equal(encode_names(towers, tokenizer, names, "{}"), expected)
    assert seen == [{1: 32, 40: 64, 70: 77}[words]] and len(towers.attn_mask) == 77


def test_towers_that_see_all_places_read_the_padding():
    """Of a mask that hides nothing, or another place that is read, every token counts."""
    torch.manual_seed(0)
    tokenizer, seen = open_clip.SimpleTokenizer(), list[int]()
    for text in ({"no_causal_mask": True}, {"pool_type": "last"}):
        towers = build_towers({**TINY_TOWER, "text_cfg": {**TINY_TOWER["text_cfg"], **text}}).eval()
        towers.transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
        encode_names(towers, tokenizer, ["run"], "{}")
    assert seen == [77, 77]


def test_names():
    assert tower_config("ViT-B/16")["quick_gelu"] is True
    assert tower_config("RN50")["quick_gelu"] is True
    with pytest.raises(WeightsError, match="expected RN50, .*resnet50, .*found 'ViT-B/17'"):
        tower_config("ViT-B/17")
    with pytest.raises(WeightsError, match="none.json"):
        tower_config("none.json")


def test_maps_come_from_resnets_alone(tmp_path):
    with pytest.raises(ConfigError, match="feature maps, which ViT-B/16 does not give; expected one of CLIP's ResNets"):
        clip_encoder(name="ViT-B/16", weights=None, weights_dir=None, reads_text=False, output="map")
    path = tmp_path / "tower.json"
    path.write_text(json.dumps({"embed_dim": 8, "text_cfg": {}, "vision_cfg": {
        "image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}))
    options = {"name": str(path), "weights": "random", "weights_dir": None, "reads_text": False}
    torch.manual_seed(0)
    whole = clip_encoder(**options)
    torch.manual_seed(0)
    maps = clip_encoder(**options, output="map")
    frames = torch.rand(2, 3, 64, 64)
    found, expected = maps.visual.eval()(frames), whole.visual.eval()(frames)
    assert (maps.dim, maps.image_size, list(found.shape)) == (256, 64, [2, 256, 2, 2])
    assert torch.equal(whole.visual.attnpool(found), expected)
    assert set(maps.visual.state_dict()) == {k for k in whole.visual.state_dict() if not k.startswith("attnpool.")}


@pytest.mark.parametrize("text, wrong", [("{}", "embed_dim, vision_cfg, text_cfg"), ("[1]", "embed_dim, vision_cfg"),
                                         ('{"embed_dim": 8, "vision_cfg": {}}', "text_cfg")])
def test_a_tower_file_without_its_parts_is_named(tmp_path, text, wrong):
    path = tmp_path / "tower.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=f"tower.json: expected a model config.*wrong or missing: {wrong}"):
        tower_config(str(path))


@pytest.mark.parametrize("reads_text", [True, False])
def test_a_config_that_open_clip_refuses_is_named(tmp_path, reads_text):
    path = tmp_path / "tower.json"
    path.write_text(json.dumps({**TINY_TOWER, "vision_cfg": {"image_size": "wide"}}))
    with pytest.raises(WeightsError, match="VIDEO.HEAD.BACKBONE_NAME: open_clip refuses this model config"):
        encoder_of(path, 0, reads_text)


def test_a_prompt_that_cuts_a_class_name_is_refused(caplog):
    tokenizer, long = open_clip.SimpleTokenizer(), "very " * 80
    with pytest.raises(WeightsError, match="TEST.PROMPT: the text tower reads 75 tokens, the class name 'a jump' ends "
                                           "at token 82: it would be cut off"):
        _check_length(["a jump"], long + "{}", tokenizer)
    _check_length(["a jump"], "{} " + long, tokenizer)
    assert "only the first 75 tokens of the sentence for 'a jump' are read" in caplog.text


def _changed(part: str, **changes):
    return {**TINY_TOWER, part: {**TINY_TOWER[part], **changes}}


@pytest.mark.parametrize("config, said", [
    ({**TINY_TOWER, "embed_dim": True}, "wrong or missing: embed_dim"),
    ({**TINY_TOWER, "embed_dim": 0}, "wrong or missing: embed_dim"),
    (_changed("vision_cfg", timm_model_name="hf-hub:a/b"), "timm_model_name: expected a tower that is described here"),
    (_changed("text_cfg", hf_model_name="a/b"), "hf_model_name: expected a tower that is described here"),
    (_changed("vision_cfg", layers=10**7), r"vision_cfg: expected layers that memory holds, found 10000000 of width"),
    (_changed("text_cfg", width=10**9), "text_cfg: expected layers that memory holds"),
    (_changed("vision_cfg", patch_size=1000), "vision_cfg.patch_size: expected 1 to 32 pixels"),
    ("[" * 100_000, "nested too deep"), ("<html>", "a web page"), ("", "an empty file")], ids=range(10))
def test_model_configs_of_strangers(tmp_path, config, said):
    path = tmp_path / "tower.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(WeightsError, match=f"tower.json: .*{said}"):
        tower_config(str(path))
