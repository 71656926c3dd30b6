"""What strangers may try on the page: another Host, no secret, another Origin, paths, endless and absurd bodies."""

import socket
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from runs.own.page import looks
from tests.runs.own.page.served import SPECS, render, served, visible

READ = ["/", "/page.js", "/state", "/pack", "/results.json", "/media/0", "/strip/0", "/nothing"]
WRITE = [("POST", "/actions"), ("PATCH", "/actions/0"), ("DELETE", "/actions/0"), ("PUT", "/clips/0"),
         ("DELETE", "/clips/0"), ("PUT", "/query"), ("POST", "/query/0"), ("POST", "/query/0/none"),
         ("POST", "/query/0/keep"), ("POST", "/undo")]


@pytest.fixture(scope="module")
def small(clips, model, tmp_path_factory):
    """A page that takes 200 kB a video and 1 MB in all; nothing here may change its folder."""
    root = tmp_path_factory.mktemp("attacked") / "my_actions"
    for name in SPECS:
        render(root / name / "0.mp4", SPECS[name], 1)
        render(root / name / "1.mp4", SPECS[name], 2)
    with served(root, model, most_bytes=10**6, upload=200_000) as client:
        client.settled()
        client.root = root
        yield client


@pytest.fixture(autouse=True)
def _folder_as_before(small):
    before = visible(small.root)
    yield
    assert visible(small.root) == before and not list(small.root.glob(".upload_*"))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1",
                                  "127.0.0.1.evil.example", "localhost:{port}.evil.example", "0.0.0.0:{port}", ""])
def test_another_host(small, host):
    for path in READ:
        assert small.raw("GET", path, Host=host.format(port=small.port))[0] == 421
    for method, path in WRITE:
        assert small.raw(method, path, b"{}", Host=host.format(port=small.port))[0] == 421


def test_our_own_names(small):
    for host in ("127.0.0.1", "localhost", "[::1]", "LOCALHOST"):
        assert small.raw("GET", "/state", Host=f"{host}:{small.port}")[0] == 200


def test_no_secret(small):
    other = f"clip_fsar_{small.port}="
    for cookie in (None, other, f"{other}{small.token}x", f"{other}{small.token[:-1]}", f"x={small.token}", "\xff"):
        for path in [*READ, "/?token=", "/?token=wrong", f"/state?token={small.token}", f"/pack?token={small.token}"]:
            status, headers, body = small.raw("GET", path, Cookie=cookie)
            assert status == 403 and "Set-Cookie" not in headers and b"whole address" in body
        for method, path in WRITE:
            assert small.raw(method, f"{path}?token={small.token}", b"{}", Cookie=cookie)[0] == 403


def test_the_printed_address_gives_the_cookie(small):
    status, headers, body = small.raw("GET", f"/?token={small.token}", Cookie=None)
    assert status == 200 and b"<title>" in body
    assert headers["Set-Cookie"] == f"clip_fsar_{small.port}={small.token}; HttpOnly; SameSite=Strict; Path=/"


def test_another_origin(small):
    for origin in (None, "null", "http://evil.example", f"https://127.0.0.1:{small.port}", "http://127.0.0.1:1",
                   f"http://localhost:{small.port}", f"http://127.0.0.1:{small.port}.evil.example"):
        for method, path in WRITE:
            assert small.raw(method, path, b"{}", Origin=origin)[0] == 403
    status, headers, _ = small.raw("OPTIONS", "/clips/0", Origin="http://evil.example",
                                   **{"Access-Control-Request-Method": "PUT"})
    assert status == 403 and not [name for name in headers if name.lower().startswith("access-control")]


def test_every_answer_has_the_policy(small):
    for path, cookie in [("/", small.headers["Cookie"]), ("/state", None), ("/nothing", small.headers["Cookie"])]:
        headers = small.raw("GET", path, Cookie=cookie)[1]
        assert "default-src 'none'" in headers["Content-Security-Policy"] and "unsafe" not in str(headers)
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "../../etc/passwd", "..", "con", "NUL",
                                  "C:%5cwindows", "%00", "spin%2f0.mp4", "spin", ".page.lock", "." * 5000, "%ff"])
def test_paths_are_no_ids(small, path):
    for place in ("media", "strip"):
        assert small.raw("GET", f"/{place}/{path}")[0] == 404
    for method, place, body in (("DELETE", "clips", None), ("PUT", "clips", b"x"), ("DELETE", "actions", None),
                                ("PATCH", "actions", b'{"name": "x"}'), ("POST", "query", None)):
        assert small.raw(method, f"/{place}/{path}", body)[0] in (404, 405)


def test_names_of_actions(small):
    for name in ("../x", "a/b", "con", ".x", "x" * 61, "", None, {"a": 1}):
        assert small.json("POST", "/actions", {"name": name})[0] == 400
    for body in (b"", b"[]", b"{", b"\xff", b'"name"'):
        assert small.json("POST", "/actions", body)[0] == 400
    assert small.json("POST", "/actions", b'{"name": "' + b"x" * 5000)[0] == 413


