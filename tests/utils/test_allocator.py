"""utils/allocator.py: what is freed stays with the process."""

import ctypes
import subprocess
import sys

import pytest

from utils.allocator import keep_freed_memory  # before a fixture takes its place

STEPS = """
import resource, torch
from utils.allocator import keep_freed_memory
if {keep}: assert keep_freed_memory()
def step(): return [torch.ones(8 << 20) for _ in range(8)]  # 32 MiB each, the largest that glibc could learn to keep
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_pages_do_not_come_anew_in_each_step():
    faults = {keep: int(subprocess.run([sys.executable, "-c", STEPS.format(keep=keep)], check=True, text=True,
                                       capture_output=True).stdout) for keep in (False, True)}
    assert faults[True] < 2000 < faults[False]  # 5 steps have 327,680 pages of 4 KiB, or 640 of 2 MiB


def test_a_library_without_it_is_no_error(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()
