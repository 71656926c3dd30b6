"""A configuration as text, as a plain dict, and what to tell about it."""

import json
from typing import Any

import yaml

from utils.config.fields import hints, is_section, keys_of
from utils.config.loader import Resolved
from utils.config.schema import Config


def to_dict(config: Any) -> dict[str, Any]:
    """A Config (or a section of one) as nested dicts with lists for tuples: what JSON and YAML hold."""
    return {name: to_dict(value) if is_section(hint) else _plain(value)
            for name, hint in hints(type(config)).items() for value in [getattr(config, name)]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _scalar(value: Any) -> str:
    """A value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value) if "\n" in text else text


def format_config(resolved: Resolved) -> str:
    """Every key in the order of the schema as YAML that loads back, each with the layer its value came from."""
    return "".join(f"{line}\n" for line in _lines(resolved, resolved.config, type(resolved.config), "", ""))


def _lines(resolved: Resolved, section: Any, kind: type, prefix: str, indent: str) -> list[str]:
    known = keys_of(Config)
    lines = []
    for name, hint in hints(kind).items():
        value, dotted = getattr(section, name), prefix + name
        if is_section(hint):
            lines += [f"{indent}{name}:", *_lines(resolved, value, hint, f"{dotted}.", f"{indent}  ")]
            continue
        effect = " (no effect)" if known[dotted].inert else ""
        lines.append(f"{indent}{name}: {_scalar(_plain(value))}   # {resolved.sources[dotted]}{effect}")
    return lines


def describe_notes(resolved: Resolved) -> str:
    """Notes and ignored keys, one line each; empty when there is nothing to tell."""
    lines = [f"note: {note}" for note in resolved.notes]
    if resolved.ignored:
        lines.append(f"ignored, used by other tasks of the public project only: {', '.join(resolved.ignored)}")
    return "".join(f"{line}\n" for line in lines)
