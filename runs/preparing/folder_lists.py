"""Derives lists from a folder of videos, for the data sets whose lists hold every video of their classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from datasets.annotations import is_frame
from runs.preparing.published_lists import videos_a_class
from runs.preparing.split_lists import SPLITS, SplitList
from runs.preparing.video_files import VIDEO_SUFFIXES, check_folder, nearest, plain, stem
from utils.errors import ListError

PREFIX = "videos"  # first folder of every published path, under DATA.DATA_ROOT_DIR
_SHOWN = 20
_GROUPS = 25  # UCF101: v_<Class>_g01_c01 to g25; the clips of a group are numbered from 1


@dataclass(frozen=True, slots=True)
class Folder:
    """Holds what a class's folder holds: video names, sorted, and names of what is no video."""

    name: str
    videos: tuple[str, ...]
    others: tuple[str, ...]


def videos_folder(directory: Path) -> Path:
    """Return the folder that holds the classes: `directory`, or `videos` in it. Raises ListError where neither is."""
    check_folder(directory, "the folder of the videos (--videos)")
    return directory / PREFIX if (directory / PREFIX).is_dir() else directory


def _read(path: Path) -> Folder:
    """Read a class's folder; a folder of frames counts as the .avi it stands for."""
    files: list[str] = []
    frames: list[str] = []
    others: list[str] = []
    for entry in path.iterdir():
        if entry.is_dir():
            (frames if any(is_frame(inner.name) for inner in entry.iterdir()) else others).append(entry.name)
        elif entry.name.lower().endswith(VIDEO_SUFFIXES) and not entry.name.startswith(".") and entry.is_file():
            files.append(entry.name)
        else:
            others.append(entry.name)
    both = {stem(file) for file in files}  # a video that is there as file and as frames is one video
    videos = sorted([*files, *(f"{name}.avi" for name in frames if name not in both)])
    return Folder(path.name, tuple(videos), tuple(sorted(others)))


def _gaps(videos: Sequence[str]) -> list[str]:
    """Return UCF101's clips that must have been there: groups and numbers that are left out. Empty for other names."""
    found = [match for video in videos if (match := re.fullmatch(r"(v_\w+)_g(\d\d)_c(\d\d)\.\w+", video))]
    if not videos or len(found) < len(videos):
        return []
    clips: dict[int, set[int]] = {group: set() for group in range(1, _GROUPS + 1)}
    for match in found:
        clips.setdefault(int(match[2]), set()).add(int(match[3]))
    return [f"{found[0][1]}_g{group:02d}_c{clip:02d}" for group, numbers in clips.items()
            for clip in range(1, max(numbers, default=1) + 1) if clip not in numbers]


def _misfit(folder: Folder, published: int) -> str | None:
    """Say what does not fit in a class's folder; None where all does."""
    count = len(folder.videos)
    if count == published:
        return None
    if count > published:
        return f"folder {folder.name} has {count} videos, {count - published} more than the {published} published"
    gaps = _gaps(folder.videos)
    names = f"; not there: {', '.join(gaps[:6])}{' ...' if len(gaps) > 6 else ''}" if gaps else ""
    return f"folder {folder.name} has {count} of {published} videos{names}"


def _match(holder: Path, names: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[Path]], list[str]]:
    """Return the folders by plain class name, and the names of the folders that are no class."""
    wanted = {plain(name) for split in SPLITS for name in names[split]}
    found: dict[str, list[Path]] = {}
    extra = []
    for entry in sorted(holder.iterdir()):
        if entry.is_dir() and plain(entry.name) in wanted:
            found.setdefault(plain(entry.name), []).append(entry)
        elif entry.is_dir():
            extra.append(entry.name)
    return found, extra


