"""JSON files of a run, written whole or not at all, each with a checksum of what it says."""

import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.config.reading import shown
from utils.errors import ResultsError
from utils.files import whole_file
from utils.foreign import parse_json, read_text, told

SUM = "checksum"  # this key holds the CRC-32 (8 hex digits) of the others, sorted, as json.dumps writes them
_TIMES = ("seconds_an_iteration", "share_waiting_for_data")


def _lasting(value: Any) -> Any:
    """Return what is the same wherever and how fast a run goes: all but paths and times."""
    return {name: _lasting(part) for name, part in value.items()
            if name not in _TIMES and not (isinstance(part, str) and "/" in part)} if isinstance(value, dict) else value


def add_sum(content: dict[str, Any]) -> dict[str, Any]:
    """Put the checksum of what JSON keeps of `content`, paths and times apart, into it as its last key; return it."""
    content.pop(SUM, None)
    written = json.dumps(_lasting(json.loads(json.dumps(content))), sort_keys=True)
    content[SUM] = f"{zlib.crc32(written.encode()):08x}"
    return content


def check_sum(content: Any) -> dict[str, Any]:
    """Return keys and values that have the checksum they were written with, or none. Raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError(f"expected keys and values, found {shown(content)}")
    if SUM in content and add_sum(dict(content)) != content:
        raise ValueError(f"its {SUM} is not that of what it says: it is damaged, or was edited; whoever edits it takes "
                         f"the {SUM} out")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is never half there; `content` gets its checksum."""
    with whole_file(path) as part:
        part.write_text(json.dumps(add_sum(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a run. Raises ResultsError naming a file that cannot be read."""
    with told(ResultsError, path, "the JSON of a run", "; the command that made the run writes it anew"):
        return check_sum(parse_json(read_text(path, ResultsError)))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file of a run; None where there is none, or none that can be read."""
    with suppress(ResultsError):
        return load_json(path)
    return None
