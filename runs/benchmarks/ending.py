"""Ends what the benchmarks started: no process of theirs is left, whatever ends them."""

import multiprocessing
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

WAIT_SECONDS = 10  # for processes that were killed


def end_family(number: int) -> None:
    """Kill a process and all its descendants, and wait until they are gone."""
    try:
        first = psutil.Process(number)
        family = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:  # it ended with its parent
            continue
    psutil.wait_procs(family, timeout=WAIT_SECONDS)


@contextmanager
def ending(process: subprocess.Popen | psutil.Popen) -> Iterator[None]:
    """Kill the process and its descendants when the block ends, however it ends."""
    try:
        yield
    finally:
        if process.poll() is None:
            end_family(process.pid)
            process.wait()


@contextmanager
def ending_workers() -> Iterator[None]:
    """Kill the processes that multiprocessing started in this block if it ends early: a pool would wait for them."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            if child.pid is not None:
                end_family(child.pid)
        raise


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Keep SIGINT, which a terminal sends to all, from processes started in this block: their parent ends them.

    One that comes to this process meanwhile is handled after the block.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
