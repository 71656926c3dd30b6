"""Which runs are seeds of one setting: those that differ in nothing that numbers depend on."""

import pytest

from runs.tables.table import build_table
from tests.conftest import REPOSITORY
from tests.runs.result_files import write_result
from utils.config import load_config
from utils.config.show import to_dict

DEMO = REPOSITORY / "configs" / "projects" / "demo" / "CLIPFSAR_Demo_1shot.yaml"


def _config(seed: int, **sections: dict) -> dict:
    """A configuration as run.json has it, with some keys of other values."""
    found = to_dict(load_config(DEMO, ["RANDOM_SEED", str(seed)]))
    return {name: value | sections.get(name, {}) if isinstance(value, dict) else sections.get(name, value)
            for name, value in found.items()}


@pytest.mark.parametrize("changes", [
    {"DATA": {"DATA_ROOT_DIR": "/mnt/one", "ANNO_DIR": "/lists", "DECODER": "pyav"}}, {"TRAIN": {"COMPILE": True}},
    {"TRAIN": {"NUM_FOLDS": 3, "DATASET_FEW": "HMDB_few_shot", "DATASET": "Ssv2_few_shot"}},  # of an earlier version
    {"MODEL": {"NAME": "BaseVideoModel"}}, {"OUTPUT_DIR": "elsewhere", "LOG_PERIOD": 7},
    {"DATA": {"FRAME_CACHE": "/c"}},  # whose pixels, says results.json, are those of the videos
])
def test_seeds_that_differ_in_speed_and_place_are_one_row(tmp_path, changes):
    """Three machines, three mounts: the best seed is no row of its own, and never bold."""
    runs = [write_result(tmp_path / str(seed), 0.6 + seed / 100, seed=seed, config=_config(seed, **given),
                         frame_cache=None) for seed, given in enumerate(({}, changes, {}))]
    [(label, row)] = build_table(runs).rows
    [entry] = row.values()
    assert label == "CLIP-FSAR RN50, prototypes" and not entry.best
    assert (entry.mean, entry.spread, entry.seeds) == ("61.0", "1.0", "(3 seeds)")


@pytest.mark.parametrize(("changes", "name"), [
    ({"SOLVER": {"BASE_LR": 0.5}}, "SOLVER.BASE_LR 0.5"),
    ({"VIDEO": {"HEAD": {"A_NEW_KEY": 2}}}, "VIDEO.HEAD.A_NEW_KEY 2"),
    ({"TEST": {"TEMPORAL_DRAWS": 9}}, "TEST.TEMPORAL_DRAWS 9"),
])
def test_seeds_that_differ_in_what_decides_numbers_are_no_seeds(tmp_path, changes, name):
    runs = [write_result(tmp_path / str(seed), 0.6, seed=seed, config=_config(seed, **given))
            for seed, given in enumerate(({}, changes))]
    rows = build_table(runs).rows
    assert [entry.cell.seeds for _, row in rows for entry in row.values()] == [1, 1] and name in rows[1][0]


def test_frame_caches_are_told_apart_by_their_pixels(tmp_path):
    """The directory may lie anywhere; what it holds is written in results.json."""
    given = [("/a", {"codec": "png"}), ("/b", {"codec": "png"}), ("/a", {"codec": "jpeg"})]
    runs = [write_result(tmp_path / str(seed), 0.6, seed=seed, config=_config(seed, DATA={"FRAME_CACHE": path}),
                         frame_cache=facts) for seed, (path, facts) in enumerate(given)]
    rows = build_table(runs).rows
    assert [entry.cell.seeds for _, row in rows for entry in row.values()] == [2, 1] and "'jpeg'" in rows[1][0]
