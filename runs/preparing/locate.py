"""Finds where a listed video really lies: in other letters, with another extension, in another folder.

Layouts in use: as listed, by class (`<class>/<name>`), flat (`<name>`), nested deeper. A name is looked up once the
listed place has nothing; the folder is walked once, and only then.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.annotations import resolve_video
from runs.preparing.video_files import VIDEO_SUFFIXES, plain, stem, walk_videos
from utils.episode import VideoRecord
from utils.errors import AnnotationError, VideoDecodeError

SHOWN = 5
PACKED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".h5", ".hdf5", ".lmdb", ".tfrecord")


@dataclass(frozen=True, slots=True)
class Located:
    """Says where a video is.

    Args:
        found: path under the root, with "/"; None: nowhere.
        listed: whether that is where the loader looks for it.
        reason: why it was not found.
    """

    found: str | None
    listed: bool = True
    reason: str = ""


def _spelled(path: str) -> str:
    """A path in one spelling: with "/", in lower case, letters with accents as one (macOS writes them as two)."""
    return unicodedata.normalize("NFC", path.replace("\\", "/")).lower()


def _listed(path: str) -> str:
    """A path without its video extension, in one spelling: what two ways of writing it share."""
    return str(PurePosixPath(_spelled(path)).with_name(stem(_spelled(path))))


def _by_name(root: Path) -> dict[str, list[str]]:
    """Lower-case id to the paths of that id under `root`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in walk_videos(root, skip_unreadable=True):
        found[stem(_spelled(path))].append(path)
    return found


def _parent(path: str) -> str:
    return plain(PurePosixPath(_spelled(path)).parent.name)


def _rank(record: VideoRecord, path: str, classes: set[str]) -> int | None:
    """Rate how well a path of a record's name fits; None: it is another class's.

    0: the listed path in other letters. 1: in a folder of the listed parent's name. 2: in any folder that is not called
    like another parent of the list.
    """
    if _listed(path) == _listed(record.path):
        return 0
    own, there = _parent(record.path), _parent(path)
    if own and own == there:
        return 1
    return None if there in classes else 2


def _one_a_folder(record: VideoRecord, paths: Sequence[str]) -> list[str]:
    """Return one path a folder: with the listed extension, else the first of VIDEO_SUFFIXES, else frames."""
    wanted = PurePosixPath(record.path).suffix.lower()

    def order(path: str) -> tuple[bool, int, str]:
        own = PurePosixPath(path).suffix.lower()
        return own != wanted, VIDEO_SUFFIXES.index(own) if own in VIDEO_SUFFIXES else len(VIDEO_SUFFIXES), path

    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_folder[str(PurePosixPath(path).parent)].append(path)
    return sorted(min(same, key=order) for same in by_folder.values())


def _state(root: Path, record: VideoRecord, error: VideoDecodeError) -> str:
    """Say why nothing is at the listed path."""
    path = root / record.path
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, where nothing is"
    if path.is_dir():
        return "a directory without frames (JPEG, PNG, WebP)"
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
    """Find where each of `records` lies under `root`.

    Args:
        list_format: a name of annotations.LIST_FORMATS.
        prefer_folder: as in annotations.resolve_video.
        others: videos of other lists in the same folder, which keep what is theirs.

    A file is given to one record only, to the one that it fits best, and never to one of another class: lists such as
    `run/001.avi`, `jump/001.avi` stay apart.
    """
    records = list(records)
    located = [_exact(root, record, list_format, prefer_folder) for record in records]
    lost = [number for number, one in enumerate(located) if not one.listed]
    if not lost:
        return located
    others, index = list(others), _by_name(root)
    taken = {one.found for one in located if one.found} | {record.path for record in others}
    classes = {_parent(record.path) for record in (*records, *others)} - {""}
    for rank in (0, 1, 2):
        for number in lost:
            record = records[number]
            named = index.get(stem(_spelled(record.path)), [])
            if located[number].found or not named:
                continue
            fitting = [path for path in named if path not in taken and _rank(record, path, classes) == rank]
            best = _one_a_folder(record, fitting)
            if len(best) == 1:
                located[number] = Located(best[0], False)
                taken.add(best[0])
            elif best:
                located[number] = Located(None, False, f"not as listed, and {len(best)} files of this name elsewhere: "
                                                       f"{', '.join(best[:3])}")
    return located


def lying(root: Path, missing: Sequence[VideoRecord], list_format: str | None, others: Iterable[VideoRecord]) -> str:
    """Say where missing videos lie, or else what does lie there, and what mends it.

    Args:
        missing, others: of a list, those that are not where it says, and all.
    """
    found = [(one.path, place.found) for one, place in zip(
        missing, locate(root, missing, list_format, others=set(others) - set(missing)), strict=True) if place.found]
    if found:
        some = ", ".join(f"{there} for {listed}" for listed, there in found[:SHOWN])
        return (f"{len(found)} of them lie elsewhere in {root}: {some}{', ...' if len(found) > SHOWN else ''}; python "
                "runs/prepare.py check --cfg <this file> --write-lists <directory> writes lists of where they lie")
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if packed := [name for name in names if name.lower().endswith(PACKED)]:
        return f"{root} holds archives, such as {packed[0]}: unpack them there (tar xf, unzip, unrar x)"
    return f"{root} holds " + (", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") or "nothing")
