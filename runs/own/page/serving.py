"""Carries out the command serve: take the folder, load the model, find a port, serve until Ctrl-C."""

import argparse
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import webbrowser

import uvicorn

from runs.own.page.app import Page, make_app
from runs.own.page.files import ClipFolder
from runs.own.page.guard import Guard
from runs.own.page.jobs import Jobs
from runs.own.predicting import source_of
from runs.own.recognizer import Recognizer
from utils.errors import OwnClipsError
from utils.lock import close_in_children
from utils.signals import Stopped, handling

TRIED_PORTS = 50
HOST = "127.0.0.1"  # and no other: whoever wants to reach it from elsewhere takes an SSH tunnel
SECONDS_TO_END, MOST_REQUESTS = 2, 100


def bound(port: int) -> socket.socket:
    """Return a socket that listens at a port of this machine, or at the next free one. Raises OwnClipsError."""
    for number in range(port, min(port + TRIED_PORTS, 65536)):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((HOST, number))
            made.listen(64)
            return made
        except OSError:
            made.close()
    raise OwnClipsError(f"--port: none of {port} to {port + TRIED_PORTS - 1} is free on {HOST}")


class PageServer(uvicorn.Server):
    """Serves the page of a folder from the moment it is made: requests wait until `run`.

    Args:
        folder: the clips. model: what sees them. port: see `bound`. upload: most bytes of a video.
    """

    def __init__(self, folder: ClipFolder, model: Recognizer, port: int, upload: int):
        self.listening, self.failed = bound(port), False
        close_in_children(self.listening)
        self.port, token = self.listening.getsockname()[1], secrets.token_urlsafe(24)
        self.jobs = Jobs(folder, model, self._end)
        self.page = Page(folder, self.jobs, upload)
        self.address = f"http://{HOST}:{self.port}/?token={token}"
        folder.held_by(f"http://{HOST}:{self.port}")
        super().__init__(uvicorn.Config(
            Guard(make_app(self.page), self.port, token), log_level="error", access_log=False, server_header=False,
            proxy_headers=False, lifespan="off", http="h11", ws="none", timeout_graceful_shutdown=SECONDS_TO_END,
            limit_concurrency=MOST_REQUESTS))

    def _end(self) -> None:
        """End because the thread of the model has ended."""
        self.failed = self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, and tell pages that wait for news so."""
        self.page.closing = True
        await super().shutdown(sockets)

    def serve_page(self) -> int:
        """Serve until a signal comes, or `should_exit` is set; returns the exit status. Raises KeyboardInterrupt."""
        hung_up = threading.Event()

        def hang_up(*_: object) -> None:  # as uvicorn heeds SIGINT and SIGTERM
            hung_up.set()
            self.should_exit = True

        def goes_on(_: logging.LogRecord) -> bool:
            return not self.page.closing

        self.jobs.start()
        logger = logging.getLogger("uvicorn.error")
        logger.addFilter(goes_on)  # what the end cuts off is no error
        try:
            with handling([signal.SIGHUP], hang_up):
                self.run(sockets=[self.listening])
        finally:
            self.jobs.close()
            logger.removeFilter(goes_on)
        if hung_up.is_set():
            raise Stopped(signal.SIGHUP)
        return int(self.failed)


def _open(address: str) -> None:
    """Open the browser, where there is a screen."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def serve(parsed: argparse.Namespace) -> int:
    """Serve the page; returns the exit status. Raises FewShotError, KeyboardInterrupt."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    folder = ClipFolder(parsed.dir, int(parsed.max_folder * 1e9))
    try:
        model = Recognizer.of(source_of(parsed))
        server = PageServer(folder, model, parsed.port, int(parsed.max_upload * 1e6))
        if parsed.port not in (0, server.port):
            sys.stderr.write(f"port {parsed.port} is taken; this is {server.port}\n")
        sys.stdout.write(f"model {model.name}\nopen {server.address}\nCtrl-C ends it; nothing leaves this machine\n")
        sys.stdout.flush()
        if not parsed.no_browser:
            _open(server.address)
        return server.serve_page()
    finally:
        folder.close()
