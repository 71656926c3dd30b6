"""Read split lists (one video a line, class index first): from a line to a record, from a record to a file.

Two formats (`LIST_FORMATS`), each with its published names:
    paths (Kinetics_few_shot, HMDB_few_shot)   train0//videos/run/x.avi   path under the root, extension included
    ids (Ssv2_few_shot)                        train8/78687               id; the file is id.mp4, id.webm or id/*.jpg
"""

import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from utils.collecting import uncollected
from utils.episode import VideoRecord
from utils.errors import AnnotationError, VideoDecodeError
from utils.foreign import TEXT_BYTES, regular
from utils.registry import Registry

DEFAULT_FORMAT = "ids"
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LIST_FORMATS: "Registry[ListFormat]" = Registry("list format", "datasets/annotations.py")


@dataclass(frozen=True, slots=True)
class ListFormat:
    """Say how a line of a split list is written."""

    separator: str  # between class index and video
    example: str  # a video as this format writes it, for messages
    suffixes: tuple[str, ...]  # appended to the video to name its file, in the order they are tried

    def pattern(self, split: str) -> re.Pattern[str]:
        """Return a pattern of a whole line of `split`: group 1 is the class index, group 2 the video."""
        video = r"([^/].*)" if self.separator == "//" else r"([^/]+)"
        return re.compile(rf"{re.escape(split)}([0-9]{{1,6}}){self.separator}{video}")


LIST_FORMATS.register("paths", "Kinetics_few_shot", "HMDB_few_shot")(ListFormat("//", "videos/run/x.avi", ("",)))
LIST_FORMATS.register(DEFAULT_FORMAT, "Ssv2_few_shot")(ListFormat("/", "78687", (".mp4", ".webm")))


def read_lines(path: Path) -> list[str]:
    """Return the stripped lines of a list, blank ones kept. Raises AnnotationError when it cannot be read."""
    try:
        if path.exists():
            regular(path, AnnotationError, TEXT_BYTES)
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except FileNotFoundError:
        folder = path.parent
        if folder.is_dir():
            state = f"which holds {', '.join(sorted(p.name for p in folder.glob('*.txt'))[:6]) or 'no .txt file'}"
        else:
            state = "which does not exist" + (
                "" if folder.is_absolute() else f" in the current directory, {Path.cwd()}")
        raise AnnotationError(f"{path}: split list not found: expected {path.name} in directory {folder}, {state} "
                              "(DATA.ANNO_DIR)") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: expected a text file in UTF-8, found byte {error.object[error.start]:#04x} "
                              f"at offset {error.start}") from None
    except OSError as error:
        raise AnnotationError(f"{path}: split list cannot be read: {error.strerror or error}") from None


def _leaves_root(video: str) -> bool:
    if video.startswith(("/", "\\")) or "\0" in video:
        return True
    return ".." in video and ".." in PurePosixPath(video.replace("\\", "/")).parts


def _record(path: Path | str, number: int, line: str, found: re.Match[str] | None, expected: str) -> VideoRecord:
    if found is None:
        raise AnnotationError(f"{path}, line {number}: expected {expected}, found {line[:120]!r}")
    video = found[2]
    if _leaves_root(video):
        raise AnnotationError(f"{path}, line {number}: expected a path under DATA_ROOT_DIR, found {video[:120]!r}")
    return VideoRecord(video, int(found[1]), number)


def _check_dense(path: Path | str, records: Sequence[VideoRecord]) -> None:
    """Check that class indices are 0..G-1 without gaps."""
    present = {record.class_index for record in records}
    largest = max(records, key=lambda record: record.class_index)
    missing = [k for k in range(min(largest.class_index, len(present) + 1)) if k not in present]
    if missing:
        raise AnnotationError(f"{path}: expected class indices 0 to {len(present) - 1} for {len(present)} classes, "
                              f"found {largest.class_index} (line {largest.line}) and no video of class {missing[0]}")


def read_split_list(path: Path, split: str, format: str | None = None) -> list[VideoRecord]:
    """Return one record a video, in the order of the list, class indices dense from 0; blank lines are skipped.

    Args:
        split: train, val or test: what every line starts with.
        format: a name of LIST_FORMATS; None: SSv2's.

    Raises AnnotationError naming file and line: no such file, a line of another form or split, a video listed twice, a
    path that leaves the root, a class index that no video has.
    """
    with uncollected():
        return parse_split_list(read_lines(Path(path)), Path(path), split, format)


