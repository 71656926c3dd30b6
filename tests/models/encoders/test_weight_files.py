"""Weights: every format, nothing run from a file, wrong files refused by name."""

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.encoders import weight_files
from models.encoders.clip import build_towers, clip_encoder
from tests.conftest import TINY_TOWER
from tests.damage import flipped, mutated
from utils import checkpoint
from utils.errors import CheckpointError, WeightsError


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
    found = weight_files.read_state(path)
    assert {k: v.shape for k, v in reference.items()} == {k: v.shape for k, v in found.items()}
    assert all(torch.equal(reference[k], found[k]) for k in reference)
    weight_files.fit(towers, found, path)


@pytest.mark.parametrize("kind", ["pt", "wrapped", "safetensors"])
def test_plain_files(tmp_path, towers, kind):
    state = {k: v.contiguous() for k, v in towers.state_dict().items()}
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state} if kind == "wrapped" else state, path)
    _same(weight_files.read_state(path), towers)


class _Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_file_cannot_run_code(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"x": _Evil()}, path)
    with pytest.raises(WeightsError, match="evil.pt"):
        weight_files.read_state(path)
    path.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(WeightsError, match="evil.pt"):
        weight_files.read_state(path)


def test_wrong_and_damaged_files(tmp_path, towers):
    path = tmp_path / "w.pt"
    path.write_text("not weights")
    with pytest.raises(WeightsError, match="expected weights"):
        weight_files.read_state(path)
    state = dict(towers.state_dict())
    state["visual.proj"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError, match=r"visual.proj: expected shape \[32, 32\], found \[3, 3\]"):
        weight_files.fit(towers, state, path)
    del state["visual.proj"]
    with pytest.raises(WeightsError, match="missing visual.proj"):
        weight_files.fit(towers, state, path)


class _Wide(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.zeros(1).expand(10**10))

    def forward(self, x):
        return x


def test_what_lies_in_the_place_of_weights_is_named_and_nothing_unsafe_is_advised(tmp_path):
    torch.save({"x": _Evil()}, tmp_path / "evil.pt")
    for name in ("lfs.pt", "lfs.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>not found</html>")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.jit.script(_Wide()).save(str(tmp_path / "wide.pt"))
    (tmp_path / "header.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    for name, said in {"evil.pt": "refused: it names [a-z.]*exec, and reading that could run code",
                       "lfs.pt": "found a Git LFS pointer", "lfs.safetensors": "found a Git LFS pointer",
                       "page.pth": "found a web page", "empty.pt": "found an empty file",
                       "header.safetensors": "damaged, or no weights",
                       "wide.pt": "refused: it makes 10,000,000,000 numbers of 1"}.items():
        with pytest.raises(WeightsError, match=f"{name}: .*{said}") as caught:
            weight_files.read_state(tmp_path / name)
        assert "weights_only" not in str(caught.value)
    with pytest.raises(WeightsError, match="expected a file, found a device"):
        weight_files.read_state(Path("/dev/zero"))


def test_every_changed_byte_of_an_archive_is_told_or_changes_no_weight(tmp_path):
    path, model = tmp_path / "a.pt", torch.nn.Linear(31, 9)
    torch.jit.script(model).save(str(path))
    whole = weight_files.read_state(path)
    for content in flipped(path.read_bytes(), 200):
        path.write_bytes(content)
        try:
            found = weight_files.read_state(path)
        except WeightsError:
            continue
        assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)


def test_weights_of_whole_numbers_are_refused_and_prefixes_understood(tmp_path):
    model, path = torch.nn.Linear(2, 1), tmp_path / "w.pt"
    torch.save({f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}, path)
    weight_files.fit(model, weight_files.read_state(path), path)
    with pytest.raises(WeightsError, match="weight: expected numbers of torch.float32, found torch.int64"):
        weight_files.fit(model, {name: value.long() for name, value in model.state_dict().items()}, path)


def test_openai_file_in_the_cache_must_have_its_hash(tmp_path):
    (tmp_path / "RN50.pt").write_text("x")
    with pytest.raises(WeightsError, match="expected SHA-256 afeb0e10.*found 2d711642"):
        clip_encoder(name="RN50", weights=None, weights_dir=str(tmp_path), reads_text=False)
    with pytest.raises(WeightsError, match="openai has no weights for 'ViT-H-14'"):
        clip_encoder(name="ViT-H-14", weights="openai", weights_dir=str(tmp_path), reads_text=False)
    with pytest.raises(WeightsError, match="expected openai .* imagenet .*, random or a file, found no file .*none.pt"):
        weight_files.find(str(tmp_path / "none.pt"), None)


def test_unreachable_download_says_where_to_place_the_file(tmp_path):
    with pytest.raises(WeightsError, match="place it at .*x.pt"):
        weight_files.download("http://127.0.0.1:9/x.pt", tmp_path / "x.pt", "0" * 64)
    assert not (tmp_path / "x.pt").exists()


def _fuzz(tmp_path, number: int) -> None:
    model = torch.nn.Linear(31, 9)
    torch.jit.script(model).save(str(tmp_path / "script.pt"))
    torch.save(model.state_dict(), tmp_path / "zip.pt")
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "a.safetensors")
    checkpoint.atomic_save({"epoch": 1, "model_state": model.state_dict()}, tmp_path / "a.pyth")
    for path in sorted(tmp_path.iterdir()):
        read = checkpoint.read if path.suffix == ".pyth" else weight_files.read_state
        for content in mutated(path.read_bytes(), number):
            path.write_bytes(content)
            try:
                read(path)
            except (WeightsError, CheckpointError) as error:
                assert str(error).startswith(str(path)) and "weights_only" not in str(error)


def test_files_of_other_bytes_are_read_or_told(tmp_path):
    _fuzz(tmp_path, 60)


@pytest.mark.slow
def test_many_files_of_other_bytes_are_read_or_told(tmp_path):
    _fuzz(tmp_path, 4000)
