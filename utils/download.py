"""Fetch a public file: resumed where it broke off, checked, seen under its name only when whole.

A server may stall, cut a body short, lack Range support, or send something else: each ends in the file or in an error
within a bounded time.
"""

import hashlib
import os
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import urllib3
from tqdm import tqdm

from utils.errors import DownloadError, HashError

_BLOCK = 1 << 16
_PROGRESS = 1 << 20  # bytes that count as progress: the tries start again from the first
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that may be others a moment later


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download waits, in seconds.

    Args:
        connect_s: for a connection.
        stall_s: for the next bytes; below `slow` bytes/s over this long counts as a stall, too.
        slow: lowest rate, bytes/s.
        tries: attempts without progress before it gives up.
        pause_s: before the second attempt; doubles with each.
        lock_s: for another process that fetches the same file.
        limit: largest body, bytes.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    slow: int = 1024
    tries: int = 4
    pause_s: float = 0.5
    lock_s: float = 3600.0
    limit: int = 8 << 30


class _Broken(Exception):
    """One attempt failed; another may not."""


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(url: str, path: Path, expected: str | None = None, *, patience: Patience | None = None) -> Path:
    """Fetch `url` to `path`, with a progress bar on a terminal.

    What has arrived stays in `<name>.part` beside it: the next attempt, or the next call, asks for the rest only. Two
    processes that want the same file take turns.

    Args:
        url: http or https; redirects are followed, the proxies of the environment used.
        path: the file; its directory is made. With `expected`, a file already there and right is kept.
        expected: SHA-256 (hex) the file must have, or its first digits; None: any, and nothing is resumed across calls.
        patience: None: the defaults.

    Returns:
        `path`.

    Raises:
        HashError: the whole file came, and is another.
        DownloadError: unreachable, refused (status), stalled, cut short on every attempt, too large, or not writable.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: expected an address that starts with http:// or https://")
    patience, part = patience or Patience(), path.with_name(f"{path.name}.part")
    with _turn(path, patience):
        if expected is None or not _is(path, expected):
            _fetch_part(url, part, expected, patience)
            os.replace(part, path)
    return path


def place(source: Path, path: Path, expected: str) -> Path:
    """Copy a file that is here to `path`, with a progress bar on a terminal; it appears there only when it is right.

    Args:
        source: the file. path: where it goes; its directory is made. A file already there and right is kept.
        expected: SHA-256 (hex) it must have, or its first digits.

    Returns:
        `path`.

    Raises:
        HashError: `source` is another file.
        DownloadError: `source` cannot be read, or `path` cannot be written.
    """
    new, digest = path.with_name(f"{path.name}.new"), hashlib.sha256()
    try:
        size, file = source.stat().st_size, source.open("rb")
    except OSError as error:
        raise DownloadError(f"{source}: cannot be read: {error.strerror or error}") from error
    with file, _turn(path, Patience()):
        if _is(path, expected):
            return path
        with new.open("wb") as copy, _bar(path.name, size) as bar:
            while block := file.read(1 << 20):
                copy.write(block)
                digest.update(block)
                bar.update(len(block))
        if not digest.hexdigest().startswith(expected):
            new.unlink()
            raise HashError(f"{source}: damaged or another file: expected SHA-256 {expected}, found "
                            f"{digest.hexdigest()} ({size} bytes)")
        os.replace(new, path)
    return path


@contextmanager
def _turn(path: Path, patience: Patience) -> Iterator[None]:
    """One process at a time writes `path`; what the system refuses becomes a DownloadError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_name(f"{path.name}.lock"), timeout=patience.lock_s):
            yield
    except filelock.Timeout:
        raise DownloadError(f"{path}: another process has been fetching it for over {patience.lock_s:g} s") from None
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written: {error.strerror or error}") from error


def _is(path: Path, expected: str) -> bool:
    return path.is_file() and sha256(path).startswith(expected)


def _bar(name: str, total: int | None, have: int = 0) -> tqdm:
    """Bytes, rate and time left; on a terminal only."""
    return tqdm(total=total, initial=have, unit="B", unit_scale=True, disable=None, leave=False, desc=name)


