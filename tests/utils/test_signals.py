"""Signals that arrive together."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from utils import signals

# SIGTERM and SIGCHLD are delivered in one go, the lower number first, as when a whole process group is told to end.
TOGETHER = """
import os, signal, sys
from utils import signals
def complain(*_):
    raise RuntimeError("DataLoader worker exited unexpectedly")
signal.signal(signal.SIGCHLD, complain)
both = {signal.SIGTERM, signal.SIGCHLD}
try:
    with signals.stop_at_once():
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        for _ in range(1000):
            pass
except signals.Stopped as stop:
    for _ in range(1000):
        pass
    print(stop)
"""


ORPHAN = """
import os, sys, time
from utils.signals import LAUNCHER, end_with_launcher
os.environ.update(RANK="0", WORLD_SIZE="2")
os.environ[LAUNCHER] = str(os.getppid() + int(sys.argv[1]))
end_with_launcher()
print("goes on")
"""


def test_a_rank_whose_launcher_has_ended_before_it_began_ends():
    for other, status in ((0, 0), (1, -15)):
        ended = subprocess.run([sys.executable, "-c", ORPHAN, str(other)], cwd=Path(__file__).parents[2], timeout=60)
        assert ended.returncode == status


ENDING = """
import atexit, os, signal, sys, time
from utils.signals import END_SECONDS, ended_once
class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)
late = Late()  # lives until Python clears its modules
with ended_once():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        atexit.register(os.kill, os.getpid(), number)
    if sys.argv[1:]:
        atexit.register(time.sleep, 60)
        atexit.register(os.kill, os.getpid(), signal.SIGTERM)
        atexit.register(time.sleep, END_SECONDS + 0.2)
    sys.exit(3)
"""


def test_signals_change_nothing_about_the_end_of_a_command_but_one_that_hangs():
    for hangs in ([], ["hangs"]):
        ended = subprocess.run([sys.executable, "-c", ENDING, *hangs], cwd=Path(__file__).parents[2],
                               capture_output=True, text=True, timeout=30)
        assert ended.returncode == 3 and ended.stderr == ""


def test_a_worker_that_ends_with_the_same_signal_is_no_complaint():
    ended = subprocess.run([sys.executable, "-c", TOGETHER], cwd=Path(__file__).parents[2], capture_output=True,
                           text=True, timeout=60)
    assert ended.stdout == "stopped by SIGTERM; what was saved before is untouched\n"
    assert ended.stderr == "" and ended.returncode == 0


class _Freed:
    """Sends SIGTERM when it is freed, if asked to."""

    asked = False

    def __del__(self):
        if self.asked:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)


@pytest.mark.parametrize("freed", ["callback", "del"])
def test_a_stop_that_python_drops_comes_again(monkeypatch, freed):
    """As in a fork of a loader's worker, where Python drops it too; what cleans up after it is not disturbed."""
    dropped, cleaned = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: dropped.append(type(lost.exc_value)))
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.05)
    before = signal.getsignal(signal.SIGCHLD)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGCHLD, before)
        with pytest.raises(signals.Stopped), signals.stop_at_once():
            one = _Freed()
            one.asked = one_kills = freed == "del"
            watched = weakref.ref(one, lambda _: one_kills or (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0)))
            try:
                del one
                assert watched() is None
                time.sleep(20)
            finally:
                time.sleep(0.3)
                cleaned.append(True)
        assert cleaned and dropped == ([signals.Stopped] if freed == "callback" else [])
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
