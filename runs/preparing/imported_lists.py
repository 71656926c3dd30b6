"""Lists that others wrote: in the published format, or one `class name/video id` a line (CMN, TRX)."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from datasets.annotations import is_jpeg, read_lines
from runs.preparing.folder_lists import PREFIX
from runs.preparing.split_lists import SPLITS, VIDEO_SUFFIXES, SplitList, nearest, plain, stem
from utils.download import Patience, fetch
from utils.errors import AnnotationError, DownloadError, ListError

_INDEXED = re.compile(r"(?:train|val|test)\d+/.+")  # the published format, of any split and data set
_YOUTUBE = 11  # characters of an id; Kinetics adds the seconds: <id>_000012_000022
_LIMIT = 64 << 20  # bytes of a list


def is_url(source: str) -> bool:
    """Whether `source` is an address rather than a path."""
    return source.startswith(("http://", "https://"))


def locate(source: str | None, given: Mapping[str, str | None]) -> dict[str, str]:
    """The file or address of each split.

    Args:
        source: a directory, an address of one, or either with {split} in it; None where `given` has all.
        given: by split, a file or address that is named on its own.

    Raises:
        ListError: no such directory, or none or several of its files may be a split's list.
    """
    found = {split: place for split, place in given.items() if place}
    for split in SPLITS:
        if split in found:
            continue
        if source is None:
            raise ListError(f"--{split}: expected a file or an address, as for the other splits, found none")
        if "{split}" in source:
            found[split] = source.replace("{split}", split)
        elif is_url(source):
            found[split] = f"{source.rstrip('/')}/{split}_few_shot.txt"
        else:
            found[split] = str(_in_directory(Path(source), split))
    return found


def _in_directory(directory: Path, split: str) -> Path:
    """`<split>_few_shot.txt`, else the only file that is called like a list of this split."""
    if not directory.is_dir():
        raise ListError(f"{directory}: expected the directory of the lists (--from), found "
                        f"{'a file; name it with --train, --val or --test' if directory.exists() else 'nothing there'}")
    if (directory / f"{split}_few_shot.txt").is_file():
        return directory / f"{split}_few_shot.txt"
    try:
        names = sorted(entry.name for entry in directory.iterdir() if entry.is_file())
    except OSError as error:
        raise ListError(f"{directory}: cannot be read: {error.strerror or error}") from error
    fits = [name for name in names if re.fullmatch(rf"{split}([_-]?(list|split))?[_-]?\d*(\.txt|\.list|\.csv)?", name,
                                                   re.IGNORECASE)]
    if len(fits) != 1:
        expected = f"expected one list of {split}, such as {split}_few_shot.txt, {split}list03.txt or {split}.list"
        here = ", ".join((fits or names)[:8]) or "no file"
        raise ListError(f"{directory}: {expected}, found {here}; name the file with --{split}")
    return directory / fits[0]


def _read(split: str, place: str, store: Path, patience: Patience | None) -> SplitList:
    """A list as it is written, fetched where it has an address."""
    if not is_url(place):
        return SplitList(split, place, tuple(read_lines(Path(place))))
    path = store / f"{split}_import.txt"
    try:
        fetch(place, path, patience=patience or Patience(limit=_LIMIT))
    except DownloadError as error:
        raise ListError(f"{error}\n--from takes an address with {{split}} in it, --{split} that of one list; or fetch "
                        "the lists on a machine with network and give their directory with --from") from error
    return SplitList(split, place, tuple(read_lines(path)))


def import_lists(dataset: str, places: Mapping[str, str], names: Mapping[str, Sequence[str]], store: Path, *,
                 videos: Path | None, patience: Patience | None = None) -> tuple[list[SplitList], list[str]]:
    """Lists in the published format, as they are, or `class name/video id` with the class's index put in.

    Args:
        dataset: its name in configs/pool/classes.
        places: file or address by split.
        names: class names by split, in the order of the class index.
        store: directory for what is fetched.
        videos: DATA_ROOT_DIR, in which the paths of named videos are looked up; None: paths by convention.
        patience: of downloads.

    Returns:
        a list a split, and notes.

    Raises:
        ListError: cannot be fetched, or videos are not in `videos`.
        AnnotationError: a line without a class and a video, or a class that is not one of the split's.
    """
    read = [_read(split, places[split], store, patience) for split in SPLITS]
    indexed = {made.split: bool(_INDEXED.fullmatch(next(iter(made.written), ""))) for made in read}
    ids = dataset.startswith("ssv2")
    notes = []
    index = None if ids or videos is None or all(indexed.values()) else _index(videos)
    if videos is not None and index is None:
        notes.append(f"{videos} was not looked at: these lists name " + ("ids" if ids else "paths"))
    if not ids and index is None and not all(indexed.values()):
        notes.append(f"paths are {PREFIX}/<class>/<id>{_suffix(dataset)}, by convention; --videos DATA_ROOT_DIR looks "
                     "them up")
    return [made if indexed[made.split] else _named(dataset, made, names, index) for made in read], notes


def _suffix(dataset: str) -> str:
    return ".mp4" if dataset == "kinetics100" else ".avi"


def _unreadable(error: OSError) -> None:
    raise ListError(f"{error.filename}: cannot be read: {error.strerror or error}") from error


def _index(root: Path) -> dict[str, list[str]]:
    """Paths under `root` by video id; Kinetics' also by the id without seconds. A folder of frames counts as a file."""
    if not root.is_dir():
        raise ListError(f"{root}: expected the directory of the videos (--videos), found "
                        f"{'a file' if root.exists() else 'nothing there'}")
    found: dict[str, set[str]] = {}
    for folder, inner, files in tqdm(os.walk(root, onerror=_unreadable), desc=str(root), unit="folder", disable=None,
                                     leave=False):
        here = Path(folder).relative_to(root).as_posix()
        if here != "." and any(is_jpeg(name) for name in files):
            inner.clear()
            found.setdefault(Path(folder).name, set()).add(here)
        for name in files:
            if name.lower().endswith(VIDEO_SUFFIXES):
                found.setdefault(stem(name), set()).add(name if here == "." else f"{here}/{name}")
    for name in list(found):
        short = re.fullmatch(rf"(.{{{_YOUTUBE}}})_\d{{6}}_\d{{6}}", name)
        if short:
            found.setdefault(short[1], set()).update(found[name])
    return {name: sorted(paths) for name, paths in found.items()}


