"""Find and open the videos of a split by their number."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets.annotations import file_stamp, resolve_video
from datasets.cache.mended import MendedClip
from datasets.cache.store import FrameCache
from datasets.decoding import open_video
from datasets.readers.clip import Clip
from utils.episode import VideoRecord


@dataclass(frozen=True, slots=True)
class Videos:
    """Find and open the videos of one split list; a video's number is its position in the list."""

    records: Sequence[VideoRecord]
    root: Path  # DATA_ROOT_DIR
    list_format: str | None  # a name of annotations.LIST_FORMATS; None: SSv2's
    decoder: str  # a name of decoding.DECODERS
    cache: FrameCache | None = None  # frames that were decoded and resized before, in place of the files

    def path(self, video: int) -> Path:
        """Return the file or folder of a video. Raises as annotations.resolve_video."""
        return resolve_video(self.root, self.records[video], self.list_format, prefer_folder=self.decoder == "frames")

    def stamp(self, video: int) -> tuple[int, int]:
        """Return size and time (ns) of the file that a video's pixels are, or (cache) were, decoded from.

        Raises as `path`, and OSError.
        """
        if self.cache is not None:
            return self.cache.entries[self.records[video].path].stamp
        return file_stamp(self.path(video))

    def open(self, video: int) -> tuple[Path, Clip]:
        """Return where a video lies and its opened clip; with a cache its file need not be there.

        Raises as `path` and decoding.open_video; FrameCacheError where a cache is damaged and the file is not there.
        """
        if self.cache is not None:
            listed = self.records[video].path
            return self.root / listed, MendedClip(self.cache, listed, partial(self.path, video), self.decoder)
        path = self.path(video)
        return path, open_video(path, self.decoder)
