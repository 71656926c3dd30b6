"""Read which published keys have no effect here: nothing reads them, or only the public project's other tasks do."""

import functools
from dataclasses import dataclass
from typing import Any

from utils.config.layers import POOL, parse_yaml


@dataclass(frozen=True, slots=True)
class InertKey:
    """Hold the default of a key that nothing reads, and why it has no effect."""

    default: Any
    why: str


@functools.cache
def inert_keys() -> dict[str, InertKey]:
    """Return every key of inert_keys.yaml by dotted name; the dict is shared: do not change it."""
    reasons = parse_yaml((POOL / "inert_keys.yaml").read_text(encoding="utf-8"))
    return {dotted: InertKey(default, why) for why, keys in reasons.items() for dotted, default in keys.items()}


@functools.cache
def ignored_names() -> frozenset[str]:
    """Return the keys and sections of ignored_keys.yaml; a section's name covers all it holds."""
    return frozenset(parse_yaml((POOL / "ignored_keys.yaml").read_text(encoding="utf-8")))
