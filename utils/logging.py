"""Send log lines to the screen and a file, and records to log.jsonl."""

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import simplejson
from tqdm import tqdm

from utils.command import printable
from utils.errors import ResultsError
from utils.files import refusals, whole_file
from utils.foreign import TEXT_BYTES, parse_json, regular
from utils.json_files import SUM, add_sum, check_sum

_LOGGER = logging.getLogger(__name__)


@cache
def warn_once(logger: logging.Logger, text: str) -> None:
    """Log a warning that was not logged before in this process."""
    logger.warning("%s", text)


class _Formatter(logging.Formatter):
    """Write lines in which names and paths from outside can do nothing to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _BarHandler(logging.Handler):
    """Write lines above a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    """Write the text log. If the disk refuses, warn once; the screen remains."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        _LOGGER.warning("%s: could not be written (%s): what follows is on the screen only", self.baseFilename,
                        error.strerror)


def setup_logging(output_dir: Path, file_name: str, rank: int = 0) -> None:
    """Send INFO and above to the screen and to OUTPUT_DIR/file_name (appended); of other ranks than 0 warnings and
    errors to the screen, with the rank in front."""
    screen = _BarHandler()
    screen.setFormatter(_Formatter(f"rank {rank}: %(message)s" if rank else "%(message)s"))
    logging.basicConfig(handlers=[screen], level=logging.WARNING if rank else logging.INFO, force=True)
    logging.captureWarnings(True)
    for noisy in ("fvcore", "matplotlib", "PIL", "open_clip"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if rank:
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    file = _FileHandler(output_dir / file_name, encoding="utf-8")
    file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(file)


_FIGURES = {"train": ("loss", "accuracy", "lr"), "validation": ("accuracy", "interval95")}


def _record(line: bytes) -> dict[str, Any]:
    """Return a record with the figures that its kind must have. Raises ValueError."""
    record = check_sum(parse_json(line))
    record.pop(SUM, None)
    figures = [record.get(name, "none") for name in _FIGURES.get(str(record.get("kind")), ())]
    if type(record.get("iteration", 0)) is not int or not isinstance(record.get("split", ""), str) or not all(
            figure is None or isinstance(figure, (int, float)) and abs(figure) < 1e300 for figure in figures):
        raise ValueError("a record without its figures")
    return record


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a .jsonl file. A last line cut short by a crash is left out; other damaged lines are, too,
    with a warning. Raises ResultsError where the path leads to something else than a file."""
    if not path.exists():
        return []
    regular(path, ResultsError, TEXT_BYTES)
    records, bad = [], []
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line))
        except ValueError:
            bad.append(str(number))
    if bad:
        _LOGGER.warning("%s: damaged: %d of %d lines are no records and are left out (%s)", path, len(bad), len(lines),
                        ", ".join(bad[:8]))
    return records


def _line(record: dict[str, Any]) -> str:
    """Return a record as JSON with its checksum; NaN and infinities become null."""
    return json.dumps(add_sum(simplejson.loads(simplejson.dumps(record, ignore_nan=True))))


class RecordLog:
    """Write log.jsonl: one JSON object a line, flushed at once.

    Records of kind "train": loss and accuracy are means over the last 50 iterations (utils.meters.WINDOW), loss_<name>
    are those of the record's own iteration. Records of kind "validation": accuracy is the mean over its episodes.
    `keep` tells which records of an earlier start stay (the others will be written again); None: none of them. `kept`:
    those that did.
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], bool] | None = None):
        self.kept = [record for record in read_records(path) if keep(record)] if keep else []
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:  # a kill during the rewrite must not lose the records kept
            part.write_text("".join(f"{_line(record)}\n" for record in self.kept), encoding="utf-8")
        self._path, self._file = path, path.open("ab", buffering=0)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; NaN and infinities become null. Raises DiskError, and then leaves no part of it."""
        left, size = _line(record).encode() + b"\n", os.fstat(self._file.fileno()).st_size
        try:
            with refusals(self._path):
                while left:
                    left = left[self._file.write(left):]
        finally:
            if left:
                self._file.truncate(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
