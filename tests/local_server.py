"""An HTTP server on this machine that behaves as badly as it is told to."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from utils.download import Patience

SHORT = Patience(connect_s=1, stall_s=0.3, tries=2, pause_s=0.01, lock_s=0.2, limit=1 << 20)


class Site:
    """Bodies by path, what was asked for, and the site's manners.

    Attributes:
        bodies: path (without the leading slash) to the bytes of a file.
        asked: (path, Range header or None) of every request, in order.
        manners: path to how it is answered: cut (the connection ends after `cut_at` bytes), stall (silence after
            `cut_at` bytes), drip (a byte every 50 ms), 302:<path>, any other status; absent: properly.
        times: how many requests of a path are answered so; absent: all.
        ranges: whether Range is understood. length: whether the body's length is told.
    """

    def __init__(self):
        self.bodies, self.asked, self.manners, self.times = {}, [], {}, {}
        self.ranges, self.cut_at, self.address, self.length = True, 1000, "", True

    def manner(self, path: str) -> str | None:
        """How the next request of `path` is answered."""
        left = self.times.get(path, 1)
        if path in self.times:
            self.times[path] = max(0, left - 1)
        return self.manners.get(path) if left else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Silence."""

    def do_GET(self):
        """One request."""
        site, path = self.server.site, self.path.lstrip("/")
        site.asked.append((path, self.headers.get("Range")))
        manner = site.manner(path) or ("" if path in site.bodies else "404")
        if manner.startswith("302:"):
            self._head(302, {"Location": manner[4:], "Content-Length": "0"})
        elif manner.isdigit():
            self._head(int(manner), {"Content-Length": "0"})
        else:
            self._body(site, site.bodies[path], manner)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, site: Site, body: bytes, manner: str) -> None:
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if site.ranges else None
        first = int(start[1]) if start else 0
        if start and first >= len(body):
            return self._head(416, {"Content-Length": "0"})
        headers = {"Content-Length": str(len(body) - first)} if site.length else {"Connection": "close"}
        headers |= {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"} if start else {}
        self._head(206 if start else 200, headers)
        self._send(site, body[first:], manner)
        return None

    def _send(self, site: Site, body: bytes, manner: str) -> None:
        self.close_connection = bool(manner) or not site.length
        try:
            if manner == "drip":
                for k in range(len(body)):
                    self.wfile.write(body[k:k + 1])
                    if self.server.over.wait(0.05):
                        return
                return
            self.wfile.write(body[:site.cut_at] if manner in ("cut", "stall") else body)
            if manner == "stall":
                self.server.over.wait(20)
        except OSError:
            return  # the other side gave up, as it should


@contextmanager
def local_site():
    """A Site that is served at `site.address` while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.over, server.site = True, threading.Event(), Site()
    server.site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
