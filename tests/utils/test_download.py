"""Downloads from a local server that cuts, stalls, lies, redirects, or knows no Range: each ends, whole or refused."""

import hashlib
import threading
from pathlib import Path

import pytest

from tests.local_server import SHORT, local_site
from utils.download import Patience, copy_checked, fetch, sha256
from utils.errors import DownloadError, HashError

BODY = bytes(range(256)) * 40  # 10,240 bytes
HASH = hashlib.sha256(BODY).hexdigest()
pytestmark = pytest.mark.usefixtures("no_proxy")


@pytest.fixture()
def site():
    with local_site() as served:
        served.bodies["f"] = BODY
        yield served


@pytest.fixture()
def path(tmp_path) -> Path:
    return tmp_path / "new" / "f.bin"


def get(site, path, expected=HASH, name="f", patience=SHORT) -> Path:
    return fetch(f"{site.address}/{name}", path, expected, patience=patience)


def refusal(error, site, path, *arguments, **options) -> str:
    with pytest.raises(error) as caught:
        get(site, path, *arguments, **options)
    assert not path.exists()
    return str(caught.value).replace(site.address, "SITE").replace(str(path), "PATH")


def test_a_file_arrives_whole_and_alone(site, path):
    assert get(site, path) == path
    assert path.read_bytes() == BODY and sha256(path) == HASH
    assert {entry.name for entry in path.parent.iterdir()} <= {"f.bin", "f.bin.lock"}
    assert site.asked == [("f", None)]


def test_a_file_that_is_there_and_right_is_kept_and_another_is_replaced(site, path):
    get(site, path)
    get(site, path)
    assert len(site.asked) == 1
    path.write_bytes(b"another")
    get(site, path)
    assert path.read_bytes() == BODY and len(site.asked) == 2
    get(site, path, None)  # nothing says what it must be
    assert len(site.asked) == 3


def test_a_body_cut_short_goes_on_where_it_broke_off(site, path):
    site.manners["f"], site.times["f"] = "cut", 1
    get(site, path)
    assert path.read_bytes() == BODY
    assert site.asked == [("f", None), ("f", "bytes=1000-")]


@pytest.mark.parametrize("length", [True, False])
def test_a_body_that_stays_short_is_refused(site, path, length):
    site.manners["f"], site.length, site.ranges = "cut", length, False
    if length:
        assert refusal(DownloadError, site, path) == (
            "SITE/f: cannot be downloaded: the body ended after 1000 of 10240 bytes (2 attempts, 1000 bytes of it are "
            "here)")
    else:  # its end is all the server says of its length
        found = hashlib.sha256(BODY[:1000]).hexdigest()
        assert refusal(HashError, site, path) == (
            f"SITE/f: damaged or another file: expected SHA-256 {HASH}, found {found} (1000 bytes)")


def test_the_next_call_asks_for_the_rest(site, path):
    site.manners["f"], site.cut_at, site.times["f"] = "cut", 700, 2
    with pytest.raises(DownloadError, match=r"\(1 attempt, 700 bytes of it are here\)"):
        get(site, path, patience=Patience(tries=1))
    assert path.with_name("f.bin.part").stat().st_size == 700
    site.manners.clear()
    get(site, path)
    assert path.read_bytes() == BODY and site.asked[-1] == ("f", "bytes=700-")


def test_a_part_that_is_whole_needs_no_server(site, path):
    path.parent.mkdir()
    path.with_name("f.bin.part").write_bytes(BODY)
    get(site, path)
    assert path.read_bytes() == BODY and not site.asked


@pytest.mark.parametrize("wrong", [b"x" * 500, b"x" * (len(BODY) + 5), b"x" * len(BODY)])
def test_a_part_of_another_file_is_started_over(site, path, wrong):
    path.parent.mkdir()
    path.with_name("f.bin.part").write_bytes(wrong)
    get(site, path)
    assert path.read_bytes() == BODY
    assert site.asked[0] == ("f", f"bytes={len(wrong)}-") and site.asked[-1] == ("f", None)


def test_a_server_without_range_sends_it_all_again(site, path):
    site.ranges, site.manners["f"], site.times["f"] = False, "cut", 1
    get(site, path)
    assert path.read_bytes() == BODY
    assert site.asked == [("f", None), ("f", "bytes=1000-")]


def test_without_a_hash_nothing_is_resumed(site, path):
    site.manners["f"], site.times["f"] = "cut", 1
    get(site, path, None)
    assert path.read_bytes() == BODY
    assert site.asked == [("f", None), ("f", None)]


def test_a_wrong_file_is_refused_and_leaves_nothing(site, path):
    wanted = "0" * 64
    assert refusal(HashError, site, path, wanted) == (
        f"SITE/f: damaged or another file: expected SHA-256 {wanted}, found {HASH} (10240 bytes)")
    assert len(site.asked) == 1  # no second try for a file that came whole
    assert not path.with_name("f.bin.part").exists()


