"""End a command with an exit status, and on an error or a signal with one message."""

import os
import select
import signal
import sys
from collections.abc import Callable

from utils.errors import FewShotError, described
from utils.signals import Stopped, number_of, stop_at_once


def command(main: Callable[[], int | None]) -> int:
    """Run `main` and return the exit status of the command.

    It is what main returns (None counts as 0), 1 after the message of an error, 130 or 143 after that of SIGINT or
    SIGTERM, and 141, without a message, where nobody reads the output any more (`| head`).
    """
    try:
        with stop_at_once():
            status = main() or 0
            sys.stdout.flush()
            return status
    except (FewShotError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written
            return 128 + signal.SIGPIPE
        sys.stderr.write(f"\n{described(error)}\n")
        return 1
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"\n{stop if isinstance(stop, Stopped) else Stopped(number_of(stop))}\n")
        return 128 + number_of(stop)


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose other end was closed."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)  # errors are told without being asked for
    return bool(poller.poll(0))
