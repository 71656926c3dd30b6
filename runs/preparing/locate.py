"""Where a listed video really lies: other case, other extension, another folder layout.

Layouts in use: as listed, by class (`<class>/<name>`), flat (`<name>`), nested deeper. A name is looked up once the
listed place has nothing; the folder is walked once, and only then.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.annotations import is_jpeg, resolve_video
from runs.preparing.split_lists import plain
from utils.episode import VideoRecord
from utils.errors import AnnotationError, VideoDecodeError

SUFFIXES = (".mp4", ".webm", ".avi", ".mkv")


@dataclass(frozen=True, slots=True)
class Located:
    """Where a video is.

    Args:
        found: path under the root, with "/"; None: nowhere.
        listed: whether that is where the loader looks for it.
        reason: why it was not found.
    """

    found: str | None
    listed: bool = True
    reason: str = ""


def stem(path: str) -> str:
    """A path without its video extension, lower case."""
    low = path.lower()
    return next((low[: -len(suffix)] for suffix in SUFFIXES if low.endswith(suffix)), low)


def walk_videos(root: Path) -> dict[str, list[str]]:
    """Lower-case name without extension to the videos of that name: paths under `root` of files and frame folders."""
    found: dict[str, list[str]] = defaultdict(list)
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if is_jpeg(entry.name):  # a folder of frames holds no videos: the rest of it is not looked at
                        found[PurePosixPath(folder).name.lower()].append(folder)
                        break
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif entry.name.lower().endswith(SUFFIXES) and os.path.isfile(entry):
                        found[stem(entry.name)].append(path)
        except PermissionError:
            continue
    return found


def _parent(path: str) -> str:
    return plain(PurePosixPath(path).parent.name)


def _rank(record: VideoRecord, path: str, classes: set[str]) -> int | None:
    """How well a path of a record's name fits: 0 the listed path in other letters, 1 in a folder of the listed
    parent's name, 2 in any folder that is no other parent's of the list; None: it is another class's."""
    if stem(path) == stem(record.path):
        return 0
    own, there = _parent(record.path), _parent(path)
    if own and own == there:
        return 1
    return None if there in classes else 2


def _one_a_folder(record: VideoRecord, paths: Sequence[str]) -> list[str]:
    """Of each folder the path with the listed extension, else the first of SUFFIXES, else a folder of frames."""
    wanted = PurePosixPath(record.path).suffix.lower()

    def order(path: str) -> tuple[bool, int, str]:
        own = PurePosixPath(path).suffix.lower()
        return own != wanted, SUFFIXES.index(own) if own in SUFFIXES else len(SUFFIXES), path

    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_folder[str(PurePosixPath(path).parent)].append(path)
    return sorted(min(same, key=order) for same in by_folder.values())


def _state(root: Path, record: VideoRecord, error: VideoDecodeError) -> str:
    """Why nothing is at the listed place."""
    place = root / record.path
    if place.is_symlink() and not place.exists():
        return f"a link to {os.readlink(place)}, where nothing is"
    if place.is_dir():
        return "a directory without JPEG frames"
    return error.reason


def _exact(root: Path, record: VideoRecord, list_format: str | None, prefer_folder: bool) -> Located:
    try:
        found = resolve_video(root, record, list_format, prefer_folder=prefer_folder)
        return Located(found.relative_to(root).as_posix())
    except VideoDecodeError as error:
        return Located(None, False, _state(root, record, error))
    except AnnotationError as error:
        return Located(None, True, str(error))
    except OSError as error:  # no permission
        return Located(None, True, f"cannot be looked at: {error.strerror or error}")


def locate(root: Path, records: Iterable[VideoRecord], list_format: str | None, *, prefer_folder: bool = False,
           others: Iterable[VideoRecord] = ()) -> list[Located]:
    """Where each of `records` lies under `root`.

    Args:
        list_format: a name of annotations.LIST_FORMATS.
        prefer_folder: as in annotations.resolve_video.
        others: videos of other lists in the same folder, which keep what is theirs.

    A file is given to one record only, to the one that it fits best, and never to one of another class: lists such as
    `run/001.avi`, `jump/001.avi` stay apart.
    """
    records = list(records)
    places = [_exact(root, record, list_format, prefer_folder) for record in records]
    lost = [number for number, place in enumerate(places) if not place.listed]
    if not lost:
        return places
    others, index = list(others), walk_videos(root)
    taken = {place.found for place in places if place.found} | {record.path for record in others}
    classes = {_parent(record.path) for record in (*records, *others)} - {""}
    for rank in (0, 1, 2):
        for number in lost:
            record = records[number]
            named = index.get(stem(PurePosixPath(record.path).name), [])
            if places[number].found or not named:
                continue
            fitting = [path for path in named if path not in taken and _rank(record, path, classes) == rank]
            best = _one_a_folder(record, fitting)
            if len(best) == 1:
                places[number] = Located(best[0], False)
                taken.add(best[0])
            elif best:
                places[number] = Located(None, False, f"not as listed, and {len(best)} files of this name elsewhere: "
                                                      f"{', '.join(best[:3])}")
    return places