@pytest.mark.parametrize(("status", "tries", "text"), [
    ("404", 1, "SITE/f: cannot be downloaded: HTTP 404 Not Found"),
    ("403", 1, "SITE/f: cannot be downloaded: HTTP 403 Forbidden"),
    ("503", 2, "SITE/f: cannot be downloaded: HTTP 503 Service Unavailable (2 attempts, 0 bytes of it are here)"),
])
def test_a_refusing_server(site, path, status, tries, text):
    site.manners["f"] = status
    assert refusal(DownloadError, site, path) == text
    assert len(site.asked) == tries


def test_a_server_that_is_busy_once(site, path):
    site.manners["f"], site.times["f"] = "503", 1
    assert get(site, path).read_bytes() == BODY


def test_redirects_are_followed_but_not_forever(site, path):
    site.manners |= {"a": "302:/b", "b": "302:/f", "loop": "302:/loop"}
    assert get(site, path, name="a").read_bytes() == BODY
    path.unlink()
    assert "SITE/loop: cannot be downloaded: too many redirects" in refusal(DownloadError, site, path, name="loop")


@pytest.mark.parametrize(("manner", "reason"), [("stall", "Read timed out"), ("drip", "fewer than 1024 bytes/s over")])
def test_a_stalling_server_is_given_up(site, path, manner, reason):
    site.manners["f"] = manner
    text = refusal(DownloadError, site, path)
    assert text.startswith("SITE/f: cannot be downloaded: ") and reason in text


def test_a_stall_is_resumed(site, path):
    site.manners["f"], site.times["f"] = "stall", 1
    assert get(site, path).read_bytes() == BODY
    assert site.asked[1] == ("f", "bytes=1000-")


@pytest.mark.parametrize("length", [True, False])
def test_a_body_over_the_limit(site, path, length):
    site.length = length
    text = refusal(DownloadError, site, path, None, patience=Patience(limit=5000))
    assert text == "SITE/f: expected at most 5000 bytes, found more"
    assert not path.with_name("f.bin.part").exists()


def test_nobody_listens(path, tmp_path):
    with pytest.raises(DownloadError, match=r"^http://127.0.0.1:9/f: cannot be downloaded: .*refused \(2 attempts"):
        fetch("http://127.0.0.1:9/f", path, HASH, patience=SHORT)
    for url in ("ftp://host/f", "f"):
        with pytest.raises(DownloadError, match="expected an address that starts with http:// or https://"):
            fetch(url, path, HASH)
    with pytest.raises(DownloadError, match=r"^http://\[1: cannot be downloaded: Failed to parse"):
        fetch("http://[1", path, HASH, patience=SHORT)
    assert not path.exists()


def test_the_environments_proxy_is_asked(site, path, monkeypatch):
    site.bodies["http://elsewhere.invalid/f"] = BODY  # a proxy is asked for whole addresses
    monkeypatch.setenv("http_proxy", site.address.removeprefix("http://"))
    fetch("http://elsewhere.invalid/f", path, HASH, patience=SHORT)
    assert path.read_bytes() == BODY and site.asked == [("http://elsewhere.invalid/f", None)]


def test_a_path_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "f.bin"
    assert refusal(DownloadError, site, path).startswith("PATH: cannot be written: ")


def test_a_lock_that_is_a_link_is_refused(site, tmp_path):
    (tmp_path / "f.bin.lock").symlink_to(tmp_path / "precious")
    assert refusal(DownloadError, site, tmp_path / "f.bin").startswith("PATH: cannot be written: Too many levels")
    assert not (tmp_path / "precious").exists() and not site.asked


def test_two_at_once_fetch_once(site, path):
    site.manners["f"], site.times["f"] = "stall", 1
    patience = Patience(stall_s=0.3, pause_s=0.01, lock_s=5)
    threads = [threading.Thread(target=get, args=(site, path), kwargs={"patience": patience}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert path.read_bytes() == BODY and [name for name, _ in site.asked] == ["f", "f"]  # the stalled one, and its rest


def test_a_lock_that_is_never_free(site, path):
    site.manners["f"] = "stall"
    patience = Patience(stall_s=1.5, tries=1)
    other = threading.Thread(target=lambda: refusal(DownloadError, site, path, patience=patience))
    other.start()
    while not site.asked:
        pass
    text = refusal(DownloadError, site, path)
    assert text == "PATH: another process has been fetching it for over 0.2 s"
    other.join(10)


def test_copying_a_local_file(tmp_path, path):
    source = tmp_path / "source"
    source.write_bytes(BODY)
    assert copy_checked(source, path, HASH).read_bytes() == BODY
    source.unlink()
    with pytest.raises(DownloadError, match=f"^{source}: cannot be read: No such file or directory$"):
        copy_checked(source, path, HASH)
    source.write_bytes(b"other")
    assert copy_checked(source, path, HASH).read_bytes() == BODY  # it is there already
    path.unlink()
    with pytest.raises(HashError) as caught:
        copy_checked(source, path, HASH)
    assert str(caught.value) == (f"{source}: damaged or another file: expected SHA-256 {HASH}, found "
                                 f"{hashlib.sha256(b'other').hexdigest()} (5 bytes)")
    assert {entry.name for entry in path.parent.iterdir()} <= {"f.bin.lock"}
