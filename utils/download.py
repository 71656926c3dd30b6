"""Fetch a public file: resumed where it broke off, checked, seen under its name only when whole.

A server may stall, drip, cut a body short, lack Range support, or send something else: each ends in the file or in an
error within a bounded time. A time limit of a socket holds for one receive only, so a clock cuts the connection, too.
"""

import hashlib
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from tqdm import tqdm

from utils.errors import DownloadError, HashError
from utils.files import give_name, sha256, told_as, whole_file
from utils.lock import lock_file

_BLOCK = 1 << 16
_PROGRESS = 1 << 20  # bytes an attempt must add for the count of tries to start again
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # a retry may succeed after these


@dataclass(frozen=True, slots=True)
class Patience:
    """Say how long a download waits, in seconds, and for how much."""

    connect_s: float = 10.0
    stall_s: float = 30.0  # for the next bytes; below `slow` bytes/s over this long counts as a stall, too
    slow: int = 1024
    answer_s: float = 60.0  # until the server has answered: connected, redirected, sent its header
    all_s: float = 3600.0  # for all attempts together; the next call goes on where this one stopped
    tries: int = 4  # attempts without progress before it gives up
    pause_s: float = 0.5  # before the second attempt; doubles with each
    lock_s: float = 3600.0  # for another process that fetches the same file
    limit: int = 8 << 30  # largest body, bytes


class _Broken(Exception):
    """One attempt failed; another may not."""


class _Clock:
    """Cut the connections of a download when their time is over, whatever they are at."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._timer: threading.Timer | None = None
        self.over = False

    def allow(self, seconds: float) -> None:
        """Give the connections this much time from now; 0: the clock stops, and is theirs no more."""
        if self._timer:
            self._timer.cancel()
        if seconds:
            self._timer = threading.Timer(seconds, self._cut)
            self._timer.daemon = True
            self._timer.start()

    def watch(self, connection: socket.socket) -> socket.socket:
        """Return a new connection, and keep a second handle on it, which TLS does not take away."""
        self._sockets.append(connection.dup())
        return connection

    def _cut(self) -> None:
        self.over = True
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop, and give the handles back."""
        self.allow(0)
        for one in self._sockets:
            one.close()


def _watched(pool: urllib3.PoolManager, clock: _Clock) -> urllib3.PoolManager:
    """Let a clock watch every connection that a pool opens."""
    kinds: dict[str, Any] = {}
    for scheme, kind in pool.pool_classes_by_scheme.items():
        class Connection(kind.ConnectionCls):  # type: ignore[name-defined, misc]
            def _new_conn(self) -> socket.socket:
                return clock.watch(super()._new_conn())

        kinds[scheme] = type(kind.__name__, (kind,), {"ConnectionCls": Connection})
    pool.pool_classes_by_scheme = kinds
    return pool