def _named(dataset: str, made: SplitList, names: Mapping[str, Sequence[str]],
           index: Mapping[str, Sequence[str]] | None) -> SplitList:
    """`class name/video id` lines in the list format of the data set."""
    classes = {plain(name): k for k, name in enumerate(names[made.split])}
    lines, missing = [], []
    for number, line in enumerate(made.lines, start=1):
        if not line:
            lines.append("")
            continue
        folder, slash, video = line.rpartition("/")
        name = folder.rsplit("/", 1)[-1] if plain(folder) not in classes else folder
        if not slash or not video or plain(name) not in classes:
            raise AnnotationError(f"{made.origin}, line {number}: expected a class of {dataset}'s {made.split} and a "
                                  f"video, such as '{names[made.split][0]}/<video id>', found {line[:120]!r}"
                                  f"{_advice(name, made.split, names) if slash else ''}")
        head = f"{made.split}{classes[plain(name)]}"
        if dataset.startswith("ssv2"):
            lines.append(f"{head}/{stem(video)}")
            continue
        path = _path(dataset, name, video, index)
        missing.extend([] if path else [(number, line)])
        lines.append(f"{head}//{path}")
    if missing:
        number, line = missing[0]
        raise ListError(f"{made.origin}, line {number}: expected a video of id {stem(line)!r} under --videos, found "
                        f"none; so for {len(missing)} of {len(made.written)} lines")
    return SplitList(made.split, made.origin, tuple(lines))


def _advice(name: str, split: str, names: Mapping[str, Sequence[str]]) -> str:
    """The split whose class this is, else the class with the most similar name."""
    other = [other for other in SPLITS if plain(name) in map(plain, names[other])]
    return f", whose class is one of {other[0]}" if other else nearest(name, names[split])


def _path(dataset: str, name: str, video: str, index: Mapping[str, Sequence[str]] | None) -> str | None:
    """Path under DATA_ROOT_DIR; None where `index` has no such video. Of several, one in the class's own folder."""
    own = name.replace(" ", "_")
    if index is None:
        return f"{PREFIX}/{own}/{stem(video)}{_suffix(dataset)}"
    paths = index.get(stem(video)) or index.get(stem(video)[:_YOUTUBE] if dataset == "kinetics100" else "") or []
    best = sorted(paths, key=lambda path: plain(Path(path).parent.name) != plain(name))
    if not best:
        return None
    return best[0] if best[0].lower().endswith(VIDEO_SUFFIXES) else f"{best[0]}{_suffix(dataset)}"