def test_too_large(small, clips):
    target = f"/clips/{small.action('spin')['id']}"
    for length in ("201000000", "9" * 19, "200001"):
        status, answer = small.json("PUT", target, b"x", **{"Content-Length": length})
        assert status == 413 and "at most 0.2 MB" in answer["error"]


def test_an_endless_body(small):
    target = f"/clips/{small.action('spin')['id']}"
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as line:
        line.sendall((f"PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{small.port}\r\nCookie: {small.headers['Cookie']}\r\n"
                      f"Origin: {small.headers['Origin']}\r\nTransfer-Encoding: chunked\r\n\r\n").encode())
        sent = 0
        try:
            while sent < 50_000_000:
                line.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                sent += 0x10000
        except OSError:
            pass
        assert sent < 50_000_000, "the server must hang up"
    assert small.raw("GET", "/state")[0] == 200


def test_a_body_that_does_not_tell_its_length(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as line:
        line.sendall((f"PUT /query HTTP/1.1\r\nHost: 127.0.0.1:{small.port}\r\nCookie: {small.headers['Cookie']}\r\n"
                      f"Origin: {small.headers['Origin']}\r\nTransfer-Encoding: chunked\r\n\r\n").encode()
                     + b"30d41\r\n" + bytes(200_001) + b"\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_body_that_stops_coming(small, monkeypatch):
    monkeypatch.setattr("runs.own.page.app.STALL_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as line:
        line.sendall((f"PUT /query HTTP/1.1\r\nHost: 127.0.0.1:{small.port}\r\nCookie: {small.headers['Cookie']}\r\n"
                      f"Origin: {small.headers['Origin']}\r\nContent-Length: 1000\r\n\r\nabc").encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_browser_that_goes_away(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=30) as line:
        line.sendall((f"PUT /query HTTP/1.1\r\nHost: 127.0.0.1:{small.port}\r\nCookie: {small.headers['Cookie']}\r\n"
                      f"Origin: {small.headers['Origin']}\r\nContent-Length: 1000\r\n\r\nabc").encode())
    assert not small.settled()["queries"]


def test_a_full_folder(small):
    filler = small.root / ".trash" / "filler"
    filler.parent.mkdir(exist_ok=True)
    filler.write_bytes(bytes(10**6))
    try:
        status, answer = small.json("PUT", f"/clips/{small.action('spin')['id']}", b"x")
        assert status == 507 and "--max-folder" in answer["error"]
        filler.write_bytes(bytes(850_000))
        status, answer = small.json("PUT", f"/clips/{small.action('spin')['id']}", bytes(180_000))
        assert status == 507
    finally:
        filler.unlink()


def test_a_thousand_ranges(small):
    clip = small.action("spin")["clips"][0]["id"]
    assert small.raw("GET", f"/media/{clip}", Range="bytes=" + ",".join(["0-1"] * 1000))[0] == 416
    assert small.raw("GET", f"/media/{clip}", Range="bytes=" + "x" * 200)[0] in (400, 416)


def _absurd(path: Path) -> bytes:
    """An AVI whose header says 100,000 x 100,000."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("huffyuv", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv422p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    at = content.index(b"strf") + 12
    content[at:at + 8] = struct.pack("<ii", 100_000, 100_000)
    return bytes(content)


def test_pictures_of_absurd_size(small, clips, tmp_path, monkeypatch):
    status, answer = small.json("PUT", "/query?name=bomb.avi", _absurd(tmp_path / "bomb.avi"))
    assert status == 415 and answer["error"].startswith("cannot be read")
    monkeypatch.setattr(looks, "MOST_PIXELS", 63 * 64)  # the process that looks is forked from this one
    status, answer = small.json("PUT", "/query?name=large.mp4", (clips / "query" / "spin.mp4").read_bytes())
    assert status == 415 and "its pictures are 64 x 64" in answer["error"]


def test_a_video_that_is_too_long_hangs_or_crashes_its_reader(small, clips, monkeypatch):
    video = (clips / "query" / "spin.mp4").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("runs.own.page.app.MOST_SECONDS", 1.0)
        status, answer = small.json("PUT", "/query", video)
        assert status == 413 and "minutes" in answer["error"]
    with monkeypatch.context() as patched:
        patched.setattr(looks, "open_video", lambda *_: threading.Event().wait())
        patched.setattr("runs.own.page.jobs.SECONDS", 0.5)
        status, answer = small.json("PUT", "/query", video)
        assert status == 415 and "no end of decoding" in answer["error"]
    with monkeypatch.context() as patched:
        patched.setattr(looks, "open_video", lambda *_: np.empty(3 << 30, np.uint8))  # more than the process may take
        status, answer = small.json("PUT", "/query", video)
        assert status == 415 and "cannot be opened" in answer["error"]
    assert not small.settled()["queries"]
