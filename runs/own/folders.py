"""Reads a folder of own clips: a folder an action, each with its clips; `none` holds clips of none of the actions."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets.annotations import is_frame
from runs.preparing.video_files import VIDEO_SUFFIXES
from utils.config.layers import read_layer
from utils.errors import OwnClipsError

SUFFIXES = (*VIDEO_SUFFIXES, ".3gp", ".ts")
NONE, TEXTS = "none", "actions.yaml"
LITTER = ("thumbs.db", "desktop.ini")  # what file managers leave
SHOWN = 5


@dataclass(frozen=True, slots=True)
class ActionFolders:
    """Holds what a folder of own clips holds.

    Args:
        actions: the clips of each action, by the name of its folder, both in the order of their names.
        none: clips of none of the actions.
        texts: what a text tower reads for each action.
        skipped: what is no clip.
    """

    actions: Mapping[str, tuple[Path, ...]]
    none: tuple[Path, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[Path, ...] = ()


def words(name: str) -> str:
    """Return what a text tower reads for the name of an action: text towers read words, not underscores."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or name


def is_clip(path: Path) -> bool:
    """Return whether a path is a video by its name, or a folder of frames."""
    if path.is_dir():
        return any(is_frame(entry.name) for entry in path.iterdir())
    return path.name.lower().endswith(SUFFIXES)


def _visible(directory: Path) -> list[Path]:
    """Return what lies in a directory, in the order of the names, without what people do not see there."""
    return sorted(Path(entry.path) for entry in os.scandir(directory)
                  if not entry.name.startswith(".") and entry.name.lower() not in LITTER)


def _inside(root: Path, path: Path) -> Path:
    """Return a path that lies under the root. Raises OwnClipsError for a link that leads out of it."""
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise OwnClipsError(f"{path}: a link that leads out of {root}; put the file itself there")
    return path


def _clips_in(root: Path, action: Path) -> tuple[tuple[Path, ...], list[Path]]:
    """Return the clips of an action's folder, and what is none."""
    entries = [_inside(root, path) for path in _visible(action)]
    pictures = [path for path in entries if not path.is_dir() and is_frame(path.name)]
    clips = tuple(path for path in entries if is_clip(path))
    if pictures and not clips:
        raise OwnClipsError(f"{action}: expected clips, found {len(pictures)} pictures, such as {pictures[0].name}; a "
                            f"folder of frames is one clip: {action}/clip1/{pictures[0].name}")
    return clips, [path for path in entries if path not in clips]


def _texts(path: Path, actions: Iterable[str]) -> dict[str, str]:
    """Return what is read for each action: the words of its folder's name, or those that a file gives it."""
    given = dict(read_layer(path).values) if path.is_file() else {}
    known = list(actions)
    wrong = [f"{name!r}: {'no such action' if name not in known else f'expected words, found {text!r}'}"
             for name, text in given.items() if name not in known or not isinstance(text, str) or not text.strip()]
    if wrong:
        raise OwnClipsError(f"{path}: expected 'folder: words' for folders of this directory ({', '.join(known)}), "
                            f"found {'; '.join(wrong[:SHOWN])}")
    return {name: given.get(name, words(name)) for name in known}


def read_actions(directory: Path, none: str = NONE) -> ActionFolders:
    """Return the actions of a folder of own clips.

    Raises OwnClipsError: there is no such folder, its videos are not in folders of actions, an action has no clip, a
    link leads out of it, or actions.yaml names something else; OSError: something cannot be read.
    """
    if not directory.is_dir():
        found_there = "a file" if directory.exists() else "nothing there"
        raise OwnClipsError(f"{directory}: expected a folder with folders of clips, one an action "
                            f"({directory}/<action>/*.mp4), found {found_there}")
    entries = [_inside(directory, path) for path in _visible(directory)]
    folders = [path for path in entries if path.is_dir()]
    loose = [path for path in entries if not path.is_dir() and path.name != TEXTS]
    found, skipped = {}, list(loose)
    for folder in folders:
        found[folder.name], others = _clips_in(directory, folder)
        skipped += others
    of_none = found.pop(none, ())
    if not found:
        videos = [path for path in loose if is_clip(path)]
        what = f"{len(videos)} videos directly in {directory}" if videos else "no folder"
        raise OwnClipsError(f"expected folders of clips, one an action: {directory}/<action>/*.mp4; found {what}"
                            + (f" (beside {none})" if of_none else ""))
    if empty := [name for name, clips in found.items() if not clips]:
        raise OwnClipsError(f"{directory / empty[0]}: expected at least one clip ({', '.join(SUFFIXES)}, or a folder "
                            "of frames), found none"
                            + (f"; nor in {len(empty) - 1} more: {', '.join(empty[1:1 + SHOWN])}" if empty[1:] else ""))
    return ActionFolders(found, of_none, _texts(directory / TEXTS, found), tuple(skipped))


def query_clips(path: Path) -> list[Path]:
    """Return the clips that a query names: a file, a folder of frames, or every clip below a folder.

    Raises OwnClipsError where there is none.
    """
    if not path.exists():
        hint = "; settings (KEY VALUE) go before the options" if re.match(r"[A-Z_]+\.[A-Z_.]+$", path.name) else ""
        raise OwnClipsError(f"{path}: expected a video or a folder of videos, found nothing there{hint}")
    if not path.is_dir() or is_clip(path):
        return [path]
    found: list[Path] = []
    waiting = [path]
    while waiting:
        for entry in _visible(waiting.pop(0)):
            if is_clip(entry):
                found.append(entry)
            elif entry.is_dir() and not entry.is_symlink():
                waiting.append(entry)
    if not found:
        raise OwnClipsError(f"{path}: expected videos ({', '.join(SUFFIXES)}) or folders of frames, found none")
    return found
