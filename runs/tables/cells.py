"""Turns results into cells: what a cell says, which runs are seeds of one setting, what stands beside the number."""

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs.tables.reading import Result, TestedUnder
from utils.config.effects import settings
from utils.config.fields import PLACE, SPEED
from utils.pretraining import has_seen, kind_words, pretraining_words, text_words

Column = tuple[str, int]  # data set, shots


@dataclass(frozen=True, slots=True)
class Cell:
    """Holds one number of the table.

    Args:
        label: method, backbone and scoring.
        column: data set and shots.
        accuracy: in 0..1.
        plus_minus: what stands after +-, in 0..1; None where there is nothing to say.
        seeds: runs behind the number; 0 for a published figure.
        conditions: name to words of what cells must share to be comparable.
        remarks: name to words of what must be told, too, but does not forbid a comparison.
        config: settings by dotted key that tell this cell from others of the same conditions.
        runs: directories of the runs.
        record: everything, for the long form.
    """

    label: str
    column: Column
    accuracy: float
    plus_minus: float | None
    seeds: int
    conditions: dict[str, str]
    remarks: dict[str, str]
    config: dict[str, Any]
    runs: str
    record: dict[str, Any]


def row_label(method: str, backbone: str, scoring: str) -> str:
    """Return a row's name, such as 'METHOD RN50, scoring'; a backbone that is a JSON file goes by its stem."""
    return f"{method} {backbone_name(backbone)}, {scoring}"


def backbone_name(backbone: str) -> str:
    """Return the name of a tower: a .json path's stem, else the name itself (ViT-B/16 is no path)."""
    return Path(backbone).stem if backbone.endswith(".json") else backbone


def _settings(result: Result) -> dict[str, Any]:
    """Return the run's settings that may change its numbers; seeds, and whether it trained or only tested, aside."""
    return {key: value for key, value in settings(result.config or {}, SPEED, PLACE).items()
            if not key.endswith(("SEED", "SEEDS", "TRAIN.ENABLE"))}


def _same_but_seed(result: Result) -> tuple:
    """Return a key that is equal for two runs that differ only in their seed, and in what follows from it."""
    setting = dataclasses.replace(result.setting, seed=0, episode_seed=None, episodes_sha256="", iteration=0,
                                  bad_videos=0)
    config = json.dumps(_settings(result), sort_keys=True)
    return setting, result.scoring, result.score.text_weight, tuple(sorted(result.lists.items())), config


