"""Split lists of anyone's own videos: a folder a class, which a file, or a seed, gives to train, val and test."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from runs.preparing.split_lists import SPLITS, SplitList
from runs.preparing.video_files import VIDEO_SUFFIXES, check_folder, nearest, stem, walk_videos
from utils.config.layers import read_layer
from utils.config.reading import shown
from utils.errors import ListError
from utils.seed import numpy_generator

CLASS_FILE = "classes.yaml"
Shares = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class OwnLists:
    """Holds the lists of own videos, before they are checked and written.

    Args:
        lists: one a split; the paths are under the folder of the videos.
        folders: by split, the class folders in the order of the class index.
        class_file: the text of the file that DATA.CLASSES takes.
        notes: what the user should know.
    """

    lists: list[SplitList]
    folders: dict[str, list[str]]
    class_file: str
    notes: list[str]


def shares(text: str) -> Shares:
    """Read the shares of train, val and test, such as 0.7,0.15,0.15."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or not all(share > 0 for share in found) or abs(sum(found) - 1) > 1e-6:
        raise argparse.ArgumentTypeError(f"expected the shares of train, val and test, three numbers above 0 that add "
                                         f"up to 1, such as 0.7,0.15,0.15, found {text!r}")
    return found


def own_lists(videos: Path, classes: Path | Shares, seed: int = 0) -> OwnLists:
    """Make the lists of the class folders in `videos`.

    Args:
        classes: a file that names the class folders of each split, or the shares of train, val and test.
        seed: of the draw that shares the folders out.

    Raises:
        ConfigError: `classes` cannot be read.
        ListError: with every problem: folders that are missing, empty or in two splits, names that are not text.
    """
    check_folder(videos, "the folder of the videos (--videos), which holds a folder a class")
    there = sorted(entry.name for entry in videos.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if isinstance(classes, Path):
        names, problems = _read(classes)
        source = f"named by {classes}"
    else:
        names, problems = _shared_out(there, classes, seed), []
        source = f"{len(there)} of them shared out {','.join(f'{share:g}' for share in classes)} by seed {seed}"
    lists = []
    for part, own in names.items():
        lines = []
        for index, folder in enumerate(own):
            found, problem = _videos(videos, folder, there)
            problems += [f"{part} class {folder!r}: {problem}"] if problem else []
            lines += [f"{part}{index}//{path}" for path in found]
        lists.append(SplitList(part, f"{videos} ({part})", tuple(lines)))
    if problems:
        named_in = classes if isinstance(classes, Path) else videos
        head = f"{named_in}: expected class folders of {videos} for train, val and test, found:"
        raise ListError("\n".join([head, *(f"  - {problem}" for problem in problems)]))
    left = [name for name in there if not any(name in own for own in names.values())]
    text = f"# Class folders of {videos.resolve()}, {source}. Written by runs/prepare.py lists.\n" + yaml.safe_dump(
        {videos.resolve().name: {part: list(own.values()) for part, own in names.items()}}, allow_unicode=True,
        sort_keys=False)
    return OwnLists(lists, {part: list(own) for part, own in names.items()}, text,
                    [f"folders that are in no split: {', '.join(left)}"] if left else [])


def _videos(root: Path, folder: str, there: list[str]) -> tuple[list[str], str]:
    """Return the paths under `root` of a class's videos, and what is wrong. A file and its frames are one video."""
    if folder not in there:
        return [], f"no folder {root / folder}{nearest(folder, there)}"
    if not (root / folder).resolve().is_relative_to(root.resolve()):
        return [], f"a link out of {root}, which runs refuse; put the folder itself there"
    found = sorted(walk_videos(root / folder))
    files = {path.rsplit(".", 1)[0] for path in found if stem(path) != Path(path).name}
    paths = [f"{folder}/{path}" for path in found if path not in files]
    return paths, "" if paths else (f"no video in {root / folder}; expected files ({', '.join(VIDEO_SUFFIXES)}) or "
                                    "folders of frames")


def _shared_out(folders: list[str], split: Shares, seed: int) -> dict[str, dict[str, str]]:
    """Return by split folder to class name; the folders' names, the shares and the seed decide what a split gets."""
    exact = np.array(split) * len(folders)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[:len(folders) - counts.sum()]] += 1  # the largest remainders
    if not all(counts):
        raise ListError(f"--split: expected at least one class for each of train, val and test, found "
                        f"{', '.join(map(str, counts))} of {len(folders)} folders; choose other shares")
    order = numpy_generator(seed, "prepare:classes", 0).permutation(len(folders))
    return {part: {folders[place]: _shown(folders[place]) for place in sorted(places)}
            for part, places in zip(SPLITS, np.split(order, np.cumsum(counts)[:-1]), strict=True)}


def _shown(folder: str) -> str:
    """Return the class name of a folder: text towers read words, not underscores."""
    return folder.replace("_", " ")


def _read(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return folder to class name by split, and the problems, of a file of classes."""
    layer = read_layer(path)
    values: Any = layer.values
    if len(values) == 1 and isinstance(inner := next(iter(values.values())), dict) and not set(values) & set(SPLITS):
        values = inner  # under a data set's name, as in configs/pool/classes
    problems = [f"{name}: expected train, val or test" for name in values if name not in SPLITS]
    names: dict[str, dict[str, str]] = {}
    for split in SPLITS:
        names[split], wrong = _of_split(values.get(split))
        problems += [f"{split}: {problem}" for problem in wrong]
    return names, problems + _twice(names)


def _of_split(given: Any) -> tuple[dict[str, str], list[str]]:
    """Return folder to class name, and the problems, of one split."""
    if not isinstance(given, (list, dict)) or not given:
        return {}, ["expected a list of class folders, or folders with the class names to show, found "
                    f"{'nothing' if given is None else repr(given)}"]
    pairs = list(given.items()) if isinstance(given, dict) else [
        (folder, _shown(folder) if isinstance(folder, str) else folder) for folder in given]
    wrong = [f"{shown(part)} is not text; put it in quotes" for pair in pairs for part in pair
             if not isinstance(part, str)]
    if wrong:
        return {}, list(dict.fromkeys(wrong))
    twice = [folder for place, (folder, _) in enumerate(pairs) if folder in [other for other, _ in pairs[:place]]]
    return dict(pairs), [f"{folder!r} stands there twice" for folder in dict.fromkeys(twice)]


def _twice(names: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return as problems the folders in two splits, and the class names that two folders of a split have."""
    first: dict[str, str] = {}
    problems = []
    for split, own in names.items():
        by_name: dict[str, str] = {}
        for folder, name in own.items():
            if first.setdefault(folder, split) != split:
                problems.append(f"{split}: {folder!r} is a class of {first[folder]}, too; each class has one split")
            if by_name.setdefault(name, folder) != folder:
                problems.append(f"{split}: {by_name[name]!r} and {folder!r} are both called {name!r}")
    return problems
