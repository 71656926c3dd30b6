"""Holds what the page is asked."""

from dataclasses import dataclass
from pathlib import Path

from runs.own.learning import Encoded
from runs.own.page.looks import Look
from runs.own.results import Answer


@dataclass
class Query:
    """Holds a video that is asked about.

    Args:
        id: its number. name: what its owner calls it. path: where it lies meanwhile. look: its length and frames.
        answer: None: it waits. seen: as the model sees it, kept for other actions. stale: the actions are others now.
    """

    id: str
    name: str
    path: Path
    look: Look
    answer: Answer | None = None
    seen: Encoded | None = None
    stale: bool = False
