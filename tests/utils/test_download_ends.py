"""Servers that answer a byte at a time, for ever, or with addresses that are none: each download ends."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from tests.local_server import SHORT
from utils.download import Patience, fetch
from utils.errors import DownloadError

pytestmark = pytest.mark.usefixtures("no_proxy")


@pytest.fixture()
def path(tmp_path):
    return tmp_path / "new" / "f.bin"


@contextmanager
def raw(answer):
    """The address of a server that answers each connection with a function of it."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(8) as pool:
        over = threading.Event()

        def serve(connection):
            with connection, suppress(OSError):
                connection.recv(4096)
                answer(connection, over)

        def listen():
            with suppress(OSError):
                while not over.is_set():
                    pool.submit(serve, server.accept()[0])

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x"
        over.set()
        server.shutdown(socket.SHUT_RDWR)


def dripping(head: bytes, drops: bytes, pause: float = 0.05):
    def answer(connection, over):
        connection.sendall(head)
        for drop in drops:
            connection.sendall(bytes([drop]))
            if over.wait(pause):
                return

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "header": (dripping(OK + b"X: ", b"y" * 600), "no answer in the time it has"),
    "status": (dripping(b"", b"HTTP/1.1 200" + b" " * 600), "no answer in the time it has"),
    "chunk's size": (dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 600), "not whole after 2 s"),
    "body of no length": (dripping(OK + b"\r\n", b"z" * 60000, 0.002), "fewer than 1024|not whole after 2 s"),
    "fast enough": (dripping(OK + b"Content-Length: 99999999\r\n\r\n", b"z" * 60000, 0.0005),
                    "not whole after 2 s|fewer"),
}


@pytest.mark.parametrize("manner", ENDLESS)
def test_every_download_ends(path, manner):
    answer, said = ENDLESS[manner]
    patience = Patience(connect_s=1, stall_s=1.0, tries=2, pause_s=0.01, answer_s=0.6, all_s=2, slow=64)
    started = time.monotonic()
    with raw(answer) as address, pytest.raises(DownloadError, match=f"{address}: cannot be downloaded: .*({said})"):
        fetch(address, path, None, patience=patience)
    assert time.monotonic() - started < 20 and not path.exists()


@pytest.mark.parametrize("place", ["http://[::1", "http://a:99999/", "http://\udcff", "x" * 70000, "http://a b/", "//",
                                   ""])
def test_an_address_that_is_none_is_told(path, place):
    head = b"HTTP/1.1 302 F\r\nLocation: " + place.encode("utf-8", "surrogateescape") + b"\r\nContent-Length: 0\r\n\r\n"
    answer = lambda connection, over: connection.sendall(head)  # noqa: E731
    with raw(answer) as address, pytest.raises(DownloadError, match="cannot be downloaded"):
        fetch(address, path, None, patience=SHORT)