def parse_split_list(lines: Sequence[str], path: Path | str, split: str,
                     format: str | None = None) -> list[VideoRecord]:
    """Parse lines that are already in memory, as `read_split_list` does. `path` is only used in error messages."""
    entry = LIST_FORMATS[format or DEFAULT_FORMAT]
    pattern = entry.pattern(split)
    expected = f"a line such as '{split}0{entry.separator}{entry.example}' (list format {format or DEFAULT_FORMAT})"
    records: list[VideoRecord] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        record = _record(path, number, line, pattern.fullmatch(line), expected)
        earlier = first.setdefault(posixpath.normpath(record.path), number)
        if earlier != number:
            raise AnnotationError(f"{path}, line {number}: expected every video once, found {record.path!r} "
                                  f"already in line {earlier}")
        records.append(record)
    if not records:
        raise AnnotationError(f"{path}: expected at least one video, found an empty list")
    _check_dense(path, records)
    return records


def list_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of the list's sorted stripped lines, which ignores their order, blank lines and CRLF."""
    return hash_lines(read_lines(Path(path)))


def hash_lines(lines: Sequence[str]) -> str:
    """Return the `list_hash` of lines that are already stripped."""
    return hashlib.sha256("\n".join(sorted(filter(None, lines))).encode()).hexdigest()


def check_classes(records: Sequence[VideoRecord], class_names: Sequence[str], need: int, path: Path | str) -> None:
    """Raise AnnotationError where a list has more classes than names, or a class has fewer than `need` videos, which
    an episode draws from it (SHOT + QUERY_PER_CLASS)."""
    counts = Counter(record.class_index for record in records)
    if len(counts) > len(class_names):  # fewer is allowed: a subset of a data set has its first classes
        raise AnnotationError(f"{path}: expected at most {len(class_names)} classes, as many as CLASS_NAME has names, "
                              f"found {len(counts)}")
    short = [f"class {k} ({class_names[k]!r}) has {counts[k]}" for k in sorted(counts) if counts[k] < need]
    if short:
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        raise AnnotationError(f"{path}: expected at least {need} videos a class (SHOT + QUERY_PER_CLASS), found: "
                              f"{', '.join(short[:5])}{more}")


def is_frame(name: str) -> bool:
    """Whether a file name is one of a frame: of a picture, and not hidden (as what macOS leaves beside it)."""
    return name.lower().endswith(FRAME_SUFFIXES) and not name.startswith(".")


def _has_frames(folder: Path) -> bool:
    """Whether `folder` is a directory with a frame in it."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(is_frame(entry.name) for entry in entries)


def listed_once(root: Path) -> Callable[[str], set[str]]:
    """Return what gives the names in a folder under `root`, none where it cannot be read; each folder is listed once.
    """
    @cache
    def names(folder: str) -> set[str]:
        try:
            return set(os.listdir(root / folder))
        except OSError:
            return set()

    return names


def missing_videos(names: Callable[[str], set[str]], records: Sequence[VideoRecord], format: str | None = None
                   ) -> list[VideoRecord]:
    """Return the records that have no file or folder in the listings of a root (`listed_once`); nothing is opened."""
    suffixes = LIST_FORMATS[format or DEFAULT_FORMAT].suffixes

    def there(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in names(folder)

    def missing(path: str) -> bool:
        for suffix in suffixes:
            if there(path + suffix):
                return False
        return not there(path if suffixes != ("",) else os.path.splitext(path)[0])

    return [record for record in records if missing(record.path)]


def resolve_video(root: Path, record: VideoRecord, format: str | None = None, *, prefer_folder: bool = False) -> Path:
    """Return the path as listed (SSv2: id.mp4, else id.webm), else the folder of frames of the same name.

    `prefer_folder` takes the folder where both exist. Raises VideoDecodeError that names the paths that were tried;
    AnnotationError where the path leads out of `root`, DATA_ROOT_DIR (`..`, absolute, a symbolic link).
    """
    root, entry = Path(root), LIST_FORMATS[format or DEFAULT_FORMAT]
    files = [root / f"{record.path}{suffix}" for suffix in entry.suffixes]
    folder = files[0].with_suffix("") if entry.suffixes == ("",) else root / record.path
    if _leaves_root(record.path):
        raise AnnotationError(f"line {record.line}: expected a path under {root}, found {record.path!r}")
    found = next((file for file in files if file.is_file()), None)
    if (found is None or prefer_folder) and _has_frames(folder):
        found = folder
    if found is None and entry.suffixes == ("",) and _has_frames(files[0]):
        found = files[0]
    if found is None:
        tried = ", ".join([*map(str, files), f"{folder}{os.sep}*.jpg"])
        raise VideoDecodeError(root / record.path, f"no such video (line {record.line} of the list); tried {tried}")
    if not found.resolve().is_relative_to(root.resolve()):
        raise AnnotationError(f"{found}: expected a file under DATA_ROOT_DIR {root.resolve()}, found a link to "
                              f"{found.resolve()}; point DATA_ROOT_DIR at the directory that holds the videos")
    return found


def file_stamp(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and time of change in ns, which tell it from another. Raises OSError."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
