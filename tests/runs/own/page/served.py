"""A page that is served in this process, with a tiny tower, and what drives it as a browser would."""

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np

from datasets.demo.render import encode_clip
from datasets.demo.scenes import render_frames
from runs.own.page.files import ClipFolder
from runs.own.page.serving import PageServer
from runs.recognizer import Recognizer

SPECS = {"bounce": ("red", "moon", "bouncing"), "spin": ("yellow", "heart", "spinning"),
         "slide": ("blue", "star", "sliding left")}


def render(path: Path, spec: tuple[str, str, str], number: int, frames: int = 24, rate: int = 12) -> Path:
    """Write a rendered clip; other numbers look different."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_clip(path, render_frames(*spec, frames, 64, 64, np.random.default_rng([number, frames])), rate)
    return path


def overrides(tower: Path) -> list[str]:
    """KEY VALUE pairs of a model with a tiny random tower."""
    return ["VIDEO.HEAD.BACKBONE_NAME", str(tower), "VIDEO.HEAD.BACKBONE_WEIGHTS", "random",
            "DATA.TEST_CROP_SIZE", "32", "DATA.TRAIN_CROP_SIZE", "32", "DATA.TEST_SCALE", "32"]


class Client:
    """Asks a server; `headers` replace those of a browser that has opened the printed address."""

    def __init__(self, server: PageServer):
        self.server, self.port = server, server.port
        self.token = server.address.partition("token=")[2]
        self.headers = {"Cookie": f"clip_fsar_{self.port}={self.token}", "Origin": f"http://127.0.0.1:{self.port}"}

    def raw(self, method: str, path: str, body=None, **headers) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of an answer; a header of None is left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = {name: value for name, value in {**self.headers, **headers}.items() if value is not None}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body=None, **headers) -> tuple[int, dict]:
        """Status and content; `body` may be bytes, or an object to be sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        status, _, answer = self.raw(method, path, content, **headers)
        return status, json.loads(answer)

    def settled(self, seconds: float = 60) -> dict:
        """The state once everything is done that was asked for."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (state := self.json("GET", "/state")[1])["busy"] is None:
                return state
            time.sleep(0.05)
        raise TimeoutError(state["busy"])

    def ask(self, path: Path, name: str | None = None) -> dict:
        """The query of a video, answered."""
        status, made = self.json("PUT", f"/query?name={quote(name or path.name)}", path.read_bytes())
        assert status == 202, made
        return next(one for one in self.settled()["queries"] if one["id"] == made["id"])

    def action(self, name: str) -> dict:
        """The action of a name, or `none`."""
        state = self.json("GET", "/state")[1]
        return next(one for one in [*state["actions"], state["none"]] if one["name"] == name)


@contextmanager
def served(root: Path, model: Recognizer, most_bytes: int = 10**9, upload: int = 10**8) -> Iterator[Client]:
    """A client of a page on a folder, while the block lasts."""
    folder = ClipFolder(root, most_bytes)
    server = PageServer(folder, model, 0, upload)
    thread = threading.Thread(target=server.serve_page)
    thread.start()
    try:
        yield Client(server)
    finally:
        server.should_exit = True
        thread.join(20)
        folder.close()
        assert not thread.is_alive() and not server.failed
        assert "model" not in [one.name for one in threading.enumerate()]  # it would abort the end of a process


def visible(root: Path) -> list[str]:
    """What a person sees in a folder."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*")
                  if path.is_file() and not re.search(r"(^|/)\.", str(path.relative_to(root))))
