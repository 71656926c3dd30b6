"""Work for processes that are watched: it ends, hangs, crashes or raises, as it is told."""

import faulthandler
import os
import signal
import time
from pathlib import Path


def work(item: tuple[str, str]) -> str:
    kind, value = item
    if kind == "hang":
        Path(value).write_text(str(os.getpid()))
        while True:
            time.sleep(60)
    if kind == "crash":
        faulthandler.disable()  # pytest's, which would print where
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "raise":
        raise KeyError(value)
    if kind == "slow":
        time.sleep(0.4)
    return f"{value} in {os.getpid()}"
