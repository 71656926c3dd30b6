"""Carries out the command serve: take the folder, load the model, find a port, serve until Ctrl-C."""

import argparse
import logging
import os
import secrets
import socket
import sys
import threading
import webbrowser

import uvicorn

from runs.own.page.app import Limits, Page, make_app
from runs.own.page.files import ClipFolder
from runs.own.page.guard import Guard
from runs.own.page.jobs import Jobs
from runs.own.predicting import source_of
from runs.own.recognizer import Recognizer
from utils.errors import OwnClipsError

TRIED_PORTS = 50
HOST = "127.0.0.1"  # and no other: whoever wants to reach it from elsewhere takes an SSH tunnel
SECONDS_TO_END = 2


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


class _Server(uvicorn.Server):
    """A server that tells waiting pages that it ends."""

    page: Page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.page.closing = True
        await super().shutdown(sockets)


def _open(address: str) -> None:
    """Open the browser, where there is a screen."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def serve(parsed: argparse.Namespace) -> int:
    """Serve the page; returns the exit status. Raises FewShotError, KeyboardInterrupt."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    folder = ClipFolder(parsed.dir, int(parsed.max_folder * 1e9))
    try:
        return _serve(parsed, folder, Recognizer.of(source_of(parsed)))
    finally:
        folder.close()


def _serve(parsed: argparse.Namespace, folder: ClipFolder, model: Recognizer) -> int:
    listening, token = bound(parsed.port), secrets.token_urlsafe(24)
    port = listening.getsockname()[1]
    ended = threading.Event()

    def end() -> None:
        ended.set()
        server.should_exit = True

    jobs = Jobs(folder, model, end)
    page = Page(folder, jobs, Limits(int(parsed.max_upload * 1e6)))
    server = _Server(uvicorn.Config(Guard(make_app(page), port, token), log_level="error", access_log=False,
                                    server_header=False, proxy_headers=False, lifespan="off", http="h11", ws="none",
                                    timeout_graceful_shutdown=SECONDS_TO_END, limit_concurrency=100))
    server.page = page
    address = f"http://{HOST}:{port}"
    folder.held_by(address)
    if parsed.port not in (0, port):
        sys.stderr.write(f"port {parsed.port} is taken; this is {port}\n")
    sys.stdout.write(f"model {model.name}\nopen {address}/?token={token}\n"
                     "Ctrl-C ends it; nothing leaves this machine\n")
    sys.stdout.flush()
    jobs.start()
    if not parsed.no_browser:
        _open(f"{address}/?token={token}")
    try:
        server.run(sockets=[listening])
    finally:
        jobs.close()
    return 1 if ended.is_set() else 0
