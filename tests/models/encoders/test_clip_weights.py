"""Weights: every format, nothing run from a file, wrong files refused by name."""

import pickle

import open_clip
import pytest
import safetensors.torch
import torch

import models.encoders.clip
from models.encoders import clip_weights
from models.encoders.clip import build_towers, clip_encoder, tower_config
from tests.conftest import TINY_TOWER
from utils.errors import WeightsError


@pytest.fixture()
def towers():
    torch.manual_seed(3)
    return build_towers(TINY_TOWER)


def _same(state, towers):
    own = towers.state_dict()
    assert set(own) <= set(state)
    for name, value in own.items():
        assert torch.equal(value, state[name].to(value.dtype)), name


class _Everything(torch.nn.Module):
    """Parameters of the towers under their own names, scriptable."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *path, leaf = name.split(".")
            node = self
            for part in path:
                if part not in dict(node.named_children()):
                    node.add_module(part, torch.nn.Module())
                node = dict(node.named_children())[part]
            node.register_parameter(leaf, torch.nn.Parameter(value.clone().half(), requires_grad=False))

    def forward(self, x):
        return x


def test_torchscript_archive_is_read_as_torch_reads_it(tmp_path, towers):
    path = tmp_path / "clip.pt"
    torch.jit.script(_Everything(towers.state_dict())).save(str(path))
    reference = torch.jit.load(str(path)).state_dict()
    found = clip_weights.read_state(path)
    assert {k: v.shape for k, v in reference.items()} == {k: v.shape for k, v in found.items()}
    assert all(torch.equal(reference[k], found[k]) for k in reference)
    clip_weights.load_into(towers, found, path)


@pytest.mark.parametrize("kind", ["pt", "wrapped", "safetensors"])
def test_plain_files(tmp_path, towers, kind):
    state = {k: v.contiguous() for k, v in towers.state_dict().items()}
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind == "wrapped" else state, path)
    _same(clip_weights.read_state(path), towers)


class _Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_file_cannot_run_code(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"x": _Evil()}, path)
    with pytest.raises(WeightsError, match="evil.pt"):
        clip_weights.read_state(path)
    path.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(WeightsError, match="evil.pt"):
        clip_weights.read_state(path)


def test_wrong_and_damaged_files(tmp_path, towers):
    path = tmp_path / "w.pt"
    path.write_text("not weights")
    with pytest.raises(WeightsError, match="expected CLIP weights"):
        clip_weights.read_state(path)
    state = dict(towers.state_dict())
    state["visual.proj"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError, match=r"visual.proj: expected shape \[32, 32\], found \[3, 3\]"):
        clip_weights.load_into(towers, state, path)
    del state["visual.proj"]
    with pytest.raises(WeightsError, match="missing visual.proj"):
        clip_weights.load_into(towers, state, path)


def test_openai_file_in_the_cache_must_have_its_hash(tmp_path):
    (tmp_path / "RN50.pt").write_text("x")
    with pytest.raises(WeightsError, match="expected SHA-256 afeb0e10.*found 2d711642"):
        clip_weights.find("RN50", "openai", str(tmp_path))
    with pytest.raises(WeightsError, match="openai has no weights for"):
        clip_weights.find("ViT-H-14", "openai", str(tmp_path))
    with pytest.raises(WeightsError, match="found no file"):
        clip_weights.find("RN50", str(tmp_path / "none.pt"), None)


def test_unreachable_download_says_where_to_place_the_file(tmp_path):
    with pytest.raises(WeightsError, match="place it at .*x.pt"):
        clip_weights.download("http://127.0.0.1:9/x.pt", tmp_path / "x.pt", "0" * 64)
    assert not (tmp_path / "x.pt").exists()


def test_names():
    assert tower_config("ViT-B/16")["quick_gelu"] is True
    assert tower_config("RN50")["quick_gelu"] is True
    with pytest.raises(WeightsError, match="found 'ViT-B/17'"):
        tower_config("ViT-B/17")
    with pytest.raises(WeightsError, match="none.json"):
        tower_config("none.json")


def test_random_text_features_do_not_depend_on_the_seed(tmp_path):
    import json
    path = tmp_path / "tower.json"
    path.write_text(json.dumps(TINY_TOWER))
    encoders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        encoders.append(clip_encoder(name=str(path), weights="random", weights_dir=None,
                                     class_names={"train": ["run", "draw_sword"]}, prompt="a photo of {}"))
    a, b = encoders
    assert torch.equal(a.text_features["train"], b.text_features["train"])
    assert not torch.equal(a.text_features["train"][0], a.text_features["train"][1])
    assert not torch.equal(a.visual.proj, b.visual.proj)


@pytest.mark.parametrize("text, wrong", [("{}", "embed_dim, vision_cfg, text_cfg"), ("[1]", "embed_dim, vision_cfg"),
                                         ('{"embed_dim": 8, "vision_cfg": {}}', "text_cfg")])
def test_a_tower_file_without_its_parts_is_named(tmp_path, text, wrong):
    path = tmp_path / "tower.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=f"tower.json: expected a model config.*wrong or missing: {wrong}"):
        tower_config(str(path))


def test_a_prompt_that_cuts_a_class_name_is_refused(caplog):
    tokenizer, long = open_clip.SimpleTokenizer(), "very " * 80
    with pytest.raises(WeightsError, match="TEST.PROMPT: the text tower reads 75 tokens, the class name 'a jump' ends "
                                           "at token 82: it would be cut off"):
        models.encoders.clip._check_length(["a jump"], long + "{}", tokenizer)
    models.encoders.clip._check_length(["a jump"], "{} " + long, tokenizer)
    assert "only the first 75 tokens of the sentence for 'a jump' are read" in caplog.text
