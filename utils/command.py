"""End a command with an exit status, and on an error or a signal with one message."""

import sys
from collections.abc import Callable

from utils.errors import FewShotError, described
from utils.signals import Stopped, number_of, stop_at_once


def command(main: Callable[[], int | None]) -> int:
    """Run a command and return its exit status: main's (None: 0), 1 after an error's message, 130 or 143 after SIGINT
    or SIGTERM."""
    try:
        with stop_at_once():
            return main() or 0
    except (FewShotError, OSError) as error:
        sys.stderr.write(f"\n{described(error)}\n")
        return 1
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"\n{stop if isinstance(stop, Stopped) else Stopped(number_of(stop))}\n")
        return 128 + number_of(stop)
