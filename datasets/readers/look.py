"""Look at a video file once, by its packets: which stream is shown, how many frames it has, and who may read them.

The frames of a file are those that `ffmpeg -i FILE -fps_mode passthrough` puts out. A reader that jumps to a frame is
right about it only where the file says when each frame is shown, and decoding can begin at each keyframe; PyAV, which
reads in order, is right everywhere. `look_at` reads the packets and decodes the first frame; all frames are decoded
only where nothing else tells how many there are. What it found is kept in memory until the file changes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.annotations import file_stamp
from datasets.readers.clip import first_line
from datasets.readers.containers import container_kind
from datasets.readers.packets import CHANGED, SPARED, STILLS, judge_of
from datasets.readers.stamps import delay, entered, paced, timed
from utils.errors import LaunchError, VideoDecodeError
from utils.foreign import stranger

DEFAULT, ATTACHED = 0x1, 0x400  # dispositions of a stream, as FFmpeg numbers them
FAVOUR = 5_000_000  # pixels that being the default stream counts for
REORDERED_RIGHT = ("h264", "hevc", "vp8", "vp9", "av1")  # seeking is exact with their B-frames in MP4 and Matroska
FASTEST = 120  # frames a second; of more, times decide: for VP8 of a browser headers say 240 or 1000


class Look(NamedTuple):
    """Hold what a file holds.

    Args:
        frames: how many are shown. packets: how many are stored, hidden ones too, or places for them (AVI).
        fps: average frames a second, NaN where unknown. shape: height and width of the first frame, as it is shown.
        jumps: whether any reader can reach a frame from the keyframe before it, by its time.
        pace: seconds of the first frame, and from one to the next where each is nearer to its place than to another's,
            else 0.
        starts: int64 [S, 2], rising: frames at which decoding can begin, all from there on are right; and their times.
        grid: time of the first frame, and step: those between them, in the stream's units, are rounded multiples of it.
            0, 0: times are others, or no frame can be passed over.
        matrix: a, b, c, d: where a frame's x axis (a, b) and y axis (c, d) lead when it is shown; or multiples of it.
    """

    frames: int
    packets: int
    fps: float
    shape: tuple[int, int]
    jumps: bool
    pace: tuple[float, float]
    starts: np.ndarray
    grid: tuple[int, float]
    matrix: tuple[int, int, int, int]

    def tick(self, index: int) -> int:
        """Return the time of a frame, in the stream's units, by the grid."""
        return self.grid[0] + round(index * self.grid[1])

    @property
    def turn(self) -> int:
        """Whole degrees, clockwise, that frames are turned by, as ffmpeg rounds them; a mirror may come on top."""
        a, b, c, d = self.matrix
        return round(math.degrees(math.atan2(b / (math.hypot(b, d) or 1), a / (math.hypot(a, c) or 1)))) % 360

    @property
    def mirrored(self) -> bool:
        """Whether frames are mirrored, too."""
        a, b, c, d = self.matrix
        return a * d < b * c

    def seen(self, frame: Any) -> "Look":
        """Return this with the matrix of a frame."""
        return self._replace(matrix=_matrix(frame))


UNSEEN = Look(frames=0, packets=0, fps=math.nan, shape=(0, 0), jumps=False, pace=(0.0, 0.0),
              starts=np.empty((0, 2), np.int64), grid=(0, 0.0), matrix=(1, 0, 0, 1))  # of no file


def _preference(stream: Any) -> int:
    """Return how much ffmpeg wants to show a stream: a default one, else the largest; a cover picture last."""
    if stream.disposition & ATTACHED:
        return 1
    return int(stream.codec_context.width * stream.codec_context.height + FAVOUR * bool(stream.disposition & DEFAULT))


def decoded(container: Any, stream: Any, spared: Callable[[int], bool] | None = None) -> Iterator[Any]:
    """Yield the frames of a stream in the order they are shown in.

    Where it does not begin with a keyframe, as after a cut, what cannot be decoded before the first frame is passed
    over, as ffmpeg does. Raises av.error.FFmpegError.

    Args:
        spared: says of a time whether its frame need not be decoded, where no other refers to it.
    """
    import av

    lenient: bool | None = None
    for packet in container.demux(stream):
        if lenient is None and packet.size:
            lenient = not packet.is_keyframe
        if spared:
            stream.codec_context.skip_frame = "NONREF" if packet.size and spared(packet.pts) else "DEFAULT"
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            if lenient and packet.size:
                continue
            raise
        lenient = False if frames else lenient
        yield from frames


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """Return Look.matrix of a frame, which then is in a reference cycle: this is no way to treat every frame."""
    from av.sidedata.sidedata import Type

    try:
        found = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # of a kind that PyAV does not know, such as EXIF, stands before it
        turn = math.radians(-frame.rotation)
        a, b = round(65536 * math.cos(turn)), round(65536 * math.sin(turn))
        return a, b, -b, a
    a, b, _, c, d, *_ = (1, 0, 0, 0, 1) if found is None else np.frombuffer(found, np.int32).tolist()
    return a, b, c, d


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what PyAV raises on a damaged file into a VideoDecodeError, and name the file as it was given."""
    import av

    try:
        yield
    except VideoDecodeError as error:
        raise VideoDecodeError(path, error.reason) from error
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoDecodeError(path, f"damaged: decoding failed (pyav: {first_line(error)})") from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file as a PyAV container and give it with the stream that is shown.

    Raises VideoDecodeError: it cannot be opened, or has no pictures; av.error.FFmpegError, ValueError.
    """
    import av

    # A title in an odd encoding must not make a video unreadable; PyAV 19 ignores it by itself.
    lenient: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        container = av.open(str(path.absolute()), **lenient)  # a bare name may have a colon, and look like a protocol
    except (av.error.FFmpegError, ValueError) as error:
        what = stranger(path)
        raise VideoDecodeError(path, f"is {what}, not a video" if what else
                               f"not a video, or damaged (pyav: {first_line(error)})") from error
    with container:
        if container.format.name.endswith("_pipe"):  # of a JPEG, PNG, ... file, whatever its name
            raise VideoDecodeError(path, f"is a picture ({container.format.name.removesuffix('_pipe')}), not a video")
        streams = [stream for stream in container.streams.video if stream.codec_context]
        if not streams:
            raise VideoDecodeError(path, "has no video stream that can be decoded" if container.streams.video else
                                   "has no video stream")
        stream = max(streams, key=_preference)
        stream.thread_type, stream.thread_count = "NONE", 1
        yield container, stream


