"""Reads results.json files as Results: one accuracy each, with everything that decides what it may stand beside."""

import math
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.effects import flat
from utils.config.fields import Mismatch, coerce, describe
from utils.config.reading import shown
from utils.errors import ResultsError
from utils.json_files import load_json

_COUNTS = ("shot", "way", "query", "episodes", "frames")


@dataclass(frozen=True, slots=True)
class TestedUnder:
    """Holds the keys of a results.json that say what its accuracy means; each must be there."""

    method: str
    backbone: str
    data_set: str
    shot: int
    way: int
    query: int
    episodes: int
    frames: int
    temporal_draws: int | str | None
    protocol: str
    split: str
    selected_on: str
    list_id: str
    list_sha256: str
    episodes_sha256: str
    episode_seed: int | None
    seed: int | str
    iteration: int | str
    bad_videos: int
    transductive: bool
    texts: str | None
    pretraining: str


@dataclass(frozen=True, slots=True)
class Score:
    """Holds one way of scoring: its name in words, accuracies in 0..1; None for what the file does not give."""

    title: str
    accuracy: float
    interval95: float | None
    interval95_videos: tuple[float, ...] | None = None
    text_weight: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Holds one measured accuracy.

    Args:
        file: the results.json.
        scoring: the name that the file gives it.
        lists: split to the identity of its list.
        config: the run's settings by dotted key, from run.json beside the file; None where that is not there.
    """

    file: Path
    setting: TestedUnder
    scoring: str
    score: Score
    lists: dict[str, str]
    config: dict[str, Any] | None


def _file(run: Path) -> Path:
    """Return the results.json of a run directory, or the file itself."""
    if run.is_file():
        return run
    if not run.is_dir():
        raise ResultsError(f"{run}: no such directory or file; expected the directory of a run, or its results.json")
    if not (run / "results.json").is_file():
        raise ResultsError(f"{run}: no results.json in this directory; expected the directory of a finished run")
    return run / "results.json"


def _files(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the results of a run; of a run with several seeds those of each seed."""
    path = _file(run)
    content = load_json(path)
    if "seeds" not in content or "runs" not in content:
        yield path, content
        return
    names = content["runs"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ResultsError(f"{path}: runs: expected the directories of the seeds, found {shown(names)}")
    for name in names:
        one = _file(path.parent / name)
        yield one, load_json(one)


def _present(path: Path, content: dict[str, Any], name: str, prefix: str) -> Any:
    """Return the value of a key that must be there."""
    if name not in content:
        raise ResultsError(f"{path}: {prefix}{name}: this key is missing (found {', '.join(content) or 'no keys'}); "
                           "test the checkpoint again with this version to have it written")
    return content[name]


def _value(path: Path, content: dict[str, Any], name: str, hint: Any, prefix: str = "") -> Any:
    """Return one key with its type checked; where null is a value, NaN is read as null."""
    value = _present(path, content, name, prefix)
    if type(None) in typing.get_args(hint) and isinstance(value, float) and math.isnan(value):
        return None
    try:
        return coerce(value, hint)
    except Mismatch:
        raise ResultsError(f"{path}: {prefix}{name}: expected {describe(hint)}, found {shown(value)}") from None


def _section(path: Path, content: dict[str, Any], name: str, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping that is not empty."""
    value = _present(path, content, name, prefix)
    if not isinstance(value, dict) or not value:
        raise ResultsError(f"{path}: {prefix}{name}: expected a section with keys, found {shown(value)}")
    return value


def _score(path: Path, scorings: dict[str, Any], name: str) -> Score:
    """Read one entry of scorings."""
    part, prefix = _section(path, scorings, name, "scorings."), f"scorings.{name}."
    left_out = {"title": name, "interval95_videos": None, "text_weight": None}  # by earlier versions, other scorings
    score = Score(**{key: _value(path, part if key in part or key not in left_out else left_out, key, hint, prefix)
                     for key, hint in typing.get_type_hints(Score).items()})
    for key in ("accuracy", "interval95"):
        if not 0 <= (getattr(score, key) or 0) <= 1:
            raise ResultsError(f"{path}: {prefix}{key}: expected 0 to 1, found {shown(getattr(score, key))}")
    ends = score.interval95_videos
    if ends is not None and not (len(ends) == 2 and 0 <= ends[0] <= ends[1] <= 1):
        raise ResultsError(f"{path}: {prefix}interval95_videos: expected its two ends, found {shown(list(ends))}")
    return score


def _wanted(path: Path, content: dict[str, Any], scorings: dict[str, Any], scoring: str | None) -> list[str]:
    """Return the scorings to show of a file."""
    return list(scorings) if scoring == "all" else [scoring or _value(path, content, "scoring", str)]


def _config(path: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    """Return the flat configuration in the run.json beside a results.json with this content.

    In place of the directory of a frame cache stands what the results say of its pixels: it may lie anywhere.
    """
    if not path.with_name("run.json").is_file():
        return None
    found = flat(_section(path.with_name("run.json"), load_json(path.with_name("run.json")), "config"))
    return found | ({"DATA.FRAME_CACHE": content["frame_cache"]} if "frame_cache" in content else {})


def read_results(runs: Iterable[str | Path], scoring: str | None = None) -> list[Result]:
    """Return the results of run directories or results.json files, in this order, each file once.

    Args:
        scoring: its name in the files; all: every scoring a file has; None: the one its first numbers are.

    Raises:
        ResultsError: naming the directory without results, or the file and the key that is missing or wrong.
    """
    found: list[Result] = []
    seen: set[Path] = set()
    for path, content in (item for run in runs for item in _files(Path(run))):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        hints = typing.get_type_hints(TestedUnder)
        setting = TestedUnder(**{name: _value(path, content, name, hint) for name, hint in hints.items()})
        for name in _COUNTS:
            if not 1 <= getattr(setting, name) < 2**53:
                raise ResultsError(f"{path}: {name}: expected a count from 1, found {shown(getattr(setting, name))}")
        lists = _section(path, content, "lists")
        lists = {split: _value(path, lists, split, str, "lists.") for split in lists}
        scorings, config = _section(path, content, "scorings"), _config(path, content)
        found += [Result(path, setting, name, _score(path, scorings, name), lists, config)
                  for name in _wanted(path, content, scorings, scoring)]
    return found