def fetch(url: str, path: Path, expected: str | None = None, *, patience: Patience | None = None) -> Path:
    """Fetch `url` to `path`, with a progress bar on a terminal, and return `path`.

    With `expected`, what has arrived stays in `<name>.part` beside it: the next attempt, or the next call, asks for the
    rest only. Two processes that want the same file take turns.

    Args:
        url: http or https; redirects are followed, the proxies of the environment used.
        path: the file; its directory is made. With `expected`, a file already there and right is kept.
        expected: SHA-256 (hex) the file must have, or its first digits; None: any, and every attempt starts from the
            first byte.

    Raises HashError: the whole file came, and is another; DownloadError: unreachable, refused (status), stalled, cut
    short on every attempt, too large, or not writable.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: expected an address that starts with http:// or https://")
    patience, part = patience or Patience(), path.with_name(f"{path.name}.part")
    with _one_writer(path, patience.lock_s):
        if expected is None or not _is(path, expected):
            _fetch_part(url, part, expected, patience)
            give_name(part, path)
    return path


def copy_checked(source: Path, path: Path, expected: str) -> Path:
    """Copy a local file to `path` as `fetch` does, and return `path`.

    Raises HashError: `source` is another file; DownloadError: it cannot be read, or `path` cannot be written.
    """
    digest = hashlib.sha256()
    with told_as(DownloadError, source, "cannot be read"):
        size, file = source.stat().st_size, source.open("rb")
    with file, _one_writer(path, Patience().lock_s):
        if _is(path, expected):
            return path
        with whole_file(path) as part, part.open("wb") as copy, _bar(path.name, size) as bar:
            while block := file.read(1 << 20):
                copy.write(block)
                digest.update(block)
                bar.update(len(block))
            if not digest.hexdigest().startswith(expected):
                raise HashError(_other_file(source, expected, digest.hexdigest(), size))
    return path


@contextmanager
def _one_writer(path: Path, wait_s: float) -> Iterator[None]:
    """Let one process at a time write `path`; what the system refuses becomes a DownloadError."""
    with told_as(DownloadError, path, "cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_file(path.with_name(f"{path.name}.lock"), wait_s)
        except BlockingIOError:
            raise DownloadError(f"{path}: another process has been fetching it for over {wait_s:g} s") from None
        with lock:
            yield


def _is(path: Path, expected: str) -> bool:
    return path.is_file() and sha256(path).startswith(expected)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _other_file(origin: str | Path, expected: str, found: str, size: int) -> str:
    return f"{origin}: damaged or another file: expected SHA-256 {expected}, found {found} ({size} bytes)"


def _bar(name: str, total: int | None, have: int = 0) -> "tqdm[Any]":
    """Return a bar of bytes, rate and time left, shown on a terminal only."""
    return tqdm(total=total, initial=have, unit="B", unit_scale=True, disable=None, leave=False, desc=name)


def _fetch_part(url: str, part: Path, expected: str | None, patience: Patience) -> None:
    """Fill `part`, and check it; a resumed file of the wrong hash is fetched once more from its first byte."""
    resumed = expected is not None and _size(part) > 0
    if expected is None or not _is(part, expected):  # else an earlier call was killed just before renaming it
        _attempts(url, part, patience, resume=expected is not None)
    if expected is None or (found := sha256(part)).startswith(expected):
        return
    size = _size(part)
    part.unlink()
    if not resumed:
        raise HashError(_other_file(url, expected, found, size))
    _fetch_part(url, part, expected, patience)


def _attempts(url: str, part: Path, patience: Patience, *, resume: bool) -> None:
    """Try until the body is whole; the count starts again whenever an attempt brought the file a good bit further."""
    furthest, failed, end = _size(part), 0, time.monotonic() + patience.all_s
    with _pool(url, patience) as pool, closing(_Clock()) as clock:
        _watched(pool, clock)
        while True:
            if not resume:  # without a hash a leftover may be of another file
                part.unlink(missing_ok=True)
            clock.allow(patience.answer_s)
            reason: Exception = _Broken("")
            try:
                with _ask(pool, url, part) as response:
                    clock.allow(max(end - time.monotonic(), 0.001))
                    _read(response, url, part, patience)
                    if not clock.over:  # a connection that was cut looks like one at its end
                        return
            except (_Broken, urllib3.exceptions.HTTPError, ValueError, LookupError, AttributeError) as error:
                reason = error
            clock.allow(0)
            reason = _Broken("no answer in the time it has") if clock.over else reason
            size = _size(part)
            if clock.over and time.monotonic() >= end:
                raise DownloadError(f"{url}: cannot be downloaded: not whole after {patience.all_s:g} s ({size} bytes "
                                    "of it are here)") from reason
            clock.over = False
            failed = 0 if size >= furthest + _PROGRESS else failed + 1
            furthest = max(furthest, size)
            if failed >= patience.tries:
                raise DownloadError(f"{url}: cannot be downloaded: {_plain(reason)} ({failed} "
                                    f"attempt{'s' if failed != 1 else ''}, {size} bytes of it are here)") from reason
            time.sleep(patience.pause_s * 2 ** max(failed - 1, 0))


def _plain(error: BaseException) -> str:
    """Return the innermost reason of a chain of urllib3 errors."""
    while isinstance(reason := getattr(error, "reason", None), BaseException):
        error = reason
    return str(error) or type(error).__name__


def _pool(url: str, patience: Patience) -> urllib3.PoolManager:
    """Return connections with time limits, through the proxy that the environment names for this address."""
    limits: dict[str, Any] = {"timeout": urllib3.Timeout(connect=patience.connect_s, read=patience.stall_s),
                              "retries": urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)}
    try:
        parts, proxies = urllib3.util.parse_url(url), urllib.request.getproxies()
        proxy = proxies.get(parts.scheme or "", proxies.get("all"))
        if not proxy or urllib.request.proxy_bypass(parts.host or ""):
            return urllib3.PoolManager(**limits)
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        login = urllib3.util.parse_url(proxy).auth
        headers = urllib3.util.make_headers(proxy_basic_auth=urllib.parse.unquote(login)) if login else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **limits)
    except urllib3.exceptions.HTTPError as error:
        raise DownloadError(f"{url}: cannot be downloaded: {error}") from error


def _ask(pool: urllib3.PoolManager, url: str, part: Path) -> urllib3.BaseHTTPResponse:
    """Return the response whose body continues `part`, which is removed if the server starts from the first byte."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": "clip-fsar"} | ({"Range": f"bytes={have}-"} if have else {})
    response = pool.request("GET", url, headers=headers, preload_content=False, decode_content=False,
                            enforce_content_length=False)  # _read checks the length itself, for a clearer error
    continues = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if response.status in (200, 206, 416) and have and not continues:
        part.unlink()
    if response.status == 200 or continues:
        return response
    response.close()
    if response.status in (206, 416):
        raise _Broken(f"the server's answer to a request for bytes from {have} does not fit (HTTP {response.status})")
    text = f"HTTP {response.status} {response.reason or ''}".rstrip()
    raise _Broken(text) if response.status in _AGAIN else DownloadError(f"{url}: cannot be downloaded: {text}")


def _read(response: urllib3.BaseHTTPResponse, url: str, part: Path, patience: Patience) -> None:
    """Append the body to `part`. Raises _Broken when it ends early or comes too slowly."""
    have = _size(part)
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    since, got = time.monotonic(), 0
    with part.open("ab") as file, _bar(part.name.removesuffix(".part"), total, have) as bar:
        while block := response.read1(_BLOCK):  # read1 returns after one receive, so a trickle shows as one
            file.write(block)
            bar.update(len(block))
            have, got = have + len(block), got + len(block)
            if have > patience.limit:
                part.unlink()
                raise DownloadError(f"{url}: expected at most {patience.limit} bytes, found more")
            if time.monotonic() - since >= patience.stall_s:
                if got < patience.slow * patience.stall_s:
                    raise _Broken(f"fewer than {patience.slow} bytes/s over {patience.stall_s:g} s")
                since, got = time.monotonic(), 0
    if total is not None and have != total:
        raise _Broken(f"the body ended after {have} of {total} bytes")
