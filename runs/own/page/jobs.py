"""Does the model's work for the page in one thread: looks at videos, learns the folder anew, answers questions.

This one thread decodes, computes and starts the processes that open files, so that none of them is forked in the middle
of a computation. What a browser waits for (a look at an upload) goes before everything else, also inside a long video.
"""

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from runs.own.actions import Actions
from runs.own.clips import read_clips
from runs.own.learning import encoded
from runs.own.page.files import ClipFolder, Refused
from runs.own.page.looks import SECONDS, Look, Stretch, Wanted, cut_out, look_at
from runs.own.page.queries import Query
from runs.own.recognizer import Recognizer
from runs.own.results import Answer, Check
from runs.preparing.pool import Failure, guarded
from utils.cores import cores
from utils.errors import FewShotError, VideoDecodeError, described

FRAMES_OF_A_CLIP = 4  # in its strip
LOOKS_AT_ONCE = 8
SECONDS_TO_END = 60.0  # what the model is at when the page ends: one clip, one cell of a long video
MOST_QUERIES = 12  # older ones are forgotten


class _Dropped(Exception):
    """The video under way has been removed, or the page ends."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Says what is being done, and how much of it is done (0 to 1; None: that is not known)."""

    text: str
    share: float | None = None


class Jobs:
    """Holds what the model has made of a folder, and the thread that does it.

    Args:
        folder: the clips. model: what sees them. ended: called where the thread ends of an error.
    """

    def __init__(self, folder: ClipFolder, model: Recognizer, ended: Callable[[], None]):
        self.folder, self.model, self._ended = folder, model, ended
        self.actions: Actions | None = None
        self.check: Check | None = None
        self.of_none: dict[str, Answer] = {}
        self.problem: str | None = None
        self.busy: Busy | None = None
        self.queries: list[Query] = []
        self.version = time.time_ns() // 1_000_000  # grows over restarts, too
        self.closing = False
        self._looks: dict[tuple[Path, int, int], Look | None] = {}
        self._urgent: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._asked: deque[Query] = deque()
        self._to_learn = True
        self._resting = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """End the thread after the clip or the cell that it is at, and after so many seconds what it has started.

        A thread that computes while Python ends aborts the process, so this waits for it once more.
        """
        with self._wake:
            self.closing = True
            self._wake.notify_all()
        self._thread.join(seconds)
        for process in multiprocessing.active_children():  # one that hangs would be waited for at the end
            process.kill()
        self._thread.join(SECONDS_TO_END)

    def at_work(self) -> Busy | None:
        """Return what is being done; None: everything that was asked for is done."""
        with self._wake:
            waiting = self._to_learn or self._asked or self._urgent
            return None if self._resting and not waiting else self.busy or Busy("one moment")

    def changed(self) -> None:
        """Tell pages that there is something new."""
        with self._wake:
            self.version += 1

    # What the routes ask for.

    def look(self, path: Path, frames: int) -> "Future[Look]":
        """Look at a video before anything else; the future raises VideoDecodeError."""
        return self._soon(lambda: self._look(path, frames))

    def cut(self, stretch: Stretch) -> "Future[None]":
        """Cut a stretch out of a video before anything else; the future raises VideoDecodeError."""
        return self._soon(lambda: self._cut(stretch))

    def _soon(self, work: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._wake:
            self._urgent.append((future, work))
            self._wake.notify_all()
        return future

    def learn(self) -> None:
        """Learn the folder anew: it has changed."""
        with self._wake:
            self._to_learn = True
            self.changed()
            self._wake.notify_all()

    def ask(self, query: Query) -> None:
        """Answer a query, for the first time or again."""
        with self._wake:
            query.answer, query.seen, query.stale = None, None, False
            if query not in self.queries:
                self.queries.append(query)
            self._asked.append(query)
            for old in self.queries[:-MOST_QUERIES]:
                self.forget(old)
            self.changed()
            self._wake.notify_all()

    def forget(self, query: Query) -> None:
        """Remove a query and its file; what is done for it ends."""
        with self._wake:
            with suppress(ValueError):
                self.queries.remove(query)
            query.path.unlink(missing_ok=True)
            self.changed()

    def query(self, wanted: str) -> Query:
        """Return the query of an id. Raises Refused."""
        if found := [query for query in self.queries if query.id == wanted]:
            return found[0]
        raise Refused(404, "this video is not asked about any more")

    def look_of(self, path: Path) -> Look | None:
        """Return what was seen of a clip; None: nothing yet, or it cannot be opened."""
        return self._looks.get(self.key_of(path))

    @staticmethod
    def key_of(path: Path) -> tuple[Path, int, int]:
        """Return what tells a file from an earlier one of its name: path, time, size."""
        with suppress(OSError):
            return path, (facts := path.stat()).st_mtime_ns, facts.st_size
        return path, 0, 0

    # The thread.

    def _run(self) -> None:
        try:
            while not self.closing:
                self._do_urgent()
                with suppress(_Dropped):
                    self._next()
        finally:
            if not self.closing:
                self._ended()

    def _do_urgent(self) -> None:
        while self._urgent:
            future, work = self._urgent.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except FewShotError as error:
                    future.set_exception(error)

    def _next(self) -> None:
        """Do one piece of work, or wait for one."""
        unseen = [clip.path for action in self.folder.actions() for clip in action.clips
                  if self.key_of(clip.path) not in self._looks]
        with self._wake:
            learn, self._to_learn = self._to_learn and not unseen, self._to_learn and bool(unseen)
            query = self._asked.popleft() if self._asked and not learn and not unseen else None
            if not (unseen or learn or query or self._urgent or self.closing):
                self.busy, self._resting = None, True
                self.changed()
                self._wake.wait()
                self._resting = False
                return
        if unseen:
            self._look_at_clips(unseen[:LOOKS_AT_ONCE], len(unseen))
        elif learn:
            self._learn()
        elif query:
            self._answer(query)

    def _tell(self, busy: Busy) -> None:
        if busy != self.busy:
            self.busy = busy
            self.changed()

    def _look(self, path: Path, frames: int) -> Look:
        found = self._looked([path], frames)[0]
        if not isinstance(found, Look):
            raise VideoDecodeError(path, found.reason)
        return found

    def _looked(self, paths: Sequence[Path], frames: int) -> list[Look | VideoDecodeError | Failure]:
        wanted = [Wanted(path, self.model.model.reading.decoder, frames) for path in paths]
        found = dict(guarded(look_at, wanted, workers=min(len(paths), cores()), limit=SECONDS))
        return [found[one] for one in wanted]

    def _cut(self, stretch: Stretch) -> None:
        [(_, found)] = guarded(cut_out, [stretch], workers=1, limit=SECONDS)
        if found is not None:
            raise VideoDecodeError(stretch.path, found.reason)

    def _look_at_clips(self, paths: Sequence[Path], count: int) -> None:
        self._tell(Busy(f"looking at {count} clip{'s' if count > 1 else ''}"))
        for key, found in zip(list(map(self.key_of, paths)), self._looked(paths, FRAMES_OF_A_CLIP), strict=True):
            self._looks[key] = found if isinstance(found, Look) else None
        self.changed()

    def _learn(self) -> None:
        """Learn the folder, and answer again what can be answered without another look at a video."""
        self._tell(Busy("learning"))
        actions, check, problem, of_none = None, None, None, {}
        if any(action.clips for action in self.folder.actions()[:-1]):
            try:
                actions = self.model.learn(self.folder.root, progress=partial(self._at, "learning"))
                check = actions.check()
                of_none = {one.clip.name: actions.answer(one) for one in actions.of_none}
            except (FewShotError, OSError) as error:
                actions, problem = None, str(error) if isinstance(error, FewShotError) else described(error)
        if self._to_learn:  # the folder has changed meanwhile, which may be what went wrong
            return
        self.actions, self.check, self.problem, self.of_none = actions, check, problem, of_none
        for query in list(self.queries):
            self._answer_again(query)
        self.changed()

    def _answer_again(self, query: Query) -> None:
        if query.answer is None or query.answer.error is not None:
            return
        if self.actions is None or query.seen is None or self.actions.is_long(query.look.seconds):
            query.stale = True
        else:
            query.answer, query.stale = self.actions.answer(query.seen), False

    def _answer(self, query: Query) -> None:
        """Answer a query as Actions.answers does."""
        if query not in self.queries:
            return
        if self.actions is None:
            query.answer = Answer(query.name, error="there are no actions to compare it with")
            return
        self._tell(Busy(f"watching {query.name}"))
        try:
            query.answer = self._answered(query, self.actions)
        except (VideoDecodeError, OSError) as error:
            reason = error.reason if isinstance(error, VideoDecodeError) else described(error)
            query.answer = Answer(query.name, error=reason)
        self.changed()

    def _answered(self, query: Query, actions: Actions) -> Answer:
        [(_, clip)] = read_clips([query.path], actions.model.reading, 1, "asking")
        if isinstance(clip, VideoDecodeError):
            raise clip
        if actions.is_long(clip.seconds):
            return actions.timeline_answer(query.path, query.name, clip.seconds,
                                           progress=lambda done: self._watched(query, done / clip.seconds))
        query.seen = replace(encoded(actions.model, query.name, None, clip), pixels=None)
        return actions.answer(query.seen)

    def _watched(self, query: Query, share: float) -> None:
        if query not in self.queries:
            raise _Dropped
        self._at(f"watching {query.name}", share)

    def _at(self, text: str, share: float) -> None:
        """Tell how much of something long is done; do meanwhile what cannot wait. Raises _Dropped at the page's end."""
        self._tell(Busy(text, round(min(share, 1.0), 2)))
        self._do_urgent()
        if self.closing:
            raise _Dropped
