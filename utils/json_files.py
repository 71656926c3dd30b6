"""JSON files of a run, written whole or not at all."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.config.reading import shown
from utils.errors import ResultsError
from utils.files import whole_file


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is never half there."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a run. Raises ResultsError naming a file that cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not JSON
        raise ResultsError(f"{path}: cannot be read ({error}); the command that made the run writes it anew") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path}: expected keys and values, found {shown(content)}")
    return content


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file of a run; None where there is none, or none that can be read."""
    with suppress(ResultsError):
        return load_json(path)
    return None
