"""Fetching without proxies and with little patience."""

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
def quick(monkeypatch, no_proxy):
    """No proxies, and little patience."""
    monkeypatch.setattr(download, "Patience", _Little)
    monkeypatch.setattr("runs.preparing.imported_lists.Patience", _Little)
