"""Imports lists that others wrote: in the published format, or one `class name/video id` a line (CMN, TRX)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.annotations import read_lines
from runs.preparing.folder_lists import PREFIX
from runs.preparing.split_lists import SPLITS, SplitList
from runs.preparing.video_files import VIDEO_SUFFIXES, check_folder, nearest, plain, stem, walk_videos
from utils.download import Patience, fetch
from utils.errors import AnnotationError, DownloadError, ListError

_INDEXED = re.compile(r"(?:train|val|test)\d+/.+")  # the published format, of any split and data set
_YOUTUBE = 11  # characters of an id; Kinetics adds the seconds: <id>_000012_000022
_LIMIT = 64 << 20  # bytes of a list


def is_url(source: str) -> bool:
    """Tell whether `source` is an address rather than a path."""
    return source.startswith(("http://", "https://"))


def locate(source: str | None, given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the file or address of each split.

    Args:
        source: a directory, an address of one, or either with {split} in it; None where `given` has all.
        given: by split, a file or address that is named on its own.

    Raises:
        ListError: no such directory, or none or several of its files may be a split's list.
    """
    found = {split: source for split, source in given.items() if source}
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
    """Return `<split>_few_shot.txt`, else the only file that is called like a list of this split."""
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


def _read(split: str, source: str, store: Path, patience: Patience | None) -> SplitList:
    """Read a list as it is written, fetched where it has an address."""
    if not is_url(source):
        return SplitList(split, source, tuple(read_lines(Path(source))))
    path = store / f"{split}_import.txt"
    try:
        fetch(source, path, patience=patience or Patience(limit=_LIMIT, all_s=600))
    except DownloadError as error:
        raise ListError(f"{error}\n--from takes an address with {{split}} in it, --{split} that of one list; or fetch "
                        "the lists on a machine with network and give their directory with --from") from error
    return SplitList(split, source, tuple(read_lines(path)))


def import_lists(dataset: str, sources: Mapping[str, str], names: Mapping[str, Sequence[str]], store: Path, *,
                 videos: Path | None, patience: Patience | None = None) -> tuple[list[SplitList], list[str]]:
    """Read lists: in the published format as they are, `class name/video id` with the class's index put in.

    Args:
        dataset: its name in configs/pool/classes.
        sources: file or address by split.
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
    read = [_read(split, sources[split], store, patience) for split in SPLITS]
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


def _index(root: Path) -> dict[str, list[str]]:
    """Return the paths under `root` by video id; Kinetics' also by the id without seconds."""
    check_folder(root, "the directory of the videos (--videos)")
    found: dict[str, set[str]] = {}
    for path in walk_videos(root):
        found.setdefault(stem(path), set()).add(path)
    for name in list(found):
        short = re.fullmatch(rf"(.{{{_YOUTUBE}}})_\d{{6}}_\d{{6}}", name)
        if short:
            found.setdefault(short[1], set()).update(found[name])
    return {name: sorted(paths) for name, paths in found.items()}


def _named(dataset: str, made: SplitList, names: Mapping[str, Sequence[str]],
           index: Mapping[str, Sequence[str]] | None) -> SplitList:
    """Turn `class name/video id` lines into the list format of the data set."""
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
    """Name the split whose class this is, else the class with the most similar name."""
    other = [other for other in SPLITS if plain(name) in map(plain, names[other])]
    return f", whose class is one of {other[0]}" if other else nearest(name, names[split])


def _path(dataset: str, name: str, video: str, index: Mapping[str, Sequence[str]] | None) -> str | None:
    """Return the path under DATA_ROOT_DIR, of several one in the class's folder; None where `index` has none."""
    own = name.replace(" ", "_")
    if index is None:
        return f"{PREFIX}/{own}/{stem(video)}{_suffix(dataset)}"
    paths = index.get(stem(video)) or index.get(stem(video)[:_YOUTUBE] if dataset == "kinetics100" else "") or []
    best = sorted(paths, key=lambda path: plain(Path(path).parent.name) != plain(name))
    if not best:
        return None
    return best[0] if best[0].lower().endswith(VIDEO_SUFFIXES) else f"{best[0]}{_suffix(dataset)}"
