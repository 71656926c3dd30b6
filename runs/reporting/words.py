"""Say in words and short tables what a report shows, from the content of results.json and run.json.

Numbers are formatted, never computed again. Shares are 0..1.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from utils.config.effects import flat
from utils.pretraining import kind_words, pretraining_words, text_words


def percent(value: float, digits: int = 2) -> str:
    """Return a share as a percentage: 0.61 -> 61.00%."""
    return f"{100 * value:.{digits}f}%"


def _known(value: Any) -> str:
    """Return a value as text, with thousands marked in a number: 10,000."""
    return "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _draws(draws: int | str | None) -> str:
    """Say how the frames of test clips were chosen."""
    if draws is None:
        return "none: the same frames of a clip every time"
    return "fresh: other random frames each time a clip is used" if draws == "fresh" else f"{draws} of each clip"


def _selection(results: Mapping[str, Any]) -> str:
    if results["selected_on"] == "nothing":
        return "nothing: the tower is tested as it is"
    value = results["selection_accuracy"]  # text where the checkpoint does not say
    return results["selected_on"] + (f", with {percent(value)} there" if isinstance(value, float) else "")


def _lists(lists: Mapping[str, str]) -> str:
    """Name every split list that the number rests on; once where all have the same name."""
    if len(lists) > 1 and len(set(lists.values())) == 1:
        return f"{next(iter(lists.values()))} ({', '.join(lists)})"
    return "; ".join(f"{split}: {name}" for split, name in lists.items())


def conditions(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what must stand beside the number, as (term, value)."""
    queries = "query" if results["query"] == 1 else "queries"
    return [
        ("episode", f"{results['way']}-way {results['shot']}-shot, {results['query']} {queries} a class"),
        ("episodes", _known(results["episodes"])), ("chance", percent(1 / results["way"])),
        ("scoring", results["scorings"][results["scoring"]]["title"]),
        ("protocol", results["protocol"]), ("lists", _lists(results["lists"])),
        ("checkpoint selected on", _selection(results)), ("iteration", _known(results["iteration"])),
        ("backbone", results["backbone"]),
        ("method", f"{kind_words(results['transductive'])}; {text_words(results['texts'])}"),
        ("tower", pretraining_words(results["pretraining"], results["data_set"])),
        ("frames a clip", _known(results["frames"])),
        ("temporal draws", _draws(results["temporal_draws"])),
        ("seed", f"{results['seed']}; of the episodes {results['episode_seed']}"),
        ("videos replaced because unreadable", _known(results["bad_videos"])),
        *([("queries without a finite score, all wrong", _known(results["nonfinite_queries"]))]
          if results.get("nonfinite_queries") else []),
    ]


def origins(results: Mapping[str, Any], run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where the number comes from: command, commit, versions and hashes, as (term, value)."""
    return [("command", shlex.join(run.get("command", ()))), ("commit", _known(run.get("git_commit"))),
            ("device", _known(run.get("device"))), ("checkpoint", results["checkpoint"]),
            *((f"list, {split}", name) for split, name in results["lists"].items()),
            ("SHA-256 of the list", results["list_sha256"]), ("SHA-256 of the episodes", results["episodes_sha256"]),
            *run.get("versions", {}).items()]


def settings(run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the resolved configuration as (dotted key, value as JSON, layer that set it)."""
    return [(key, json.dumps(value, ensure_ascii=False), run.get("sources", {}).get(key, ""))
            for key, value in flat(run.get("config", {})).items()]
