"""Signals that arrive together."""

import subprocess
import sys
from pathlib import Path

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


def test_a_worker_that_ends_with_the_same_signal_is_no_complaint():
    ended = subprocess.run([sys.executable, "-c", TOGETHER], cwd=Path(__file__).parents[2], capture_output=True,
                           text=True, timeout=60)
    assert ended.stdout == "stopped by SIGTERM; what was saved before is untouched\n"
    assert ended.stderr == "" and ended.returncode == 0
