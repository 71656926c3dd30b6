"""Fetches the published lists, and says what to do without a network."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from datasets.annotations import hash_lines, read_lines
from runs.evaluation.identity import list_name
from runs.preparing.split_lists import SPLITS, SplitList
from utils.config.layers import POOL, read_layer
from utils.download import Patience, fetch
from utils.errors import DownloadError, HashError, ListError

STORE = ".fetched"  # download directory, inside the lists' directory
HOST = "https://raw.githubusercontent.com"


@cache
def _table() -> dict[str, Any]:
    return read_layer(POOL / "list_files.yaml").values


def videos_a_class(dataset: str) -> dict[str, list[int]] | None:
    """Return the number of videos of each class by split; None for lists that hold only some of their videos."""
    return _table()["videos_a_class"].get(dataset)


def file_hash(dataset: str, split: str) -> str:
    """Return the SHA-256 (hex) of the published file."""
    return _table()["sha256"][dataset][split]


def address(dataset: str, split: str) -> str:
    """Return the address of the published file, at a fixed commit."""
    table = _table()
    return "/".join((HOST, table["repository"], table["commit"], table["path"].format(dataset=dataset, split=split)))


def by_hand(dataset: str, out: Path) -> str:
    """Say what to fetch and where to place it."""
    rows = [f"  {address(dataset, split)}\n    SHA-256 {file_hash(dataset, split)}\n    as {out / split}_few_shot.txt"
            for split in SPLITS]
    rows += ["or derive the lists from the videos: --videos FOLDER"] if videos_a_class(dataset) else []
    return "\n".join(["On a machine with network fetch these files, place them so, and run the command again (or give "
                      "their directory with --from):", *rows])


def _lies_there(dataset: str, split: str, path: Path) -> bool:
    """Whether `path` is the published list of this data set, in whatever order and line ends."""
    return path.is_file() and list_name(split, hash_lines(read_lines(path))).split("@")[0] == dataset


def fetch_published(dataset: str, out: Path, patience: Patience | None = None) -> list[SplitList]:
    """Return the published lists of a data set, fetched unless they lie in `out` already.

    Raises:
        ListError: not reachable, or another file came; tells what to place where.
    """
    store, lists = out / STORE, []
    for split in SPLITS:
        path, url = out / f"{split}_few_shot.txt", address(dataset, split)
        if not _lies_there(dataset, split, path):
            try:
                path = fetch(url, store / path.name, file_hash(dataset, split), patience=patience)
            except HashError as error:
                raise ListError(f"{error}\nThe file at this address is not the published one; something between here "
                                f"and the server may answer in its place.\n{by_hand(dataset, out)}") from error
            except DownloadError as error:
                raise ListError(f"{error}\n{by_hand(dataset, out)}") from error
        lists.append(SplitList(split, str(path) if path.parent == out else url, tuple(read_lines(path))))
    return lists


def clean(out: Path) -> None:
    """Remove what was fetched, once the lists are written."""
    shutil.rmtree(out / STORE, ignore_errors=True)
