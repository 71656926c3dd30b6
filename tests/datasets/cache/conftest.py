"""Frame caches, each made once."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.datasets.cache.caches import fill, project_in


@pytest.fixture
def project(tmp_path, tiny_videos, write_tiny_project) -> Path:
    return project_in(tmp_path, tiny_videos, write_tiny_project)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_videos, write_tiny_project) -> Callable[..., Path]:
    """A cache with the options that are asked for, made once: for any `project`, as all link the same videos."""
    directory = tmp_path_factory.mktemp("made")
    project = project_in(directory, tiny_videos, write_tiny_project)

    @cache
    def made_with(*options: str) -> Path:
        out = directory / "_".join(options)
        assert fill(project, out, *options) == 0
        return out

    return made_with


@pytest.fixture
def lossless(made, tmp_path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(made("--mode", "lossless"), tmp_path / "cache")
