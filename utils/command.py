"""End a command with an exit status, and on an error or a signal with one message; keep its screen from ending it."""

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from utils.errors import FewShotError, described
from utils.signals import Stopped, number_of, stop_at_once

# Characters that act on a terminal, or hide or turn what stands beside them, instead of being seen.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "Cannot allocate memory")
LESS_MEMORY = ("memory has run out. What takes it: frames a clip (DATA.NUM_INPUT_FRAMES) and their sizes, clips an "
               "episode (TRAIN.WAY, SHOT, QUERY_PER_CLASS), TRAIN.EPISODES_PER_STEP, TEST.ENCODE_BATCH, "
               "DATA_LOADER.NUM_WORKERS; TRAIN.GRAD_CHECKPOINT true takes less")


def printable(text: str, keep: str = "\n\t") -> str:
    """Return text from outside (class names, paths) with its control characters but `keep` written out: \\x1b."""
    return _ACTING.sub(lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text)


def csv_cell(text: str) -> str:
    """Return text as a cell of a CSV file: on one line, and what a spreadsheet would compute (=1+1) after a '."""
    return ("'" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else "") + printable(text, "")


class _Screen(io.FileIO):
    """Writes to a descriptor. Where that is closed, full or read by nobody, the text is lost, and nothing else."""

    lost: OSError | None = None  # why

    def write(self, data: Any) -> int:
        try:
            if (written := super().write(data)) is not None:
                return written
        except OSError as error:
            self.lost = error
        return len(data)


class _Output(io.TextIOWrapper):
    """Standard output or errors, on which names and paths from outside can do nothing to a terminal.

    What moves the cursor for a progress bar (tqdm), which comes alone or at the start of a text, stays.
    """

    def write(self, text: str) -> int:
        moved = not text.replace("\x1b[A", "").strip("\n")
        return super().write(text if moved else printable(text, "\n\t\r" if text.startswith("\r") else "\n\t"))


def keep_screens() -> None:
    """See to it that nothing a screen does ends the command.

    A closed descriptor 0, 1 or 2 leads to nowhere (else the next file opened would get its number, and whatever a
    library prints); what cannot be written is lost (see `printed`); letters that an encoding lacks are written out.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        stream: io.TextIOWrapper | None = getattr(sys, name)
        if number and stream in (None, getattr(sys, f"__{name}__")):  # not what a test puts there
            setattr(sys, name, _Output(
                io.BufferedWriter(_Screen(number, "w", closefd=False)), stream.encoding if stream else "utf-8",
                "backslashreplace", line_buffering=not stream or stream.line_buffering or stream.write_through))


def printed(text: str) -> None:
    """Print what a command was asked for, and writes nowhere else. Raises OSError where that cannot be done."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()
    if error := _lost():
        error.filename = "standard output"
        raise error


def _lost() -> OSError | None:
    return getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", None)


def out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether memory has run out, which torch says in words only."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def command(main: Callable[[], int | None]) -> int:
    """Run `main` and return the exit status of the command.

    It is what main returns (None counts as 0), 1 after the message of an error, 129, 130 or 143 after that of SIGHUP,
    SIGINT or SIGTERM, and 141, without a message, where nobody reads any more what was asked for (`table.py A | head`).
    """
    try:
        with stop_at_once():
            status = main() or 0
            sys.stdout.flush()
            return status
    except (FewShotError, OSError) as error:
        if isinstance(error, BrokenPipeError) and error is _lost():
            return 128 + signal.SIGPIPE
        sys.stderr.write(printable(f"\n{described(error)}\n"))
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        sys.stderr.write(printable(f"\nMemoryError: {' '.join(str(error).split())[:300]}\n{LESS_MEMORY}\n"))
        return 1
    except KeyboardInterrupt as stop:
        sys.stderr.write(printable(f"\n{stop if isinstance(stop, Stopped) else Stopped(number_of(stop))}\n"))
        return 128 + number_of(stop)
