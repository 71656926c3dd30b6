"""Read a long video once, in order: frames at wanted times, in memory that does not grow with the video."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.decoding import FOLDER_FPS, Clip, open_video, reachable
from datasets.readers.look import UNSEEN, damage_told, opened
from datasets.readers.pyav import upright
from datasets.readers.times import stamped, step_of
from utils.errors import VideoDecodeError


class _Shown(NamedTuple):
    """Hold a frame that is shown from a second on, not yet turned into a picture."""

    second: float
    step: float  # seconds to the next frame, where none follows
    picture: Callable[[], np.ndarray]


def _of_file(path: Path) -> Iterator[_Shown]:
    """Yield the frames of a file as it is decoded, by PyAV, which reads every container."""
    with opened(path) as (container, stream):
        frames, last = stamped(container, stream), None
        first = list(islice(frames, 2))
        if not first:
            return
        look = UNSEEN.seen(first[0][1])
        if look.turn or look.mirrored:  # a stream may ask it of its keyframes alone
            look = look.seen(first[-1][1])
        size, even = (first[0][1].width, first[0][1].height), step_of(stream)
        for second, frame in chain(first, frames):
            yield _Shown(second, even if last is None else second - last, partial(upright, frame, *size, look))
            last = second


def _picture(clip: Clip, index: int) -> np.ndarray:
    picture: np.ndarray = clip.frames([index])[0]
    return picture


def _of_folder(path: Path) -> Iterator[_Shown]:
    clip = open_video(path)
    for index, second in enumerate(clip.times(range(clip.num_frames))):
        yield _Shown(float(second), 1 / FOLDER_FPS, partial(_picture, clip, index))


def _told(path: Path, shown: Iterator[_Shown]) -> Iterator[_Shown]:
    """Yield the same; what goes wrong inside becomes a VideoDecodeError."""
    while True:
        with damage_told(path):
            one = next(shown, None)
        if one is None:
            return
        yield one


def stream_frames(path: Path, seconds: Iterable[float], change: Callable[[np.ndarray], Any] = np.asarray
                  ) -> Iterator[tuple[float, Any]]:
    """Yield for each wanted second the frame that a player shows then: the last one that is shown at or before it.

    Before the first frame that is the first one. The last frame is shown for as long as the one before it; what is
    wanted behind its end, and all that follows, is left out: `itertools.count(0, 0.25)` takes a whole video, whose
    length need not be known. A file is decoded once, in order, up to the last frame wanted; two frames are held.

    Args:
        path: a file of any container that PyAV reads, or a folder of frames.
        seconds: not falling. They may be infinitely many.
        change: makes of each frame, uint8 RGB [H, W, 3], what is yielded, such as a smaller picture; called once a
            frame.

    Yields:
        (second from which on the frame is shown, frame as `change` made it).

    Raises VideoDecodeError as open_video does, when the first or a later frame is asked for; ValueError: times fall.
    """
    path = Path(path)
    with reachable(path) as folder:
        shown = _told(path, _of_folder(path) if folder else _of_file(path))
        current = next(shown, None)
    if current is None:
        raise VideoDecodeError(path, "has no frames")
    following, made = next(shown, None), None
    for before, second in pairwise(chain([-np.inf], seconds)):
        if second < before:
            raise ValueError(f"expected times that do not fall, found {second} behind {before}")
        while following is not None and following.second <= second:
            current, following, made = following, next(shown, None), None
        if following is None and second >= current.second + current.step:
            return
        if made is None:
            with damage_told(path):
                picture = current.picture()
            made = (current.second, change(picture))
        yield made
