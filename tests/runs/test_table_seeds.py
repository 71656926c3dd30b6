"""Paper tables: which runs are seeds of one setting, and which are other settings."""

import json
import re

import pytest

from runs.tables.table import build_table
from tests.conftest import REPOSITORY
from tests.runs.result_files import long_form, mark_of, markdown, rows_of, write_result
from utils.config import load_config
from utils.config.show import to_dict
from utils.errors import ResultsError

DEMO = REPOSITORY / "configs" / "projects" / "demo" / "CLIPFSAR_Demo_1shot.yaml"


def test_seeds_are_one_cell_with_their_spread(tmp_path):
    runs = [write_result(tmp_path / f"s{seed}", 0.6 + seed / 100, seed=seed, iteration=seed) for seed in range(3)]
    text = markdown(*runs, runs[0])
    assert rows_of(text)["CLIP-FSAR RN50, prototypes"] == ["61.0 +- 1.0 (3 seeds) <sup>a</sup>"]
    assert ("<sup>a</sup> mean over 3 seeds (0, 1, 2), +- is the sample standard deviation over these seeds, all on "
            "the same test episodes.") in text
    [row] = long_form(*runs)
    assert (row["accuracy"], row["seed_deviation"], row["seeds"], row["seed"], row["interval95"]) == (
        "61.0", "1.0", "3", "0 1 2", "")
    own = [write_result(tmp_path / f"o{seed}", seed=seed, episode_seed=seed, episodes_sha256=str(seed))
           for seed in range(2)]
    assert "each on its own test episodes" in markdown(*own)


def test_a_directory_of_several_seeds_stands_for_its_runs(tmp_path):
    for seed in range(2):
        write_result(tmp_path / "all" / f"seed_{seed}", 0.5 + seed / 10, seed=seed)
    (tmp_path / "all" / "results.json").write_text(json.dumps(
        {"seeds": [0, 1], "accuracy": 0.55, "spread": 0.07, "runs": ["seed_0", "seed_1"]}))
    assert rows_of(markdown(tmp_path / "all"))["CLIP-FSAR RN50, prototypes"][0].startswith("55.0 +- 7.1 (2 seeds)")
    (tmp_path / "all" / "seed_1" / "results.json").unlink()
    with pytest.raises(ResultsError, match=r"all/seed_1: no results.json in this directory; expected the directory"):
        build_table([tmp_path / "all"])


def test_other_settings_are_no_seeds(tmp_path):
    """run.json tells settings apart that results.json does not have; without it, a seed that occurs twice does."""
    def config(lr: float, seed: int) -> dict:
        return {"SOLVER": {"BASE_LR": lr}, "RANDOM_SEED": seed, "OUTPUT_DIR": f"out{lr}{seed}"}

    runs = [write_result(tmp_path / f"{lr}_{seed}_{shot}", 0.6 + lr, seed=seed, config=config(lr, seed), shot=shot)
            for lr, shot in ((0.1, 1), (0.01, 1), (0.01, 5)) for seed in (0, 1) if shot == 1 or seed == 0]
    rows = rows_of(markdown(*runs))
    cells = {label.split("; ")[-1]: [re.sub(" <sup>.*", "", cell) for cell in cells] for label, cells in rows.items()}
    assert cells["SOLVER.BASE_LR 0.1"] == ["**70.0** +- 0.0 (2 seeds)", "-"]
    assert cells["SOLVER.BASE_LR 0.01"] == ["61.0 +- 0.0 (2 seeds)", "61.0 +- 0.9"]
    again = [write_result(tmp_path / name, seed=seed) for name, seed in (("x", 3), ("y", 3), ("z", 4))]
    for some in (again[:2], again):
        assert [label.rsplit("; ", 1)[1] for label in list(rows_of(markdown(*some)))[1:]] == list(map(str, some))


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
    [(label, [cell])] = list(rows_of(markdown(*runs)).items())[1:]
    assert label == "CLIP-FSAR RN50, prototypes" and cell.startswith("61.0 +- 1.0 (3 seeds)") and "**" not in cell


