"""Processes with a time limit an item: what hangs is ended, what crashes is named, the rest is done."""

import subprocess
import sys

import psutil
import pytest

from runs.preparing import pool
from runs.preparing.pool import Failure, guarded
from tests.conftest import REPOSITORY
from tests.runs.preparing.pool_work import work


@pytest.mark.slow
def test_the_processes_end_with_the_one_that_started_them(tmp_path):
    """However it ends: nothing goes on unseen, or holds its locks and pipes."""
    code = ("from tests.runs.preparing.pool_work import work; from runs.preparing.pool import guarded\n"
            f"items = [('slow', str(i)) for i in range(100)] + [('hang', {str(tmp_path / 'pid')!r})]\n"
            "for item, found in guarded(work, items[::-1], workers=3, limit=60): print(found, flush=True)")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    children = psutil.Process(process.pid).children()
    assert len(children) == 3
    process.kill()
    process.communicate(timeout=20)  # until none of them holds the pipe
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_hanging_and_crashing_items_are_named_and_the_rest_is_done(tmp_path, capfd):
    items = [("fine", str(i)) for i in range(40)]
    items[3], items[17], items[21] = ("hang", str(tmp_path / "pid")), ("crash", ""), ("raise", "x")
    found = dict(guarded(work, items, workers=2, limit=1.5))
    assert found.keys() == set(items)
    assert found[items[3]] == Failure("no end of decoding within 1.5 s")
    assert found[items[17]] == Failure("the decoder crashed (signal 11)")
    assert found[items[21]] == Failure("the decoder crashed (exit 1)")
    assert "KeyError" in capfd.readouterr().err
    fine = [value for item, value in found.items() if item[0] == "fine"]
    assert len(fine) == 37 and not any(isinstance(value, Failure) for value in fine)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))  # it was really ended


def test_a_limit_is_of_one_item_not_of_those_that_wait_behind_it():
    items = [("slow", str(i)) for i in range(6)]
    assert not any(isinstance(value, Failure) for _, value in guarded(work, items, workers=1, limit=1.0))


def test_processes_are_replaced_and_none_is_left(monkeypatch):
    monkeypatch.setattr(pool, "LIFETIME", 5)
    found = [value for _, value in guarded(work, [("fine", str(i)) for i in range(23)], workers=2, limit=20)]
    processes = [int(value.split()[-1]) for value in found]
    assert sorted(int(value.split()[0]) for value in found) == list(range(23))
    assert len(set(processes)) >= 5 and max(processes.count(one) for one in processes) <= 5
    assert not any(psutil.pid_exists(one) for one in processes)


def test_an_abandoned_run_leaves_no_process():
    results = guarded(work, [("fine", str(i)) for i in range(100)], workers=2, limit=20)
    first = int(next(results)[1].split()[-1])
    results.close()
    assert not psutil.pid_exists(first)


def test_an_item_that_cannot_be_done_by_any_process_does_not_stop_the_others():
    found = dict(guarded(work, [("crash", str(i)) for i in range(5)], workers=3, limit=20))
    assert set(found.values()) == {Failure("the decoder crashed (signal 11)")}
    assert list(guarded(work, [], workers=2, limit=20)) == []
