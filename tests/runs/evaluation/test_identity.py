"""Names of split lists and data sets."""

from pathlib import Path

import pytest
import yaml

from datasets.annotations import list_hash
from datasets.demo import render
from runs.evaluation.identity import data_set_name, foreign_names, list_name
from tests.conftest import REPOSITORY
from utils.config import load_config

KNOWN = yaml.safe_load((REPOSITORY / "configs/pool/lists.yaml").read_text())
SPLITS = Path(REPOSITORY).parent / "shared" / "splits"


def test_every_known_list_has_its_name_and_others_are_custom():
    for name, splits in KNOWN.items():
        assert set(splits) == {"train", "val", "test"}
        for split, digest in splits.items():
            assert len(digest) == 64 and list_name(split, digest) == name
    assert list_name("test", KNOWN["ssv2_full@67013"]["train"]).startswith("custom-")  # of another split
    assert list_name("test", "ab" * 32) == "custom-abababab"


def test_class_names_of_another_published_data_set_are_told():
    names = {name: load_config(next((REPOSITORY / "configs/projects/CLIPFSAR" / name).glob("*.yaml"))).TEST.CLASS_NAME
             for name in ("ssv2_full", "ssv2_small")}
    digest = KNOWN["ssv2_full@67013"]["test"]
    assert foreign_names("test", digest, names["ssv2_full"]) is None
    assert foreign_names("test", digest, names["ssv2_small"]) == (
        "this is ssv2_full@67013, whose class indices are those of ssv2_full, but the test class names are "
        "ssv2_small's")
    assert foreign_names("test", digest, [f"a {name}" for name in names["ssv2_small"]]) is None  # words of one's own
    assert foreign_names("test", "ab" * 32, names["ssv2_small"]) is None


@pytest.mark.shared("splits")
@pytest.mark.parametrize("name", [name for name in KNOWN if not name.startswith("demo")])
def test_published_lists_are_known(name):
    for split in ("train", "val", "test"):
        path = SPLITS / name.split("@")[0] / f"{split}_few_shot.txt"
        assert list_name(split, list_hash(path)) == name


def test_the_demo_lists_are_known(tmp_path, monkeypatch):
    """Its clips need not be rendered to know their lists."""
    monkeypatch.setattr(render, "_render_missing", lambda *_: None)
    for split, path in render.render_demo(tmp_path).items():
        assert list_name(split, list_hash(path)) == "demo@1"


def test_data_sets_are_known_by_their_test_classes():
    projects = REPOSITORY / "configs" / "projects"
    assert data_set_name(load_config(projects / "demo/CLIPFSAR_Demo_1shot.yaml")) == "demo"
    path = projects / "CLIPFSAR/ucf101/CLIPFSAR_UCF101_5shot_v1.yaml"
    assert data_set_name(load_config(path)) == "ucf101"
    assert data_set_name(load_config(path, ["TEST.CLASS_NAME", "[a, b, c, d, e]"])) == "custom"
    path, strokes = projects / "real_clips/psl80/OTAM_PSL80_1shot.yaml", projects / "real_clips/frozen"
    names = load_config(strokes / "Frozen_Tennis7_1shot.yaml").TEST.CLASS_NAME
    assert data_set_name(load_config(path, ["TEST.CLASS_NAME", f"[{', '.join(names)}]"])) == "tennis7"
