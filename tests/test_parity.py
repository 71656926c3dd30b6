"""Every golden file, replayed by tests/parity.py; and that a wrong value is noticed."""

from pathlib import Path

import numpy as np
import pytest

from tests import parity

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(p for p in GOLDEN.iterdir() if p.name != "published_settings.json")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_golden_file(path):
    rows = parity.replay(path)
    assert rows
    assert [row for row in rows if not row[2] <= row[3]] == []


def test_all_kinds_are_there():
    assert len(FILES) == 8


def test_a_wrong_value_and_an_unknown_case_name(tmp_path, capsys):
    data = dict(np.load(GOLDEN / "head_vit.npz"))
    keep = {k: v for k, v in data.items() if k.startswith(("weights_depth1", "text", "tower", "class_names"))}
    renamed = {k.replace("eval_1shot/", "deep/my case/"): v for k, v in data.items() if k.startswith("eval_1shot/")}
    np.savez(tmp_path / "ok.npz", **keep, **renamed)
    assert parity.main([str(tmp_path / "ok.npz")]) == 0
    assert "deep/my case" in capsys.readouterr().out
    renamed["deep/my case/logits"] = renamed["deep/my case/logits"] + 1e-3
    np.savez(tmp_path / "wrong.npz", **keep, **renamed)
    assert parity.main([str(tmp_path / "wrong.npz")]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_no_file_is_no_success(tmp_path):
    np.savez(tmp_path / "empty.npz", nothing=np.zeros(1))
    assert parity.main([str(tmp_path / "empty.npz")]) == 1
    assert parity.main([]) == 2
