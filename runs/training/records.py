"""Record a training run while it goes on: log.jsonl, TensorBoard, curves.png and bad_videos.csv.

Of several ranks only rank 0 writes; the others call the same methods, which then do nothing but exchange.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from runs.reporting.curves import plot_curves
from runs.reporting.run_record import write_bad_videos
from runs.training.loop import Progress
from utils.distributed import Ranks
from utils.episode import BadVideo
from utils.files import refusals
from utils.logging import RecordLog, read_records

_LOGGER = logging.getLogger(__name__)


def _add(board: SummaryWriter, record: Mapping[str, Any], times: Mapping[tuple[str, int], float]) -> None:
    """Give TensorBoard the numbers of a record, at the time of an earlier writing where there was one."""
    for name, value in record.items():
        if isinstance(value, (int, float)) and math.isfinite(value) and name != "iteration":
            tag, step = f"{record['kind']}/{name}", record["iteration"]
            board.add_scalar(tag, value, step, times.get((tag, step)))


def _times(paths: Iterable[Path]) -> dict[tuple[str, int], float]:
    """Return when each number, by its tag and step, was written into TensorBoard's files."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # a start needs no reader
    from tensorboard.compat.proto import event_pb2

    times: dict[tuple[str, int], float] = {}
    for path in paths:
        for event in map(event_pb2.Event.FromString, RawEventFileLoader(str(path)).Load()):
            times |= {(value.tag, event.step): event.wall_time for value in event.summary.value}
    return times


def _board(directory: Path, records: Iterable[Mapping[str, Any]]) -> SummaryWriter:
    """Open TensorBoard's records as one new file, with the records of log.jsonl that stay.

    TensorBoard reads several files in the order of their names, which hold the time: a clock that went back would mix
    them, and purge_step takes no part of a step out. Of earlier files only the times of writing are taken.
    """
    earlier = sorted(filter(Path.is_file, directory.glob("events.out.tfevents.*")))
    times = _times(earlier) if earlier else {}
    board = SummaryWriter(directory)
    for record in records:
        _add(board, record, times)
    board.flush()
    for path in earlier:  # a kill before this leaves both files: the next start makes one of them
        path.unlink()
    return board


class Records:
    """Writes the records of a training run; as a context manager it closes its files.

    Args:
        directory: OUTPUT_DIR. ranks: that train together.
        stays: which records of an earlier start were made before the state that the run goes on from.
    """

    def __init__(self, directory: Path, ranks: Ranks, stays: Callable[[dict[str, Any]], bool]):
        self.directory, self.ranks = directory, ranks
        self._log = RecordLog(directory / "log.jsonl", stays) if ranks.main else None
        self._board = _board(directory / "tensorboard", self._log.kept) if self._log else None

    def look_for(self, iteration: int) -> None:
        """Warn where log.jsonl lacks the validation of an iteration, which a state of this run knows of."""
        kept = [(record.get("kind"), record.get("iteration", 0)) for record in self._log.kept] if self._log else []
        if iteration and self._log and ("validation", iteration) not in kept:
            _LOGGER.warning("%s: expected records up to iteration %d, found those up to %d: the others are lost",
                            self.directory / "log.jsonl", iteration, max((number for _, number in kept), default=0))

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self._log and self._board:
            self._log.close()
            with suppress(OSError):  # a full disk stops the run elsewhere; log.jsonl has the same figures
                self._board.close()

    def write(self, values: dict[str, Any]) -> None:
        """Add one record to log.jsonl and TensorBoard."""
        if not (self._log and self._board):
            return
        self._log.write(values)
        with refusals(Path(self._board.log_dir)):
            _add(self._board, values, {})

    def draw(self) -> None:
        """Draw curves.png anew."""
        if self._log:
            plot_curves(read_records(self.directory / "log.jsonl"), self.directory / "curves.png")

    def list_bad_videos(self, progress: Progress, more: Sequence[BadVideo] = ()) -> None:
        """Write down the clips that any rank has replaced since the last time, in the order of their episodes, then
        `more`. An exchange: all ranks call it."""
        bad = [video for own in self.ranks.gather(progress.bad_videos, everywhere=False) for video in own]
        bad = [*sorted(bad, key=lambda video: video.episode), *more]
        progress.bad_videos.clear()
        if bad and self.ranks.main:
            listed = write_bad_videos(self.directory / "bad_videos.csv", bad)
            _LOGGER.warning("%d clips could not be read and were replaced so far: see bad_videos.csv", listed)
