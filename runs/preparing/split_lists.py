"""A split list on its way to a file: what it holds, what is checked, when it may take its place."""

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.annotations import hash_lines, parse_split_list, read_lines
from utils.episode import VideoRecord
from utils.errors import AnnotationError, ListError
from utils.files import whole_file

SPLITS = ("train", "val", "test")
VIDEO_SUFFIXES = (".avi", ".mp4", ".webm", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v")


@dataclass(frozen=True, slots=True)
class SplitList:
    """One split's list.

    Args:
        split: train, val or test.
        origin: the file, address or folder it comes from, for messages.
        lines: stripped lines, one video each; blank ones keep their place, so that messages can name a line.
    """

    split: str
    origin: str
    lines: tuple[str, ...]

    @property
    def written(self) -> list[str]:
        """The lines that are written, one a video."""
        return [line for line in self.lines if line]

    @property
    def text(self) -> str:
        """The file's content."""
        return "\n".join(self.written) + "\n"

    @property
    def file_name(self) -> str:
        """The name runs look for."""
        return f"{self.split}_few_shot.txt"

    @property
    def digest(self) -> str:
        """What list_hash gives for the file."""
        return hash_lines(self.lines)


def list_format(dataset: str) -> str:
    """The list format (datasets.annotations.LIST_FORMATS) of a data set."""
    return "Ssv2_few_shot" if dataset.startswith("ssv2") else "HMDB_few_shot"


def plain(name: str) -> str:
    """A class or folder name without case, spaces, brackets and punctuation: what two spellings share."""
    return re.sub(r"[\W_]", "", name).casefold()


def nearest(name: str, names: Sequence[str]) -> str:
    """'; nearest: ...' with the most similar of `names`, or nothing."""
    by_plain = {plain(other): other for other in names}
    near = difflib.get_close_matches(plain(name), list(by_plain), n=1)
    return f"; nearest: {by_plain[near[0]]!r}" if near else ""


def stem(video: str) -> str:
    """A video's id: its file name without a video's extension."""
    name = PurePosixPath(video).name
    return name.rsplit(".", 1)[0] if name.lower().endswith(VIDEO_SUFFIXES) else name


def _check_counts(made: SplitList, records: Sequence[VideoRecord], names: Sequence[str], need: int) -> None:
    """As many classes as names, and `need` videos in each."""
    lines: dict[int, list[int]] = {}
    for record in records:
        lines.setdefault(record.class_index, []).append(record.line)
    last = max(lines)
    if len(lines) != len(names):
        raise AnnotationError(f"{made.origin}, line {lines[last][0]}: expected {len(names)} classes, as many as there "
                              f"are names for {made.split}, found {len(lines)} (the last is {last})")
    for index, found in sorted(lines.items()):
        if len(found) < need:
            raise AnnotationError(
                f"{made.origin}, line {found[0]}: expected at least {need} videos (SHOT + QUERY_PER_CLASS) of class "
                f"{index} ({names[index]!r}), found {len(found)}")


def _check_folders(made: SplitList, records: Sequence[VideoRecord], names: Sequence[str]) -> None:
    """Where a video's folder is called like a class, it is the class of its index: else names and indices differ."""
    index = {plain(name): k for k, name in enumerate(names)}
    for record in records:
        folder = PurePosixPath(record.path).parent.name
        right = index.get(plain(folder), record.class_index)
        if right != record.class_index:
            raise AnnotationError(
                f"{made.origin}, line {record.line}: expected class index {right} for folder {folder!r}, as the class "
                f"file has it, found {record.class_index} ({names[record.class_index]!r})")


def _identity(dataset: str, path: str) -> str:
    """What two paths of one video share, whatever folder it was put in: ids of Kinetics and SSv2 are unique, the names
    of UCF101 and HMDB51 within their class."""
    folder = plain(PurePosixPath(path).parent.name) if dataset in ("ucf101", "hmdb51") else ""
    return f"{folder}/{stem(path)}"


def check_lists(dataset: str, lists: Sequence[SplitList], names: Mapping[str, Sequence[str]], need: int) -> None:
    """Check the lists of a data set, each alone and against each other.

    Args:
        dataset: its name in configs/pool/classes; decides the list format.
        lists: one a split.
        names: class names by split, in the order of the class index.
        need: videos an episode draws from a class (SHOT + QUERY).

    Raises:
        AnnotationError: a line of another form, a video twice or in two splits, indices that are not dense from 0,
            another number of classes than names, a class below `need`, a folder of another class.
    """
    seen: dict[str, tuple[SplitList, int]] = {}
    for made in lists:
        records = parse_split_list(made.lines, made.origin, made.split, list_format(dataset))
        _check_counts(made, records, names[made.split], need)
        _check_folders(made, records, names[made.split])
        for record in records:
            other, line = seen.setdefault(_identity(dataset, record.path), (made, record.line))
            if other is not made:
                raise AnnotationError(f"{made.origin}, line {record.line}: expected every video in one split, found "
                                      f"{record.path!r} in {other.split}, too ({other.origin}, line {line})")


def install(lists: Sequence[SplitList], out: Path, *, force: bool) -> dict[str, bool]:
    """Write the lists into `out`, all or none; each file appears whole.

    A list that is there with the same lines, in whatever order, stays as it is.

    Returns:
        by split, whether its file was written.

    Raises:
        ListError: another list is there and `force` is not given, or a file cannot be written.
    """
    new = []
    for made in lists:
        path = out / made.file_name
        if not path.exists() and not path.is_symlink():
            new.append(made)
            continue
        there = [] if not path.is_file() else [line for line in read_lines(path) if line]
        if hash_lines(there) == made.digest:
            continue
        if not force:
            raise ListError(f"{path}: another list is there ({len(there)} videos, this one has {len(made.written)}, "
                            f"{len(set(there) & set(made.written))} in both); choose another --out, or overwrite it "
                            "with --force")
        new.append(made)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:  # the files get their names when all are written
            for made in new:
                part = files.enter_context(whole_file(out / made.file_name))
                part.write_text(made.text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ListError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from error
    return {made.split: made in new for made in lists}
