"""Fetching without proxies and with little patience."""

import os
from dataclasses import dataclass

import pytest

from utils import download


@dataclass(frozen=True, slots=True)
class _Little(download.Patience):
    connect_s: float = 1.0
    stall_s: float = 0.3
    tries: int = 2
    pause_s: float = 0.01


@pytest.fixture()
def quick(monkeypatch):
    """No proxies, and little patience."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(download, "Patience", _Little)
    monkeypatch.setattr("runs.preparing.imported_lists.Patience", _Little)
