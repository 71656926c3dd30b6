"""Tiny clips of four classes a split, to be read, linked or damaged."""

from pathlib import Path

import pytest

from tests.datasets.tiny_clips import CLASSES, CLIPS, NAMES, write_clip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Lists and clips: class k of every split is gray around 40 * k."""
    root = tmp_path_factory.mktemp("data")
    for split in NAMES:
        lines = []
        for k in range(CLASSES):
            for i in range(CLIPS):
                write_clip(root / f"{split}_{k}_{i}.mp4", 40 * k + 4 * i)
                lines.append(f"{split}{k}//{split}_{k}_{i}.mp4")
        (root / f"{split}_few_shot.txt").write_text("\n".join(lines))
    return root


@pytest.fixture
def copied(data, tmp_path) -> Path:
    """The same files, to be damaged."""
    for path in data.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def root(data, tmp_path) -> Path:
    for path in data.iterdir():
        (tmp_path / path.name).symlink_to(path) if path.suffix == ".txt" else (tmp_path / path.name).hardlink_to(path)
    return tmp_path
