"""Holds the folder behind the page: its actions and clips by id, and what the page may do to them.

The folder is the state. An id is a hash of names, so no path ever comes from a browser; files get names of their own
(clip_0007.mp4). What is removed goes to `.trash/`; an upload is a hidden file until it has been opened.
"""

import hashlib
import os
import re
import socket
import threading
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from runs.own.folders import NONE, TEXTS, is_clip, words
from utils.errors import FewShotError, OwnClipsError
from utils.files import give_name
from utils.lock import NO_LOCKS, lock_file

LOCK, TRASH, ASKED, PART = ".page.lock", ".trash", ".asked", ".upload_"
LONGEST_NAME = 60
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_NUMBER = re.compile(r"clip_(\d+)")


class Refused(FewShotError):
    """Something the page was asked to do and does not do: the status of HTTP, and the reason in words."""

    def __init__(self, status: int, reason: str):
        self.status, self.reason = status, reason
        super().__init__(reason)


def id_of(*names: str) -> str:
    """Return the id of what lies under these names."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]


def checked_name(given: object) -> str:
    """Return a name that can be a folder's on any system. Raises Refused."""
    name = unicodedata.normalize("NFC", given).strip() if isinstance(given, str) else ""
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise Refused(400, f"a name has 1 to {LONGEST_NAME} printable characters")
    if re.search(r"[/\\:]", name) or name.startswith(".") or name.endswith("."):
        raise Refused(400, "a name has no / \\ : and neither begins nor ends with a full stop")
    if name.partition(".")[0].strip().lower() in DEVICES or name.lower() in (NONE, TEXTS):
        raise Refused(400, f"{name!r} means something else to a computer; take another name")
    return name


