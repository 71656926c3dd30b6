"""JSON files of a run, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

from utils.files import whole_file


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that the file is never half there."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file of a run; None where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
