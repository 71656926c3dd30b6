"""Videos as they lie in folders: files by their extension, and folders of frames, each of which is one video."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from datasets.annotations import is_frame
from utils.errors import ListError

VIDEO_SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v")  # the first is taken first


def stem(video: str) -> str:
    """Return a video's id: its file name without a video's extension."""
    name = PurePosixPath(video).name
    return name.rsplit(".", 1)[0] if name.lower().endswith(VIDEO_SUFFIXES) else name


def plain(name: str) -> str:
    """Return a class or folder name without case, spaces, brackets and punctuation: what two spellings share."""
    return re.sub(r"[\W_]", "", name).casefold()


def nearest(name: str, names: Iterable[str]) -> str:
    """Return '; nearest: ...' with the most similar of `names`, or nothing."""
    by_plain = {plain(other): other for other in names}
    near = difflib.get_close_matches(plain(name), list(by_plain), n=1)
    return f"; nearest: {by_plain[near[0]]!r}" if near else ""


def check_folder(directory: Path, what: str) -> None:
    """Raise ListError where `directory`, which is to be `what`, is no directory."""
    if not directory.is_dir():
        raise ListError(f"{directory}: expected {what}, found {'a file' if directory.exists() else 'nothing there'}")


def walk_videos(root: Path, *, skip_unreadable: bool = False) -> Iterator[str]:
    """Yield the path under `root` of every video in it, however deep: files, and folders of frames.

    Hidden files, and what else lies in a folder of frames, are left out. Links to folders are not followed.

    Raises:
        ListError: a folder that cannot be read, unless those are skipped.
    """
    folders = [""]
    with tqdm(desc=str(root), unit="folder", disable=None, leave=False) as bar:
        while folders:
            folder = folders.pop()
            bar.update()
            try:
                with os.scandir(root / folder) as found:
                    entries = [entry for entry in found if not entry.name.startswith(".")]
            except OSError as error:
                if skip_unreadable:
                    continue
                raise ListError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
            videos = sum(entry.name.lower().endswith(VIDEO_SUFFIXES) for entry in entries)
            if folder and sum(is_frame(entry.name) for entry in entries) > videos:  # else they are covers of videos
                yield folder
                continue
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.name.lower().endswith(VIDEO_SUFFIXES) and os.path.isfile(entry):  # False for a broken link
                    yield path
