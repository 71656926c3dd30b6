"""Every golden file, replayed by tests/parity.py; and that a wrong value is noticed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests import parity
from tests.golden.arrays import RECIPES, GoldenFile, digest

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(p for p in GOLDEN.iterdir() if p.suffix in (".json", ".npz") and p.name != "published_settings.json")
PUBLISHED_ARRAYS = {
    "functions.npz": "b9c946191e685e3621407e36974bb6f7d5ea1f465711fd0cbcfd4ab02355df9e",
    "head_rn.npz": "6e842abbe11780cd9f4c76c347eb5964184e3c90c0b2d06cac8b379501046cf7",
    "head_vit.npz": "57d7f7184f70f9b38efeabf12db7655457971a775081c620ff4887c5a474de30",
    "test_transform.npz": "4a874397f24342dee9a2121328f668321d622c44ebef40207188d8931007f1b2",
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_golden_file(path):
    rows = parity.replay(path)
    assert rows
    assert [row for row in rows if not row[2] <= row[3]] == []


def test_all_kinds_are_there():
    assert len(FILES) == 15


def test_a_wrong_value_and_an_unknown_case_name(tmp_path, capsys):
    data = GoldenFile(GOLDEN / "head_vit.npz")
    keep = {k: data[k] for k in data.files if k.startswith(("weights_depth1", "text", "tower", "class_names"))}
    renamed = {k.replace("eval_1shot/", "deep/my case/"): data[k] for k in data.files if k.startswith("eval_1shot/")}
    np.savez(tmp_path / "ok.npz", **keep, **renamed)
    assert parity.main([str(tmp_path / "ok.npz")]) == 0
    assert "deep/my case" in capsys.readouterr().out
    renamed["deep/my case/logits"] = renamed["deep/my case/logits"] + 1e-3
    np.savez(tmp_path / "wrong.npz", **keep, **renamed)
    assert parity.main([str(tmp_path / "wrong.npz")]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_the_arrays_are_those_that_were_published():
    """One hash over all names, types, shapes and values, taken from the files that the published code wrote."""
    for name, expected in PUBLISHED_ARRAYS.items():
        data = GoldenFile(GOLDEN / name)
        text = "".join(f"{one} {digest(data[one])}\n" for one in sorted(data.files))
        assert hashlib.sha256(text.encode()).hexdigest() == expected, name


@pytest.mark.parametrize("name, key, value", [
    ("weights_depth1/backbone.proj", None, None), ("weights_depth1/backbone.conv1.weight", "uniform", [1, -0.1, 0.1]),
    ("eval_1shot/in/support_set_x16", "fixes", [[0, 100]])])
def test_an_array_that_is_drawn_otherwise_is_refused(tmp_path, name, key, value):
    stored = dict(np.load(GOLDEN / "head_vit.npz"))
    recipes = json.loads(str(stored.pop(RECIPES)))
    if key:
        recipes[name][key] = value
    np.savez(tmp_path / "other.npz", **stored, **{RECIPES: np.array(json.dumps(recipes))})
    data = GoldenFile(tmp_path / "other.npz")
    assert data["eval_1shot/logits"].shape == (5, 5)
    if key is None:
        assert data[name].shape == (64, 64)
        return
    with pytest.raises(ValueError, match=f"other.npz: {name}: what was drawn anew has not the hash"):
        data[name]


def test_no_file_is_no_success(tmp_path):
    np.savez(tmp_path / "empty.npz", nothing=np.zeros(1))
    assert parity.main([str(tmp_path / "empty.npz")]) == 1
    assert parity.main([]) == 2
