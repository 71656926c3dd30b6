"""The project files of HyRSM, HyRSM++ and MoLo mean what was published, and so do files of the public trees."""

import json

import numpy as np
import pytest
import yaml

from models.heads import HEADS
from tests.golden.settings import PROJECTS, project_file
from utils.config import resolve_config
from utils.config.effects import flat
from utils.config.inert import ignored_names, inert_keys
from utils.config.layers import REPOSITORY
from utils.config.options import with_options
from utils.config.reading import aliases
from utils.config.show import to_dict

DATA = np.load(REPOSITORY / "tests" / "golden" / "baselines_settings.npz")
NAMES = [key.removeprefix("settings/") for key in DATA.files if key.startswith("settings/")]
# Published values that nothing reads and that our files leave out: every one is named here.
LEFT_OUT = {"AUGMENTATION.NO_RANDOM_ERASE", "TEST.BATCH_SIZE"}


def published(name: str) -> dict:
    return json.loads(str(DATA[f"settings/{name}"]))


def meaning(path) -> dict:
    """Every key of a file, with its head's options complete."""
    resolved = resolve_config(path)
    complete, problems = with_options(resolved, HEADS[resolved.config.VIDEO.HEAD.NAME].Options)
    assert problems == []
    return flat(to_dict(complete.config))


def ignored(key: str) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:depth]) in ignored_names() for depth in range(1, len(parts) + 1))


def test_all_seventy_are_there():
    found = [path.stem for folder in ("MoLo", "hyrsm", "hyrsmplusplus") for path in (PROJECTS / folder).rglob("*.yaml")]
    assert len(NAMES) == 70 and sorted(found) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_published_settings(name):
    wanted = {key: value for key, value in flat(published(name)).items() if not ignored(key)} | {
        "TRAIN.DATASET": "few_shot", "TEST.DATASET": "few_shot",
        "TRAIN.DATASET_FEW": "ids" if "SSv2" in name else "paths"}
    defaults = {key: found.default for key, found in inert_keys().items()}
    found = meaning(project_file(name)) | defaults
    wanted = {aliases().get(key, key): value for key, value in wanted.items() if key not in LEFT_OUT}
    numbers = {key: float(value) for key, value in wanted.items()
               if isinstance(value, str) and isinstance(found.get(key), float)}  # 5e-4 is text to YAML
    assert {key: found.get(key, "absent") for key in wanted} == wanted | numbers


@pytest.mark.parametrize("name", ["MoLo_K100_5shot_v1", "HyRSMplusplus_Epic_2shot_v1", "HyRSM_SSv2_Small_1shot_v1"])
def test_a_file_of_the_public_tree_means_the_same(tmp_path, name):
    (tmp_path / "configs" / "pool").mkdir(parents=True)
    (tmp_path / "configs" / "pool" / "base.yaml").write_text("NUM_GPUS: 1\n")
    path = tmp_path / "configs" / "x.yaml"
    path.write_text(yaml.safe_dump(published(name)))
    ours, theirs = meaning(project_file(name)), meaning(path)
    places = {"OUTPUT_DIR", "DATA.DATA_ROOT_DIR", "DATA.ANNO_DIR", "DATA.CLASSES", "TRAIN.CLASS_NAME",
              "TRAIN.VAL_CLASS_NAME", "TEST.CLASS_NAME"}
    assert {key for key in ours if ours[key] != theirs.get(key)} <= places