def _grouped(items: Iterable[Any], key: Any) -> list[list[Any]]:
    """Put items of equal key together, in order of appearance."""
    found: dict[Any, list[Any]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def _seeds_of_one_setting(group: list[Result]) -> bool:
    """Tell whether each seed is there once, on the same test episodes or each on those of its own seed."""
    tests = [result.setting for result in group]
    return len({s.seed for s in tests}) == len(group) and (
        len({s.episode_seed for s in tests}) == 1 or all(s.episode_seed == s.seed for s in tests))


def _over_seeds(results: Iterable[Result]) -> list[list[Result]]:
    """Return the results of each cell. Where a seed occurs twice, nothing is averaged: settings must differ then."""
    found: list[list[Result]] = []
    for group in _grouped(results, _same_but_seed):
        parts = [group] if _seeds_of_one_setting(group) else _grouped(group, lambda r: r.setting.episode_seed)
        for part in parts:
            found += [part] if _seeds_of_one_setting(part) else [[result] for result in part]
    return found


def counted(count: int, one: str, many: str) -> str:
    """Write a number with its noun: '1 query', '3 queries'."""
    return f"{count:,} {one if count == 1 else many}"


def _selection_words(selected_on: str) -> str:
    """Say what chose the checkpoint; old checkpoints do not tell ("not recorded in the checkpoint")."""
    if selected_on == "nothing":
        return "nothing was trained or selected"
    if selected_on.startswith("not "):
        return f"what the checkpoint was selected on is {selected_on}"
    return f"checkpoint selected on {selected_on}"


def _lists_words(result: Result) -> str:
    """Name the lists, and give the hash of the one that was tested."""
    setting = result.setting
    if set(result.lists.values()) == {setting.list_id}:
        names = f"lists {setting.list_id}"
    else:
        names = ", ".join(f"{split} list {name}" for split, name in result.lists.items())
        if setting.list_id != result.lists.get(setting.split):
            names += f", tested list {setting.list_id}"
    return f"{names} (tested: sha256 {setting.list_sha256[:8]})"


def _conditions(result: Result) -> dict[str, str]:
    """Return what two cells must share to be compared."""
    s = result.setting
    draws = "fixed frames" if s.temporal_draws is None else f"temporal draws {s.temporal_draws}"
    return {
        "protocol": f"protocol {s.protocol}", "selected_on": _selection_words(s.selected_on),
        "split": f"{s.split} split", "way": f"{s.way}-way", "query": f"{counted(s.query, 'query', 'queries')} a class",
        "episodes": counted(s.episodes, "episode", "episodes"), "frames": counted(s.frames, "frame", "frames"),
        "temporal_draws": draws, "lists": _lists_words(result), "kind": kind_words(s.transductive),
        **{name: text for name, (text, forbids) in _rests_on(s).items() if forbids},
    }


def _rests_on(setting: TestedUnder) -> dict[str, tuple[str, bool]]:
    """Say which texts and pretraining a result rests on, and whether that forbids a comparison with other ones: texts
    that a language model wrote, and a tower that has seen the test classes, do."""
    return {"texts": (text_words(setting.texts), setting.texts == "llm"),
            "pretraining": (pretraining_words(setting.pretraining, setting.data_set),
                            has_seen(setting.pretraining, setting.data_set))}


def _remarks(group: list[Result]) -> dict[str, str]:
    """Say what +- is, texts and pretraining, the weight of the text, and how many clips were replaced."""
    first, seeds = group[0], [result.setting.seed for result in group]
    found = {name: text for name, (text, forbids) in _rests_on(first.setting).items() if not forbids}
    found["spread"] = "+- is the 95 % interval over episodes, of one seed"
    if len(group) > 1:
        same = len({result.setting.episodes_sha256 for result in group}) == 1
        found["spread"] = (f"mean over {len(seeds)} seeds ({', '.join(map(str, seeds))}), +- is the sample standard "
                           f"deviation over these seeds, {'all on the same' if same else 'each on its own'} test "
                           "episodes")
    elif first.score.interval95 is None:
        found["spread"] = "no interval"
    if first.score.text_weight is not None:
        found["text_weight"] = f"text weight {first.score.text_weight:g}"
    worst = max(result.setting.bad_videos for result in group)
    if worst:
        found["bad_videos"] = f"{counted(worst, 'unreadable video', 'unreadable videos')} replaced"
    return found


def percent(value: float | None) -> float | None:
    """Turn 0..1 into percent, rounded beyond what any interval here resolves."""
    return None if value is None else round(100 * value, 4)


def _record(group: list[Result], accuracy: float, deviation: float | None) -> dict[str, Any]:
    """Return the row of the long form."""
    first, s = group[0], group[0].setting
    one = first.score if len(group) == 1 else None
    videos = (one.interval95_videos if one else None) or (None, None)

    def each(name: str) -> str:
        return " ".join(dict.fromkeys(str(getattr(result.setting, name)) for result in group))

    facts = {name: getattr(s, name) for name in (
        "way", "query", "episodes", "frames", "temporal_draws", "protocol", "split", "selected_on", "list_id",
        "list_sha256", "transductive", "texts", "pretraining")}
    facts["seen_test_classes"] = has_seen(s.pretraining, s.data_set)
    facts["temporal_draws"] = "fixed" if s.temporal_draws is None else s.temporal_draws
    return {
        "method": s.method, "backbone": backbone_name(s.backbone), "scoring": first.score.title,
        "data_set": s.data_set, "shot": s.shot, "accuracy": percent(accuracy),
        "interval95": percent(one.interval95) if one else None, "interval95_videos_low": percent(videos[0]),
        "interval95_videos_high": percent(videos[1]), "seeds": len(group), "seed_deviation": percent(deviation),
        "seed": each("seed"), **facts, "text_weight": first.score.text_weight,
        **{f"{split}_list": first.lists.get(split) for split in ("train", "val", "test")},
        "episode_seed": each("episode_seed"), "episodes_sha256": each("episodes_sha256"),
        "iteration": each("iteration"), "bad_videos": max(result.setting.bad_videos for result in group),
        "published": False, "source": None, "runs": " ".join(str(result.file.parent) for result in group),
    }


def _column(setting: TestedUnder) -> Column:
    """Return data set and shots. Lists of no known data set are a column each: they are other videos, another task."""
    return (setting.list_id if setting.data_set == "custom" else setting.data_set), setting.shot


def cells_of(results: Iterable[Result]) -> list[Cell]:
    """Return one cell a setting, in the order of the results; several seeds of a setting are one cell."""
    found = []
    for group in _over_seeds(results):
        first = group[0]
        accuracy = statistics.fmean(result.score.accuracy for result in group)
        deviation = statistics.stdev(r.score.accuracy for r in group) if len(group) > 1 else None
        found.append(Cell(
            label=row_label(first.setting.method, first.setting.backbone, first.score.title),
            column=_column(first.setting), accuracy=accuracy,
            plus_minus=first.score.interval95 if deviation is None else deviation, seeds=len(group),
            conditions=_conditions(first), remarks=_remarks(group), config=_settings(first),
            runs=", ".join(str(result.file.parent) for result in group),
            record=_record(group, accuracy, deviation)))
    return found