def _say_deeper(holder: Path, found: Mapping[str, Sequence[Path]], extra: Sequence[str],
                names: Mapping[str, Sequence[str]]) -> None:
    """Raise ListError where the classes, or their videos, lie one folder deeper, with the command that mends it."""
    for name in extra if not found else ():
        if _match(holder / name, names)[0]:
            raise ListError(f"{holder}: expected a folder a class, found them one folder deeper: give --videos "
                            f"{holder / name}")
    folders = [folder for same in found.values() for folder in same]
    deeper = [inner for folder in folders if (inner := folder / folder.name).is_dir()
              and not _read(folder).videos and _read(inner).videos]
    if deeper:
        raise ListError(f"{holder}: expected the videos in the folders of their classes, found those of {len(deeper)} "
                        f"classes one folder deeper, as in {deeper[0].relative_to(holder)}. To move them up: cd "
                        f'{holder} && for d in */; do mv "$d$d"* "$d" && rmdir "$d$d"; done')


def _say(problems: Sequence[str]) -> str:
    more = [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "\n".join([*(f"  - {text}" for text in problems[:_SHOWN]), *more])


def derive(dataset: str, directory: Path, names: Mapping[str, Sequence[str]], *,
           partial: bool) -> tuple[list[SplitList], list[str]]:
    """Make the lists of a data set from the folder of its videos: `train0//videos/<folder>/<file>`.

    Args:
        dataset: ucf101 or hmdb51.
        directory: holds a folder a class (or `videos`, which does); spelling, case and spaces of the folders are free.
        names: class names by split, in the order of the class index.
        partial: go on where a class has other videos than published; what does not fit becomes a note.

    Returns:
        a list a split, and notes.

    Raises:
        ListError: not a folder, a class without folder or with two, or (not `partial`) another number of videos;
            names each class.
    """
    counts = videos_a_class(dataset)
    if counts is None:
        raise ListError(f"{dataset}: its lists hold some of the videos of a class, so they cannot be told from a "
                        "folder; leave out --videos to fetch the published ones, or give --from")
    holder = videos_folder(directory)
    try:
        return _derive(dataset, holder, names, counts, partial)
    except OSError as error:
        raise ListError(f"{error.filename or holder}: cannot be read: {error.strerror or error}") from error


def _derive(dataset: str, holder: Path, names: Mapping[str, Sequence[str]], counts: Mapping[str, Sequence[int]],
            partial: bool) -> tuple[list[SplitList], list[str]]:
    found, extra = _match(holder, names)
    _say_deeper(holder, found, extra, names)
    broken: list[str] = []
    misfits: list[str] = []
    ignored: list[str] = []
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    classes = [(split, *row) for split in SPLITS
               for row in zip(range(len(names[split])), names[split], counts[split], strict=True)]
    for split, index, name, published in tqdm(classes, desc=str(holder), unit="class", disable=None, leave=False):
        folders = found.get(plain(name), [])
        if len(folders) != 1:
            here = ", ".join(path.name for path in folders)
            broken.append(f"{split} class {name!r}: " + (f"{len(folders)} folders ({here})" if folders else
                                                         f"no folder{nearest(name, extra)}"))
            continue
        folder = _read(folders[0])
        misfit = _misfit(folder, published)
        misfits.extend([f"{split} class {name!r}: {misfit}"] if misfit else [])
        ignored.extend(f"{folder.name}/{other}" for other in folder.others)
        lines[split].extend(f"{split}{index}//{PREFIX}/{folder.name}/{video}" for video in folder.videos)
    notes = [f"folders that are no class of {dataset}: {', '.join(extra)}"] if extra else []
    if ignored:
        notes.append(f"not videos, left out: {', '.join(ignored[:10])}{' ...' if len(ignored) > 10 else ''}")
    if broken or (misfits and not partial):
        advice = "" if broken else "\n--partial makes lists of what is there; they are no longer the published ones"
        raise ListError("\n".join([f"{holder}: expected every class of {dataset} with the videos published, found:",
                                   _say([*broken, *misfits]), *notes]) + advice)
    if misfits:
        notes.append(f"other videos than published, so these lists have names of their own:\n{_say(misfits)}")
    if holder.name != PREFIX:
        notes.append(f"the lists call {holder} {PREFIX!r}: before a run rename it so, or make a link of that name "
                     f"beside it; DATA.DATA_ROOT_DIR is {holder.parent}")
    return [SplitList(split, f"{holder} ({split})", tuple(lines[split])) for split in SPLITS], notes