@dataclass(frozen=True, slots=True)
class ClipPlace:
    """Says where a clip lies. name: as in answers, action/file."""

    id: str
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ActionPlace:
    """Says where the clips of an action lie; the last one of a folder holds those of none."""

    id: str
    name: str
    clips: tuple[ClipPlace, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """Holds a change that can be undone: what it did, and the moves that take it back."""

    words: str
    back: tuple[tuple[Path, Path], ...]


@dataclass
class ClipFolder:
    """Holds a folder of own clips for one page at a time; actions without a clip live in memory until they get one.

    Args:
        root: the folder; it is made where it is missing. most_bytes: all its files together.

    Raises OwnClipsError where another page has it.
    """

    root: Path
    most_bytes: int
    empty: list[str] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    change: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise OwnClipsError(f"{self.root}: expected a folder with folders of clips, one an action, found a file")
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock: BinaryIO | None = None
        try:
            self._lock = lock_file(self.root / LOCK)
        except BlockingIOError as error:
            holder = (self.root / LOCK).read_text(encoding="utf-8").strip() or "process unknown"
            raise OwnClipsError(f"{self.root}: another page is open on this folder ({holder}); use that one, or end "
                                "it") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        self.sweep()

    def held_by(self, address: str) -> None:
        """Write into the lock who holds the folder."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.write(f"{address}, process {os.getpid()} on {socket.gethostname()}\n".encode())
            self._lock.flush()

    def sweep(self) -> None:
        """Remove uploads that were cut off, and videos that were asked about."""
        asked = self.root / ASKED
        left = [*self.root.glob(f"{PART}*"), *self.root.glob(f".{PART}*"), *asked.glob("*")]
        for path in left:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            asked.rmdir()

    def close(self) -> None:
        """Give the folder back."""
        self.sweep()
        if self._lock is not None:
            self._lock.close()

    def _entries(self, folder: Path) -> list[Path]:
        """Return the files and folders that are to be seen in a folder; links and pipes are passed over."""
        with suppress(OSError):
            return sorted(Path(entry.path) for entry in os.scandir(folder)
                          if not entry.name.startswith(".") and (entry.is_dir(follow_symlinks=False)
                                                                 or entry.is_file(follow_symlinks=False)))
        return []

    def actions(self) -> list[ActionPlace]:
        """Return the actions in the order of their names, and at the end the clips of none of them."""
        with self.change:
            names = {path.name for path in self._entries(self.root) if path.is_dir()} - {NONE}
            return [self._action(name) for name in [*sorted(names | set(self.empty)), NONE]]

    def _action(self, name: str) -> ActionPlace:
        clips = tuple(ClipPlace(id_of(name, path.name), f"{name}/{path.name}", path)
                      for path in self._entries(self.root / name) if is_clip(path))
        return ActionPlace(id_of(name), name, clips)

    def action(self, wanted: str) -> ActionPlace:
        """Return the action of an id. Raises Refused."""
        for action in self.actions():
            if action.id == wanted:
                return action
        raise Refused(404, "there is no such action any more")

    def clip(self, wanted: str) -> ClipPlace:
        """Return the clip of an id. Raises Refused."""
        for clip in (clip for action in self.actions() for clip in action.clips):
            if clip.id == wanted:
                return clip
        raise Refused(404, "there is no such clip any more")

    def _free(self, name: str) -> str:
        if name.casefold() in {action.name.casefold() for action in self.actions()}:
            raise Refused(409, f"there is an action {name!r} already")
        return name

    def create(self, given: object) -> str:
        """Add an action, which has no clips; returns its id. Raises Refused."""
        with self.change:
            name = self._free(checked_name(given))
            if same := [one.name for one in self.actions()[:-1] if words(one.name) == words(name)]:
                raise Refused(409, f"{same[0]!r} is read as the same words")
            self.empty.append(name)
            return id_of(name)

    def rename(self, wanted: str, given: object) -> None:
        """Give an action another name. Raises Refused."""
        with self.change:
            action, name = self._own(wanted), checked_name(given)
            if name == action.name:
                return
            if name.casefold() != action.name.casefold():
                self._free(name)
            old, new = self.root / action.name, self.root / name
            if old.exists():
                old.rename(new)
                self.steps.append(_Step(f"rename {action.name} to {name}", ((new, old),)))
            self.empty = [name if one == action.name else one for one in self.empty]

    def _own(self, wanted: str) -> ActionPlace:
        """Return an action that can be renamed and removed."""
        if (action := self.action(wanted)).name == NONE:
            raise Refused(400, f"{NONE} holds clips of none of the actions; it keeps its name and its place")
        return action

    def _binned(self, path: Path) -> Path:
        """Move something to the trash; returns where it is now."""
        bins = [int(one.name) for one in (self.root / TRASH).glob("*") if one.name.isdigit()]
        target = self.root / TRASH / f"{max(bins, default=0) + 1:04d}" / path.relative_to(self.root)
        target.parent.mkdir(parents=True)
        path.rename(target)
        return target

    def remove_action(self, wanted: str) -> None:
        """Move an action with its clips to the trash. Raises Refused."""
        with self.change:
            action = self._own(wanted)
            self.empty = [name for name in self.empty if name != action.name]
            if (path := self.root / action.name).exists():
                self.steps.append(_Step(f"remove {action.name}", ((self._binned(path), path),)))

    def remove_clip(self, wanted: str) -> None:
        """Move a clip to the trash. Raises Refused."""
        with self.change:
            clip = self.clip(wanted)
            self.steps.append(_Step(f"remove {clip.name}", ((self._binned(clip.path), clip.path),)))
            with suppress(OSError):  # an action's folder without a clip is no action to predict.py
                clip.path.parent.rmdir()
                self.empty.append(clip.path.parent.name)

    @property
    def undoable(self) -> str | None:
        """Gives what `undo` would take back."""
        return self.steps[-1].words if self.steps else None

    def undo(self) -> None:
        """Take back the last removal or change of a name. Raises Refused."""
        with self.change:
            if not self.steps:
                raise Refused(409, "there is nothing to undo")
            for now, before in self.steps[-1].back:
                if before.exists() or not now.exists():
                    raise Refused(409, f"cannot undo: {before.relative_to(self.root)} is there again, or what was "
                                       "removed is gone")
                before.parent.mkdir(parents=True, exist_ok=True)
                now.rename(before)
            self.steps.pop()

    def used(self) -> int:
        """Return the bytes of all files in the folder, those in the trash too."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def room(self) -> int:
        """Return the bytes that still fit. Raises Refused where there are none."""
        if (left := self.most_bytes - self.used()) <= 0:
            raise self.full()
        return left

    def full(self) -> Refused:
        """Return the refusal of what does not fit any more."""
        return Refused(507, f"the folder may hold {self.most_bytes / 1e9:g} GB (--max-folder), and this does not fit; "
                            f"what was removed lies in {TRASH}/ and can be deleted there")

    def keep(self, part: Path, wanted: str, suffix: str) -> ClipPlace:
        """Give an upload that has been opened its name among the clips of an action. Raises Refused, OSError."""
        with self.change:
            action = self.action(wanted)
            numbers = [int(found[1]) for found in map(_NUMBER.match, (
                name for _, folders, files in os.walk(self.root) for name in (*folders, *files))) if found]
            path = self.root / action.name / f"clip_{max(numbers, default=0) + 1:04d}{suffix}"
            path.parent.mkdir(exist_ok=True)
            give_name(part, path)
            self.empty = [name for name in self.empty if name != action.name]
            return ClipPlace(id_of(action.name, path.name), f"{action.name}/{path.name}", path)