def rate_of(stream: Any, times: Sequence[int | None] = ()) -> float:
    """Return average frames a second, NaN where unknown; by the frames' times where the header says none, or too many.

    Args:
        times: of the frames, in the stream's units, in any order; empty or with None: they are not known.
    """
    rate = float(stream.average_rate or stream.guessed_rate or math.nan)
    known = [time for time in times if time is not None]
    if rate <= FASTEST or len(known) < len(times) or len(set(known)) < 2:
        return rate
    return (len(known) - 1) / float((max(known) - min(known)) * stream.time_base)


class _Beginning:
    """Decodes the first packets of a stream until a frame comes: `first`. `held` frames are held back by then, so as to
    give all in the order they are shown in; None and more than all where none comes."""

    def __init__(self, context: Any):
        self.first: Any | None = None
        self.held = 0
        self._context, self._failed = context, False

    def take(self, packet: Any | None) -> None:
        """Decode a packet, if it is still needed; None: there are no more."""
        import av

        if self.first is not None or self._failed:
            return
        try:
            self.first = next(iter(self._context.decode(packet)), None)
        except av.error.FFmpegError:
            self._failed = True
        self.held += self.first is None


def _may_jump(path: Path, codec: str, reordered: bool) -> bool:
    """Whether seeking was found exact in this container with this codec."""
    with open(path, "rb") as file:
        kind = container_kind(file.read(64))
    if kind == "avi":
        return not reordered and codec not in ("h264", "hevc")
    return kind is not None and (not reordered or codec in REORDERED_RIGHT)


def _counted(path: Path) -> tuple[int, Any | None]:
    """Return the number of frames, and the first one, by decoding all of them."""
    with opened(path) as (container, stream):
        frames = decoded(container, stream)
        first = next(frames, None)
        return sum(1 for _ in frames) + (first is not None), first


@lru_cache(maxsize=1 << 16)
def _look(path: Path, _stamp: tuple[int, int]) -> Look:
    packets: list[tuple[Any, ...]] = []  # (shown at, decoded at, keyframe, not hidden, picture, entrance)
    empty, pace, starts, grid, closed = False, UNSEEN.pace, UNSEEN.starts, UNSEEN.grid, False
    with opened(path) as (container, stream):
        codec, kind = stream.codec_context.codec.canonical_name, container.format.name
        judge = judge_of(codec, bytes(stream.codec_context.extradata or b""))
        beginning = _Beginning(stream.codec_context)
        for packet in container.demux(stream):
            if packet.size:
                beginning.take(packet)
                packets.append((packet.pts, packet.dts, packet.is_keyframe, not packet.is_discard, *judge(packet)))
            else:
                empty |= packet.dts is not None  # else it is the end, which is no packet of the file
        times, marks, keys, shown, pictures, entrances = zip(*packets, strict=True) if packets else ((),) * 6
        beginning.take(None)
        first = beginning.first
        whole = bool(not empty and keys and keys[0] and None not in times and all(shown) and all(pictures)
                     and first is not None and first.pts == times[0] == min(times))
        rate = rate_of(stream, marks if None in times else times)
        reordered = stream.codec_context.has_b_frames
        if whole and _may_jump(path, codec, reordered) and timed(times, reordered) and CHANGED not in entrances \
                and delay(stamps := np.array(times)) <= beginning.held:  # else FFmpeg loses what comes too late
            starts, closed = entered(stamps, marks, keys, entrances)
            pace, grid = paced(stamps, float(stream.time_base))
        jumps = closed and len(container.streams.video) == 1
    frames = len(packets)
    if not whole:
        frames, first = _counted(path)
    places = len(packets)
    if kind == "avi" and places > 1 and None not in marks:  # it has no times: frames that are not there take places
        places = max(places, round((max(marks) - min(marks)) * places / (places - 1)))
    look = Look(frames, places, rate * len(packets) / max(places, 1), UNSEEN.shape, jumps, pace, starts,
                grid if codec in SPARED else UNSEEN.grid, UNSEEN.matrix)
    if first is None:
        return look
    look = look.seen(first)
    if look.turn or look.mirrored:  # a stream may ask it of its keyframes alone; torchcodec asks the container
        with opened(path) as (container, stream):
            look = look.seen(next(islice(decoded(container, stream), 1, None), first))
        look = look._replace(jumps=jumps and codec not in STILLS)  # pictures with EXIF turn themselves
    return look._replace(shape=(first.height, first.width)[:: -1 if look.turn % 180 == 90 else 1])


def look_at(path: Path) -> Look:
    """Return what a file holds.

    Raises VideoDecodeError: it is no video, or damaged; LaunchError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise LaunchError(f"DATA.DECODER pyav: the av package cannot be imported ({error})") from error
    with damage_told(path):
        return _look(path.absolute(), file_stamp(path))
