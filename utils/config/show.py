"""Show a configuration as text or as a plain dict, and say what there is to tell about it."""

import dataclasses
import json
from typing import Any

import yaml

from utils.config.loader import Resolved


def to_dict(config: Any) -> dict[str, Any]:
    """Return a Config (or a section of one) as nested dicts with lists for tuples: what JSON and YAML hold."""
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else to_dict(value) if dataclasses.is_dataclass(value) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _scalar(value: Any) -> str:
    """Return a value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value) if "\n" in text else text


def format_config(resolved: Resolved) -> str:
    """Return every key in the order of the schema as YAML that loads back, each with the layer its value came from."""
    return "".join(f"{line}\n" for line in _lines(to_dict(resolved.config), resolved.sources, "", ""))


def _lines(values: dict[str, Any], sources: dict[str, str], prefix: str, indent: str) -> list[str]:
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, sources, f"{prefix}{name}.", f"{indent}  ")]
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}   # {sources[prefix + name]}")
    return lines


def describe_notes(resolved: Resolved) -> str:
    """Return notes and ignored keys, one line each; empty when there is nothing to tell."""
    lines = [f"note: {note}" for note in resolved.notes]
    if resolved.ignored:
        lines.append(f"ignored, used by other tasks of the public project only: {', '.join(resolved.ignored)}")
    return "".join(f"{line}\n" for line in lines)
