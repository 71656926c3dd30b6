"""Every kind of file that another may have written, with other bytes or other values: read, or told by its name.

Bytes are changed by tests/damage.py; values of JSON and YAML by hypothesis, which puts odd ones where others were.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings

from datasets.annotations import read_split_list
from models.encoders.clip import build_towers, tower_config
from runs.benchmarks.record import read_record
from runs.preparing.check import Progress
from runs.preparing.own_lists import own_lists
from runs.reporting.run_record import write_bad_videos
from runs.tables.published import PUBLISHED, published_cells
from runs.tables.reading import read_results
from runs.training.records import Records
from tests.damage import mutated
from tests.runs.result_files import result
from utils.config import load_config
from utils.config.class_names import read_class_names
from utils.distributed import ALONE
from utils.episode import BadVideo
from utils.errors import FewShotError
from utils.json_files import load_json

Read = Callable[[Path], Any]
TOWER = {"embed_dim": 8, "quick_gelu": True,
         "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 8, "patch_size": 8},
         "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 8, "heads": 1, "layers": 1}}
CLASSES = {"mine": {"train": ["a", "b"], "val": ["c", "d"], "test": {"e": "the e", "f": "the f"}}}


def _read_classes(path: Path) -> None:
    for name in "abcdef":
        (path.parent / "videos" / name).mkdir(parents=True, exist_ok=True)
        (path.parent / "videos" / name / "0.mp4").touch()
    own_lists(path.parent / "videos", path)


def _board(path: Path) -> None:
    board = path.parent / "run" / "tensorboard"
    board.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, board / "events.out.tfevents.1.host.1.0")
    with Records(path.parent / "run", ALONE, lambda record: True):
        pass


def _bad_videos(path: Path) -> None:
    write_bad_videos(path, [BadVideo("a.mp4", "damaged", "b.mp4", "train", 1)])


JSON: dict[str, tuple[Any, Read]] = {
    "results.json": (result(0.5), lambda path: read_results([path])),
    "run.json": ({"command": ["a"], "config": {"TRAIN": {"WAY": 5}}}, load_json),
    "tower.json": (TOWER, lambda path: build_towers(tower_config(str(path)))),
    "bench.json": ({"format": "clip-fsar-benchmarks", "version": 1, "created": "", "command": [], "machine": {"a": 1},
                    "versions": {"torch": "2"}, "git_commit": None, "failed": {},
                    "benchmarks": {"step": {"settings": {}, "seconds": 1.0, "rows": []}}}, read_record),
}
YAML: dict[str, tuple[Any, Read]] = {
    "classes.yaml": ({"mine": {"train": ["a", "b"], "val": None, "test": ["c"]}}, read_class_names),
    "own.yaml": (CLASSES, _read_classes),
    "published.yaml": (yaml.safe_load(PUBLISHED.read_text())[:3], lambda path: published_cells([], path)),
    "run.yaml": ({"DATA": {"CLASSES": "hmdb51"}, "TRAIN": {"WAY": 5, "ENABLE": True}, "SOLVER": {"BASE_LR": 0.1}},
                 load_config),
}
ODD = st.sampled_from([
    None, True, 0, -1, 2**70, 10**400, 1e308, float("nan"), "", "x", "\0", "\ud800", "=1+1", "9" * 99, [], [[]], {},
    [None], ["a", 1], {"a": None}, [1e999], "a" * 70_000, "\x1b[2J", "../../x", "1e5", -0.0]).map(copy.deepcopy)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a value, deep."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


@st.composite
def odd_values(draw: st.DrawFn, content: Any) -> Any:
    """The content with one to three values that are odd, or left out, or under an odd key."""
    changed = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(changed))
        if not places or draw(st.integers(0, 30)) == 0:
            return draw(ODD)
        container, key = draw(st.sampled_from(places))
        if isinstance(container, dict) and draw(st.booleans()):
            value = container.pop(key)
            if draw(st.booleans()):
                container[draw(st.sampled_from(["", "x", "\0", "a b", "é", "1", "null"]))] = value
        else:
            container[key] = draw(ODD)
    return changed


def _events(path: Path) -> bytes:
    with Records(path, ALONE, lambda record: True) as records:
        for k in range(5):
            records.write({"kind": "train", "iteration": k, "loss": 1.0, "accuracy": 0.5, "lr": 0.1})
    return next((path / "tensorboard").iterdir()).read_bytes()


BYTES: dict[str, tuple[Callable[[Path], bytes], Read]] = {
    "train_few_shot.txt": (lambda _: b"train0//a/0.mp4\ntrain1//b/1.mp4\n", lambda path: read_split_list(
        path, "train", "HMDB_few_shot")),
    "events": (lambda path: _events(path / "source"), _board),
    "bad_videos.csv": (lambda _: b"path,reason,replaced_by,split,episode\na,b,c,train,1\n", _bad_videos),
    "examined.jsonl": (lambda _: b'{"a": 1}\n{"key": "a", "facts": {"readable": true, "frames": 3}}\n',
                       lambda path: Progress(path, {"a": 1}).file.close()),
    **{name: (lambda _, content=content: json.dumps(content).encode(), read) for name, (content, read) in JSON.items()},
    **{name: (lambda _, content=content: yaml.safe_dump(content).encode(), read)
       for name, (content, read) in YAML.items()},
}


def _is_read_or_told(path: Path, read: Read) -> None:
    try:
        read(path)
    except FewShotError as error:
        assert path.name in str(error) or path.suffix == ".json" and "open_clip refuses" in str(error), error


def _other_bytes(name: str, folder: Path, number: int) -> None:
    make, read = BYTES[name]
    whole, path = make(folder), folder / name
    path.write_bytes(whole)
    read(path)
    for content in [b"", b"\xff\xfe\0", *mutated(whole, number)]:
        path.write_bytes(content)
        _is_read_or_told(path, read)


@pytest.mark.parametrize("name", BYTES)
def test_other_bytes(name, tmp_path):
    _other_bytes(name, tmp_path, 25)


@pytest.mark.slow
@pytest.mark.parametrize("name", BYTES)
def test_many_other_bytes(name, tmp_path):
    _other_bytes(name, tmp_path, 250)


def _odd_values(name: str, folder: Path, number: int) -> None:
    content, read = {**JSON, **YAML}[name]
    dump: Callable[[Any], str] = json.dumps if name in JSON else lambda value: yaml.safe_dump(value, allow_unicode=True)

    @seed(1)
    @settings(max_examples=number, deadline=60_000, database=None, suppress_health_check=list(HealthCheck))
    @given(odd_values(content))
    def look(changed: Any) -> None:
        try:
            text = dump(changed).encode("utf-8", "surrogatepass")
        except ValueError:  # Python prints no number as long
            return
        (folder / name).write_bytes(text)
        _is_read_or_told(folder / name, read)

    look()


@pytest.mark.parametrize("name", [*JSON, *YAML])
def test_odd_values(name, tmp_path):
    _odd_values(name, tmp_path, 25)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*JSON, *YAML])
def test_many_odd_values(name, tmp_path):
    _odd_values(name, tmp_path, 400)
