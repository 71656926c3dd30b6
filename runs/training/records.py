"""Record a training run while it goes on: log.jsonl, TensorBoard, curves.png and bad_videos.csv.

Of several ranks only rank 0 writes; the others call the same methods, which then do nothing but exchange.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2
from torch.utils.tensorboard import SummaryWriter

from runs.reporting.curves import plot_curves
from runs.reporting.run_record import write_bad_videos
from runs.training.loop import Progress
from utils.distributed import Ranks
from utils.episode import BadVideo
from utils.files import refusals
from utils.logging import RecordLog, read_records

_LOGGER = logging.getLogger(__name__)


def _board(directory: Path, stays: Callable[[dict[str, Any]], bool]) -> SummaryWriter:
    """Open TensorBoard's records as one new file, with those of earlier starts that stay, each once.

    TensorBoard reads several files in the order of their names, which hold the time: a clock that went back would mix
    them, and purge_step takes no part of a step out.
    """
    earlier, seen = sorted(directory.glob("events.out.tfevents.*")), set()
    board = SummaryWriter(directory)
    for path in earlier:
        for event in map(event_pb2.Event.FromString, RawEventFileLoader(str(path)).Load()):
            tags = tuple(value.tag for value in event.summary.value)
            if tags and (tags, event.step) not in seen and stays({"kind": tags[0].split("/")[0],
                                                                  "iteration": event.step}):
                seen.add((tags, event.step))
                board._get_file_writer().add_event(event, event.step, event.wall_time)
    board.flush()
    for path in earlier:  # a kill before this leaves both files: the next start takes each record once
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
        self._board = _board(directory / "tensorboard", stays) if ranks.main else None

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
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "iteration":
                with refusals(Path(self._board.log_dir)):
                    self._board.add_scalar(f"{values['kind']}/{name}", value, values["iteration"])

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