@pytest.mark.parametrize(("changes", "name"), [
    ({"SOLVER": {"BASE_LR": 0.5}}, "SOLVER.BASE_LR 0.5"),
    ({"VIDEO": {"HEAD": {"A_NEW_KEY": 2}}}, "VIDEO.HEAD.A_NEW_KEY 2"),
    ({"TEST": {"TEMPORAL_DRAWS": 9}}, "TEST.TEMPORAL_DRAWS 9"),
])
def test_seeds_that_differ_in_what_decides_numbers_are_no_seeds(tmp_path, changes, name):
    runs = [write_result(tmp_path / str(seed), 0.6, seed=seed, config=_config(seed, **given))
            for seed, given in enumerate(({}, changes))]
    assert any(name in label for label in rows_of(markdown(*runs))) and "seeds)" not in markdown(*runs)


def test_frame_caches_are_told_apart_by_their_pixels(tmp_path):
    """The directory may lie anywhere; what it holds is written in results.json."""
    given = [("/a", {"codec": "png"}), ("/b", {"codec": "png"}), ("/a", {"codec": "jpeg"})]
    runs = [write_result(tmp_path / str(seed), 0.6, seed=seed, config=_config(seed, DATA={"FRAME_CACHE": path}),
                         frame_cache=facts) for seed, (path, facts) in enumerate(given)]
    labels = list(rows_of(markdown(*runs)))[1:]
    assert len(labels) == 2 and "(2 seeds)" in markdown(*runs) and "'jpeg'" in labels[1]


def _labels_and_notes(*runs) -> list[tuple[str, list[str]]]:
    """Each row's label, and the footnotes of its cells."""
    text = markdown(*runs)
    notes = dict(re.findall(r"^<sup>(\w+)</sup> (.*)\.$", text.replace("\\", ""), re.MULTILINE))
    return [(label.replace("\\", ""), [notes.get(mark_of(cell), "") for cell in cells])
            for label, cells in list(rows_of(text).items())[1:]]


def test_other_settings_of_the_columns_of_a_row_are_told(tmp_path):
    """But not what a column says: its shots, and the names of its data set's classes."""
    runs = [write_result(tmp_path / str(shot), shot=shot, data_set=name, config=_config(
        0, TRAIN={"SHOT_TEST": shot}, TEST={"CLASS_NAME": [name]}, VIDEO={"HEAD": {"OPTIONS": {"MERGE_BEFORE": on}}}))
        for shot, name, on in ((1, "ssv2_full", False), (5, "ucf101", True))]
    assert _labels_and_notes(*runs) == [("CLIP-FSAR RN50, prototypes", [
        "VIDEO.HEAD.OPTIONS.MERGE_BEFORE false", "VIDEO.HEAD.OPTIONS.MERGE_BEFORE true"])]
    assert [row["settings"][-5:] for row in long_form(*runs)] == ["false", " true"]
    plain = write_result(tmp_path / "plain", data_set="hmdb51")
    assert _labels_and_notes(*runs, plain)[0][1][-1] == "settings not known (no run.json)"


def test_training_is_told_where_rows_differ_in_it(tmp_path):
    """In rows that other facts tell apart, those of another scoring, too; rows that say it have no footnote."""
    def run(name: str, tasks: int, **facts):
        return write_result(tmp_path / name, config=_config(0, TRAIN={"NUM_TRAIN_TASKS": tasks}), **facts)

    long = run("a", 400)
    for short in (run("b", 40, episodes=20), run("c", 40, scoring="fused")):
        assert [notes[0].split("; ")[-1] for _, notes in _labels_and_notes(long, short)] == [
            "TRAIN.NUM_TRAIN_TASKS 400", "TRAIN.NUM_TRAIN_TASKS 40"]
    assert _labels_and_notes(long, run("d", 40)) == [
        (f"CLIP-FSAR RN50, prototypes; TRAIN.NUM_TRAIN_TASKS {tasks}", [""]) for tasks in (400, 40)]


def test_whether_a_run_trained_is_no_setting(tmp_path):
    runs = [write_result(tmp_path / f"run{how}", config=_config(
        0, TRAIN={"ENABLE": not how}, VIDEO={"HEAD": {"OPTIONS": {"ALIGNMENT": f"otam{how}"}}}))
        for how in ("", "_reference")]
    label = "CLIP-FSAR RN50, prototypes; VIDEO.HEAD.OPTIONS.ALIGNMENT"
    assert _labels_and_notes(*runs) == [(f"{label} '{name}'", [""]) for name in ("otam", "otam_reference")]
