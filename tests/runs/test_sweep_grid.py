"""What --grid means: values, combinations, and names of their directories."""

import re
from pathlib import Path

import pytest

from runs.sweeps import grid
from utils.config import resolve_config


@pytest.fixture()
def project(tiny_project):
    """A project file that loads."""
    return tiny_project("tiny")


@pytest.mark.parametrize("text, values", [
    ("1,3,5", ["1", "3", "5"]), (" a b , c", ["a b", "c"]), ("[0, 4],[1,[2,3]]", ["[0, 4]", "[1,[2,3]]"]),
    ("'a, b','it''s, c'", ["'a, b'", "'it''s, c'"]), (r'"a\", b",c', [r'"a\", b"', "c"]),
    ("it's {},b's {}", ["it's {}", "b's {}"]), ("['a]', b],(1,2),{x: ',', y: 2}", ["['a]', b]", "(1,2)",
                                                                                 "{x: ',', y: 2}"]),
    ("1,,2,", ["1", "", "2", ""]), ("''", ["''"]), ("a],b", ["a]", "b"]),
])
def test_values_are_split_outside_brackets_and_quotes(text, values):
    assert grid.split_values(text) == values


def test_every_combination_once_with_its_settings(project):
    found = grid.plan([project], ["TRAIN.SHOT=1,2", "SOLVER.STEPS=[0,1,2],[0,2,3]", "TEST.PROMPT='a, {}',-b {}"],
                      ["TRAIN.WAY", "4"], None)
    assert len({c.directory for c in found}) == len(found) == 8
    assert found[0].directory.parent == Path("output/sweep_tiny")
    loaded = [resolve_config(c.project, c.command()[4:]).config for c in found]
    assert {(c.TRAIN.SHOT, c.SOLVER.STEPS, c.TEST.PROMPT) for c in loaded} == {
        (shot, steps, prompt) for shot in (1, 2) for steps in ((0.0, 1.0, 2.0), (0.0, 2.0, 3.0))
        for prompt in ("a, {}", "-b {}")}
    assert all(c.TRAIN.WAY == 4 and str(one.directory) == c.OUTPUT_DIR for c, one in zip(loaded, found, strict=True))
    assert len({c.config_sha256 for c in found}) == 8


def test_a_sweep_goes_on_elsewhere_and_with_more_workers(project):
    def planned(*pairs: str) -> dict[str, str]:
        return {c.name: c.config_sha256 for c in grid.plan([project], ["TRAIN.COMPILE=true,false"], pairs, None)}

    before = planned()
    assert len(before) == 2  # what is as fast as what is worth a sweep, too
    assert planned("DATA_LOADER.NUM_WORKERS", "3", "DATA.DATA_ROOT_DIR", "/elsewhere") == before
    assert set(planned("TRAIN.SHOT", "2").values()).isdisjoint(before.values())


def test_names_say_what_varies_and_never_clash(project, tmp_path, tiny_project):
    [one] = grid.plan([project], ["TRAIN.SHOT=1", "PROTOCOL=clean", "RANDOM_SEED=0"], [], tmp_path)
    assert one.directory == tmp_path / "TRAIN.SHOT=1,PROTOCOL=clean,RANDOM_SEED=0"
    prompts = ["a/{}", "a:{}", "../{}", "A {}", "a {}", "x" * 300 + "{}", "x" * 300 + " {}"]
    names = [c.name for c in grid.plan([project], [f"TEST.PROMPT={','.join(prompts)}"], [], tmp_path)]
    assert len({name.casefold() for name in names}) == len(prompts)
    assert all(re.fullmatch(r"TEST.PROMPT=[\w.]+~\w{8}", name) and len(name) < 200 for name in names)
    plain = grid.fit_names(["K=a", "K=A", "K=b"])
    assert len({name.casefold() for name in plain}) == 3 and plain[2] == "K=b"
    other = tmp_path / "other" / "tiny.yaml"
    other.parent.mkdir()
    other.write_text(project.read_text().replace("WAY: 3", "WAY: 4"))
    third = tiny_project("third", WAY=5)
    names = [c.name for c in grid.plan([project, other, third], ["TRAIN.SHOT=1,2"], [], tmp_path)]
    assert names[4:] == ["third,TRAIN.SHOT=1", "third,TRAIN.SHOT=2"] and len(set(names)) == 6
    assert all(re.fullmatch(r"tiny-\w{8},TRAIN.SHOT=\d", name) for name in names[:4])
