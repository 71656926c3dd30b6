"""Answers the page's requests; each route checks what it is given, and leaves the work to jobs.py and files.py."""

import asyncio
import contextlib
import errno
import json
import math
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from runs.own.actions import same_clip
from runs.own.clips import content_hash
from runs.own.outputs import as_csv, as_json
from runs.own.page.files import ASKED, PART, ClipFolder, Refused
from runs.own.page.jobs import FRAMES_OF_A_CLIP, Jobs
from runs.own.page.looks import Look, Stretch, suffix_of
from runs.own.page.queries import Query
from runs.own.page.view import state
from runs.own.predicting import model_facts
from utils.command import printable
from utils.errors import DiskError, FewShotError, VideoDecodeError

ROOM = Path(__file__).parent
POLL_SECONDS, STALL_SECONDS, STEP = 20.0, 30.0, 0.05
MOST_SECONDS, LONGEST_STRETCH = 600.0, 60.0  # of a video; of what is cut out of one
MOST_JSON, LONGEST_LABEL = 4096, 120
HEAD = 256  # first bytes of a file, which tell its kind


async def _words_of(request: Request) -> dict[str, Any]:
    """Return the small JSON object that a request brings. Raises Refused."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_JSON:
            raise Refused(413, f"expected at most {MOST_JSON} bytes of JSON")
    try:
        given = json.loads(body)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise Refused(400, "expected a JSON object")
    return given


class Page:
    """Holds the routes of one folder's page. most_bytes: of an upload."""

    def __init__(self, folder: ClipFolder, jobs: Jobs, most_bytes: int):
        self.folder, self.jobs, self.most_bytes = folder, jobs, most_bytes
        self.closing, self.poll_seconds = False, POLL_SECONDS

    # Reading

    async def state(self, request: Request) -> Response:
        """Give everything that is shown, as soon as it is newer than `after`, or after POLL_SECONDS."""
        after, steps = request.query_params.get("after", ""), int(self.poll_seconds / STEP)
        while after == str(self.jobs.version) and steps and not self.closing:
            await asyncio.sleep(STEP)
            steps -= 1
        shown = await run_in_threadpool(state, self.jobs, {"upload": self.most_bytes, "seconds": MOST_SECONDS})
        return JSONResponse(shown)

    def _place(self, wanted: str) -> tuple[Path, Look | None]:
        """Return the file of a clip or a query, and its look. Raises Refused."""
        for query in list(self.jobs.queries):
            if query.id == wanted:
                return query.path, query.look
        path = self.folder.clip(wanted).path
        return path, self.jobs.look_of(path)

    def media(self, request: Request) -> Response:
        """Give a video, whole or by ranges."""
        path, _ = self._place(request.path_params["id"])
        if not path.is_file():
            raise Refused(404, "this clip is a folder of frames; there is nothing to play")
        return FileResponse(path, stat_result=os.stat(path))

    def strip(self, request: Request) -> Response:
        """Give a few frames of a video, side by side."""
        _, look = self._place(request.path_params["id"])
        if look is None:
            raise Refused(404, "no frames of it have been seen yet")
        return Response(look.strip, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def pack(self, request: Request) -> Response:
        """Give the actions as a pack, as predict.py --save writes it."""
        if (actions := self.jobs.actions) is None:
            raise Refused(409, "there are no actions to save yet")
        with tempfile.TemporaryDirectory() as folder:
            actions.save(made := Path(folder) / "made.pack")
            content = made.read_bytes()
        name = quote(f"{self.folder.root.resolve().name}.pack")
        return Response(content, media_type="application/octet-stream",
                        headers={"Content-Disposition": f"attachment; filename*=utf-8''{name}"})

    def results(self, request: Request) -> Response:
        """Give what was answered, as predict.py --out writes it."""
        actions, check = self.jobs.actions, self.jobs.check
        if actions is None or check is None:
            raise Refused(409, "there are no results yet")
        answers = [query.answer for query in self.jobs.queries if query.answer is not None and not query.stale]
        ending = request.url.path.rsplit(".", 1)[-1]
        if ending == "csv":
            text, kind = as_csv(answers, actions.names), "text/csv"
        else:
            text, kind = as_json(check, model_facts(actions.model), answers), "application/json"
        return Response(text, media_type=kind,
                        headers={"Content-Disposition": f'attachment; filename="predictions.{ending}"'})

    # Changes

    async def actions(self, request: Request) -> Response:
        """Add an action; change or remove one."""
        wanted, folder = request.path_params.get("id", ""), self.folder
        if request.method == "DELETE":
            return await self._changed(folder.remove_action, wanted)
        name = (await _words_of(request)).get("name")
        if request.method == "PATCH":
            return await self._changed(folder.rename, wanted, name)
        return await self._changed(folder.create, name)

    async def remove_clip(self, request: Request) -> Response:
        """Move a clip to the trash."""
        return await self._changed(self.folder.remove_clip, request.path_params["id"])

    async def undo(self, request: Request) -> Response:
        """Take back the last removal or change of a name."""
        return await self._changed(self.folder.undo)

    async def _changed(self, change: Callable[..., str | None], *given: object) -> Response:
        made = await run_in_threadpool(change, *given)
        self.jobs.learn()
        return JSONResponse({"id": made})

    async def add_clip(self, request: Request) -> Response:
        """Take a clip of an action: 202 once it has been opened; the model learns it afterwards."""
        action = self.folder.action(request.path_params["id"]).id
        async with self._received(request, FRAMES_OF_A_CLIP) as (part, suffix, _):
            known, digest = self.jobs.actions, await run_in_threadpool(content_hash, part)
            if known and (same := same_clip([*known.clips, *known.of_none], digest)):
                raise Refused(409, f"the same video as {same}; a video can be an example once")
            clip = await run_in_threadpool(self.folder.keep, part, action, suffix)
        self.jobs.learn()
        return JSONResponse({"id": clip.id}, 202)

    async def add_query(self, request: Request) -> Response:
        """Take a video that is asked about."""
        label = request.query_params.get("name", "").replace("\\", "/").rsplit("/", 1)[-1]
        async with self._received(request, self.jobs.model.model.reading.frames) as (part, suffix, look):
            name = secrets.token_hex(8)
            (self.folder.root / ASKED).mkdir(exist_ok=True)
            path = part.rename(self.folder.root / ASKED / f"{name}{suffix}")
            self.jobs.ask(Query(name, printable(label[:LONGEST_LABEL], "") or "video", path, look))
        return JSONResponse({"id": name}, 202)

    async def query(self, request: Request) -> Response:
        """Answer a video again, or forget it."""
        query = self.jobs.query(request.path_params["id"])
        (self.jobs.forget if request.method == "DELETE" else self.jobs.ask)(query)
        return JSONResponse({"id": query.id})

    async def keep_query(self, request: Request) -> Response:
        """Make a video that was asked about a clip of an action, or of none."""
        query = self.jobs.query(request.path_params["id"])
        action = self.folder.action(str((await _words_of(request)).get("action"))).id
        clip = await run_in_threadpool(self.folder.keep, query.path, action, query.path.suffix)
        self.jobs.forget(query)
        self.jobs.learn()
        return JSONResponse({"id": clip.id}, 202)

    async def none_of_them(self, request: Request) -> Response:
        """Cut a stretch out of a video that is asked about, for the clips of none, and answer the video again."""
        query, given = self.jobs.query(request.path_params["id"]), await _words_of(request)
        start, end = (one if isinstance(one, (int, float)) else math.nan for one in map(given.get, ("start", "end")))
        if not 0 <= start < end <= query.look.seconds + 1:
            raise Refused(400, "expected a stretch of this video")
        if (beyond := end - start - LONGEST_STRETCH) > 0:  # its middle says as much
            start, end = start + beyond / 2, end - beyond / 2
        self.folder.room()
        with self._part() as part:
            try:
                await asyncio.wrap_future(self.jobs.cut(Stretch(query.path, part, start, end)))
            except VideoDecodeError as error:
                raise Refused(415, error.reason) from error
            clip = await run_in_threadpool(self.folder.keep, part, self.folder.actions()[-1].id, ".mp4")
        self.jobs.learn()
        self.jobs.ask(query)
        return JSONResponse({"id": clip.id}, 202)

    @contextlib.contextmanager
    def _part(self) -> Iterator[Path]:
        """Give the name of a hidden file, which is gone at the end of the block unless it was moved. Raises Refused."""
        part = self.folder.root / f"{PART}{secrets.token_hex(8)}"
        try:
            yield part
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise Refused(507, f"the disk is full ({os.strerror(error.errno)})") from error
        finally:
            part.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def _received(self, request: Request, frames: int) -> AsyncIterator[tuple[Path, str, Look]]:
        """Give a body as a hidden file that has been opened, its suffix, and what was seen; the block moves it away.

        Raises Refused: too large, no room, or no video.
        """
        with self._part() as part:
            await self._save(request, part)
            with part.open("rb") as file:
                suffix = suffix_of(file.read(HEAD))
            if suffix is None:
                raise Refused(415, "this is no video that is taken here (MP4, MOV, WebM, MKV, AVI, MPEG)")
            try:
                look = await asyncio.wrap_future(self.jobs.look(part, frames))
            except VideoDecodeError as error:
                raise Refused(415, f"cannot be read: {error.reason}") from error
            if look.seconds > MOST_SECONDS:
                raise Refused(413, f"it lasts {look.seconds / 60:.1f} minutes; at most {MOST_SECONDS / 60:g} are taken")
            yield part, suffix, look

    async def _save(self, request: Request, part: Path) -> None:
        """Write a body to a file as it comes. Raises Refused, OSError."""
        most, too_large = self.most_bytes, Refused(413, f"at most {self.most_bytes / 1e6:g} MB a video are taken")
        if int(request.headers.get("content-length", "0")) > most:
            raise too_large
        left, got, body = await run_in_threadpool(self.folder.room), 0, request.stream()
        with part.open("xb") as file:
            while True:
                try:
                    chunk = await asyncio.wait_for(body.__anext__(), STALL_SECONDS)
                except StopAsyncIteration:
                    break
                except asyncio.TimeoutError as error:
                    raise Refused(408, f"nothing came for {STALL_SECONDS:g} s") from error
                got += len(chunk)
                if got > most:
                    raise too_large
                if got > left:
                    raise self.folder.full()
                file.write(chunk)
        if not got:
            raise Refused(400, "an empty file")


async def _refused(request: Request, error: Exception) -> Response:
    """Answer what is not done with its reason."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    status = error.status if isinstance(error, Refused) else 507 if isinstance(error, DiskError) else 500
    return JSONResponse({"error": str(error)}, status, headers={"Connection": "close"})


def _static(name: str, kind: str) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        """Give a part of the page itself."""
        return Response((ROOM / name).read_bytes(), media_type=kind)

    return answer


def routes(page: Page) -> list[Route]:
    """Return every route."""
    return [Route("/", _static("page.html", "text/html")), Route("/page.css", _static("page.css", "text/css")),
            *(Route(f"/{name}", _static(name, "text/javascript")) for name in ("page.js", "common.js", "camera.js")),
            Route("/state", page.state), Route("/media/{id}", page.media), Route("/strip/{id}", page.strip),
            Route("/pack", page.pack), Route("/results.json", page.results), Route("/results.csv", page.results),
            Route("/actions", page.actions, methods=["POST"]),
            Route("/actions/{id}", page.actions, methods=["PATCH", "DELETE"]),
            Route("/clips/{id}", page.add_clip, methods=["PUT"]),
            Route("/clips/{id}", page.remove_clip, methods=["DELETE"]),
            Route("/query", page.add_query, methods=["PUT"]),
            Route("/query/{id}", page.query, methods=["POST", "DELETE"]),
            Route("/query/{id}/keep", page.keep_query, methods=["POST"]),
            Route("/query/{id}/none", page.none_of_them, methods=["POST"]), Route("/undo", page.undo, methods=["POST"])]


def make_app(page: Page) -> Starlette:
    """Return the routes as an application, without its guard."""
    return Starlette(routes=routes(page), exception_handlers={FewShotError: _refused, ClientDisconnect: _refused})
