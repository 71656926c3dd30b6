"""Split lists on their way to files: what they hold, how they are checked, and how they are written."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.annotations import hash_lines, parse_split_list, read_lines
from runs.preparing.video_files import plain
from utils.command import printable
from utils.episode import VideoRecord
from utils.errors import AnnotationError, ListError
from utils.files import whole_file

SPLITS = ("train", "val", "test")


_UNFIT = re.compile("[\0-\x08\n-\x1f\x7f\ud800-\udfff]")  # what no line of a list can hold


@dataclass(frozen=True, slots=True)
class SplitList:
    """Holds one split's list.

    Args:
        split: train, val or test.
        origin: the file, address or folder it comes from, for messages.
        lines: stripped lines, one video each; blank ones keep their place, so that messages can name a line.
    """

    split: str
    origin: str
    lines: tuple[str, ...]

    def __post_init__(self) -> None:
        if odd := next(filter(_UNFIT.search, self.lines), None):
            raise ListError(f"{self.origin}: expected names in UTF-8 on one line, found {printable(odd, '')}; rename "
                            "that file or folder")

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


def _check_counts(made: SplitList, records: Sequence[VideoRecord], names: Sequence[str], need: int) -> None:
    """Check that there are as many classes as names, and `need` videos in each."""
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


def check_folders(made: SplitList, records: Sequence[VideoRecord], names: Sequence[str]) -> None:
    """Check that a video whose folder is called like a class has that class' index: else names and indices differ.

    Raises AnnotationError.
    """
    index = {plain(name): k for k, name in enumerate(names)}
    for record in records:
        folder = PurePosixPath(record.path).parent.name
        right = index.get(plain(folder), record.class_index)
        if right != record.class_index:
            raise AnnotationError(
                f"{made.origin}, line {record.line}: expected class index {right} for folder {folder!r}, as the class "
                f"file has it, found {record.class_index} ({names[record.class_index]!r})")


def check_lists(lists: Sequence[SplitList], names: Mapping[str, Sequence[str]], need: int, form: str,
                identity: Callable[[str], str]) -> dict[str, list[VideoRecord]]:
    """Check the lists of a data set, each alone and against each other, and return their records by split.

    Args:
        lists: one a split.
        names: class names by split, in the order of the class index.
        need: videos an episode draws from a class (SHOT + QUERY).
        form: a name of datasets.annotations.LIST_FORMATS.
        identity: from a video's path to what two paths of one video share.

    Raises:
        AnnotationError: a line of another form, a video twice or in two splits, indices that are not dense from 0,
            another number of classes than names, a class below `need`.
    """
    seen: dict[str, tuple[SplitList, int]] = {}
    found = {}
    for made in lists:
        records = found[made.split] = parse_split_list(made.lines, made.origin, made.split, form)
        _check_counts(made, records, names[made.split], need)
        for record in records:
            other, line = seen.setdefault(identity(record.path), (made, record.line))
            if other is not made:
                raise AnnotationError(f"{made.origin}, line {record.line}: expected every video in one split, found "
                                      f"{record.path!r} in {other.split}, too ({other.origin}, line {line})")
    return found


def install(lists: Sequence[SplitList], out: Path, *, force: bool, beside: Mapping[str, str] | None = None
            ) -> dict[str, bool]:
    """Write the lists into `out`, all or none; each file appears whole.

    A list that is there with the same lines, in whatever order, stays as it is.

    Args:
        force: overwrite other files that are there.
        beside: name to text of other files that belong to the lists.

    Returns:
        by split, whether its file was written.

    Raises:
        ListError: another file is there and `force` is not given, or a file cannot be written.
    """
    new = []
    for name, text in (beside or {}).items():
        if not force and (out / name).exists() and (out / name).read_bytes() != text.encode():
            raise ListError(f"{out / name}: another file is there; choose another --out, or overwrite it with --force")
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
            for name, text in {**(beside or {}), **{made.file_name: made.text for made in new}}.items():
                part = files.enter_context(whole_file(out / name))
                part.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ListError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from error
    return {made.split: made in new for made in lists}