def _fetch_part(url: str, part: Path, expected: str | None, patience: Patience) -> None:
    """Fill `part`, and check it; a resumed file of the wrong hash is fetched once more from its first byte."""
    if expected is None:
        part.unlink(missing_ok=True)  # nothing says it is of the same file
    resumed = part.is_file() and part.stat().st_size > 0
    if resumed and expected is not None and _is(part, expected):
        return  # whole already; only its name was missing
    _attempts(url, part, patience, pinned=expected is not None)
    if expected is None:
        return
    found = sha256(part)
    if not found.startswith(expected) and resumed:
        part.unlink()
        _attempts(url, part, patience, pinned=True)
        found = sha256(part)
    if not found.startswith(expected):
        size = part.stat().st_size
        part.unlink()
        raise HashError(f"{url}: damaged or another file: expected SHA-256 {expected}, found {found} ({size} bytes)")


def _attempts(url: str, part: Path, patience: Patience, *, pinned: bool) -> None:
    """Attempts until the body is whole; the count starts again whenever one brought the file a good bit further.

    Where no hash is `pinned`, only a server that names the version it sends (ETag) is asked for the rest.
    """
    furthest, failed, tag = part.stat().st_size if part.is_file() else 0, 0, ""
    with _pool(url, patience) as pool:
        while True:
            try:
                if not (pinned or tag):
                    part.unlink(missing_ok=True)
                response = _ask(pool, url, part, tag)
                tag = response.headers.get("ETag", "")
                tag = "" if tag.startswith("W/") else tag  # a weak one does not promise the same bytes
                with response:
                    return _read(response, url, part, patience)
            except _Broken as error:
                reason = error
            except urllib3.exceptions.HTTPError as error:
                reason = error
            size = part.stat().st_size if part.is_file() else 0
            failed = 0 if size >= furthest + _PROGRESS else failed + 1
            furthest = max(furthest, size)
            if failed >= patience.tries:
                raise DownloadError(f"{url}: cannot be downloaded: {_plain(reason)} ({failed} "
                                    f"attempt{'s' if failed != 1 else ''}, {size} bytes of it are here)") from reason
            time.sleep(patience.pause_s * 2 ** max(failed - 1, 0))


def _plain(error: BaseException) -> str:
    """The innermost reason of a chain of urllib3 errors."""
    while isinstance(getattr(error, "reason", None), BaseException):
        error = error.reason
    return str(error) or type(error).__name__


def _pool(url: str, patience: Patience) -> urllib3.PoolManager:
    """Connections with time limits; through the proxy that the environment names for this address."""
    limits = {"timeout": urllib3.Timeout(connect=patience.connect_s, read=patience.stall_s),
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


def _ask(pool: urllib3.PoolManager, url: str, part: Path, tag: str) -> urllib3.BaseHTTPResponse:
    """The response whose body continues `part`, which is emptied where the server starts from the first byte."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "clip-fsar"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag:
            headers["If-Range"] = tag
    response = pool.request("GET", url, headers=headers, preload_content=False, decode_content=False,
                            enforce_content_length=False)  # _read counts, and says so in words
    continues = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if response.status in (200, 206, 416) and have and not continues:
        part.unlink()
    if response.status == 200 or continues:
        return response
    response.close()
    if response.status in (206, 416):
        raise _Broken(f"the server's answer to a request for bytes from {have} does not fit (HTTP {response.status})")
    if response.status in _AGAIN:
        raise _Broken(f"HTTP {response.status} {response.reason or ''}".rstrip())
    raise DownloadError(f"{url}: cannot be downloaded: HTTP {response.status} {response.reason or ''}".rstrip())


def _read(response: urllib3.BaseHTTPResponse, url: str, part: Path, patience: Patience) -> None:
    """Append the body to `part`; _Broken when it ends early or comes too slowly."""
    have = part.stat().st_size if part.is_file() else 0
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    since, got = time.monotonic(), 0
    if max(have, total or 0) > patience.limit:
        part.unlink(missing_ok=True)
        raise DownloadError(f"{url}: expected at most {patience.limit} bytes, found {max(have, total or 0)}")
    with part.open("ab") as file, _bar(part.name.removesuffix(".part"), total, have) as bar:
        while block := response.read1(_BLOCK):  # read1: what one receive brought, so a trickle is seen as one
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
