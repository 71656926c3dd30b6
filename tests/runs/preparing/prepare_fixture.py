"""Small data sets under the published class names, and the commands in this process."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY, called
from utils.config.class_names import CLASSES, read_class_names

SPLITS = ("train", "val", "test")
PUBLISHED = Path(REPOSITORY).parent / "shared" / "splits"
DATASETS = ("kinetics100", "ssv2_full", "ssv2_small", "ucf101", "hmdb51")


@cache
def names(dataset: str) -> dict[str, tuple[str, ...]]:
    """Class names by split."""
    return read_class_names(CLASSES / f"{dataset}.yaml").splits


def lines(path: Path) -> list[str]:
    """Sorted lines of a list."""
    return sorted(path.read_text().splitlines())


def made_up(dataset: str, split: str, clips: int = 6) -> list[str]:
    """Published format: `clips` videos a class."""
    if dataset.startswith("ssv2"):
        start = 1000 * SPLITS.index(split)
        return [f"{split}{k}/{start + k * clips + c}" for k in range(len(names(dataset)[split])) for c in range(clips)]
    return [f"{split}{k}//videos/{name.replace(' ', '_')}/v_{name.replace(' ', '_')}_{c}.avi"
            for k, name in enumerate(names(dataset)[split]) for c in range(clips)]


def write(folder: Path, dataset: str, change: Callable[[str, list[str]], list[str]] = lambda split, rows: rows) -> Path:
    """The three made-up lists in `folder`, changed by `change`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        (folder / f"{split}_few_shot.txt").write_text("\n".join(change(split, made_up(dataset, split))) + "\n")
    return folder


def touch(root: Path, paths: Sequence[str]) -> Path:
    """Empty files."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def call(capfd, *arguments) -> tuple[int, str, str]:
    """Exit status, standard output and error of prepare.py."""
    capfd.readouterr()
    status = called("prepare")(arguments)
    return status, *capfd.readouterr()
