"""The command serve in processes: what it prints, a second one, SIGKILL during an upload, Ctrl-C."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from runs.own.page.serving import bound
from tests.conftest import REPOSITORY, called
from tests.runs.own.page.served import overrides, visible

pytestmark = pytest.mark.slow


def _heed_interrupts():
    """Where the tests run in the background, a shell has told them to ignore Ctrl-C, or nohup a closed terminal."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def started(*arguments):
    """A process that serves, and its port and secret."""
    process = subprocess.Popen([sys.executable, "runs/serve.py", *map(str, arguments), "--no-browser"], cwd=REPOSITORY,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=_heed_interrupts)
    try:
        for line in process.stdout:
            if found := re.fullmatch(r"open http://127\.0\.0\.1:(\d+)/\?token=(\S{32})\n", line):
                break
        else:
            raise AssertionError(process.stderr.read())
        yield process, int(found[1]), found[2]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def asked(port: int, token: str, request: str, rest: str = "") -> socket.socket:
    """A connection over which a browser that has opened the printed address has sent a request's head."""
    line = socket.create_connection(("127.0.0.1", port))
    line.sendall((f"{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: clip_fsar_{port}={token}\r\n"
                  f"Origin: http://127.0.0.1:{port}\r\n{rest}\r\n").encode())
    return line


def _children(process: int) -> list[str]:
    return subprocess.run(["pgrep", "-g", str(process)], capture_output=True, text=True).stdout.split()


def test_killed_in_an_upload_then_started_again_then_ended(root, tower, capsys):
    with bound(0) as free:
        number = free.getsockname()[1]
    given = [*overrides(tower), "--text", "off", "--dir", root, "--port", number]
    before = visible(root)
    with started(*given) as (process, port, token):
        assert called("serve")(given) == 1
        assert re.search(rf"another page is open on this folder \(http://127.0.0.1:{port}, process {process.pid} on ",
                         capsys.readouterr().err)
        with asked(port, token, "PUT /query", "Content-Length: 100000\r\n") as line:
            line.sendall(bytes(50_000))
            end = time.monotonic() + 60
            while not list(root.glob(".upload_*")) and time.monotonic() < end:
                time.sleep(0.05)
            assert list(root.glob(".upload_*"))
            process.kill()
            process.wait()
    assert visible(root) == before
    with socket.create_server(("127.0.0.1", port)), started(*given) as (process, next_port, token):
        assert next_port != port and not list(root.glob(".upload_*")) and visible(root) == before
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and f"port {port} is taken; this is {next_port}" in said
    assert "Traceback" not in said and "SIGINT" in said
    end = time.monotonic() + 20
    while _children(process.pid) and time.monotonic() < end:  # they look whether their parent is there
        time.sleep(0.1)
    assert not _children(process.pid) and visible(root) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_under_way_at_the_end_is_no_error(root, tower, tmp_path, monkeypatch, number):
    """An upload that stalls, a page that waits for news, a pack that is being sent; nothing is left."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    given = ["--dir", root, "--text", "off", "--port", "0", *overrides(tower)]
    with started(*given) as (process, port, token), ExitStack() as lines:
        end, state = time.monotonic() + 60, b""
        while b'"busy":null' not in state and time.monotonic() < end:
            with asked(port, token, "GET /state", "Connection: close\r\n") as line:
                state = b"".join(iter(partial(line.recv, 1 << 16), b""))
        version = re.search(rb'"version":(\d+)', state)[1].decode()
        for request in (f"GET /state?after={version}", "GET /pack"):
            lines.enter_context(asked(port, token, request))
        lines.enter_context(asked(port, token, "PUT /query", "Content-Length: 100000\r\n")).sendall(bytes(5000))
        time.sleep(0.5)
        begin = time.monotonic()
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number and time.monotonic() - begin < 8
    assert said == f"\nstopped by {number.name}; what was saved before is untouched\n"
    assert not list((tmp_path / "temporary").iterdir()) and not list(root.glob(".upload_*"))


def test_ports():
    first = bound(0)
    taken = first.getsockname()
    assert taken[0] == "127.0.0.1"
    second = bound(taken[1])
    assert second.getsockname()[1] > taken[1] and second.getsockname()[0] == "127.0.0.1"
    first.close()
    second.close()


@pytest.mark.parametrize("wrong", [["--port", "70000"], ["--max-upload", "0"], ["--host", "0.0.0.0"], []])
def test_wrong_usage(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        called("serve")([*(["--dir", tmp_path / "x"] if wrong else []), *wrong])
    assert stopped.value.code == 2 and not (tmp_path / "x").exists()


def test_a_file_for_a_folder(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert called("serve")(["--dir", tmp_path / "a.mp4"]) == 1
    assert "expected a folder with folders of clips, one an action, found a file" in capsys.readouterr().err
