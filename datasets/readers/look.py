"""Look at a video file once, by its packets: which stream is shown, how many frames it has, and who may read them.

The frames of a file are those that `ffmpeg -i FILE -fps_mode passthrough` puts out. A reader that jumps to a frame is
right about it only where the file says when each frame is shown, and decoding can begin at each keyframe; PyAV, which
reads in order, is right everywhere. `look_at` reads the packets and decodes the first frame; all frames are decoded
only where nothing else tells how many there are. What it found is kept in memory until the file changes.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.annotations import file_stamp
from datasets.readers.clip import first_line
from datasets.readers.containers import container_kind
from utils.errors import LaunchError, VideoDecodeError
from utils.foreign import stranger

DEFAULT, ATTACHED = 0x1, 0x400  # dispositions of a stream, as FFmpeg numbers them
FAVOUR = 5_000_000  # pixels that being the default stream counts for
REORDERED_RIGHT = ("h264", "hevc", "vp8", "vp9", "av1")  # seeking is exact with their B-frames in MP4 and Matroska
STILLS = ("mjpeg", "png", "ffv1", "rawvideo", "prores")  # every frame is a keyframe
FASTEST = 240  # frames a second; a header that says more does not mean it: VP8 of a browser says 1000
EMPTY = 16  # bytes; MPEG-4 packets below it may repeat a frame rather than hold one


class Look(NamedTuple):
    """Hold what a file holds.

    Args:
        frames: how many are shown. packets: how many are stored, hidden ones too, or places for them (AVI).
        fps: average frames a second, NaN where unknown. shape: height and width of the first frame, as it is shown.
        jumps: whether a frame can be reached from the keyframe before it, by its time.
        matrix: a, b, c, d: where a frame's x axis (a, b) and y axis (c, d) lead when it is shown; or multiples of it.
    """

    frames: int
    packets: int
    fps: float
    shape: tuple[int, int]
    jumps: bool
    matrix: tuple[int, int, int, int]

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


UNSEEN = Look(frames=0, packets=0, fps=math.nan, shape=(0, 0), jumps=False, matrix=(1, 0, 0, 1))  # of no file


def _preference(stream: Any) -> int:
    """Return how much ffmpeg wants to show a stream: a default one, else the largest; a cover picture last."""
    if stream.disposition & ATTACHED:
        return 1
    return int(stream.codec_context.width * stream.codec_context.height + FAVOUR * bool(stream.disposition & DEFAULT))


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream in the order they are shown in.

    Where it does not begin with a keyframe, as after a cut, what cannot be decoded before the first frame is passed
    over, as ffmpeg does. Raises av.error.FFmpegError.
    """
    import av

    lenient: bool | None = None
    for packet in container.demux(stream):
        if lenient is None and packet.size:
            lenient = not packet.is_keyframe
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


def _kinds(data: memoryview, prefix: int, hevc: bool) -> set[int]:
    """Return the types of the NAL units in an H.264 or HEVC packet, each unit behind its length in `prefix` bytes."""
    at, kinds = 0, set()
    while at + prefix < len(data):
        kinds.add(data[at + prefix] >> 1 & 63 if hevc else data[at + prefix] & 31)
        at += prefix + int.from_bytes(data[at : at + prefix], "big")
    return kinds


def _judged(codec: str, extradata: bytes, packet: Any) -> tuple[bool, bool]:
    """Return whether a packet is sure to hold one picture that is shown, and decoding to begin there if anywhere."""
    data, hevc = memoryview(packet), codec == "hevc"
    if codec in ("h264", "hevc"):
        first, last, prefix = (0, 31, extradata[21:22]) if hevc else (1, 5, extradata[4:5])
        if extradata[:1] != b"\x01" or not prefix:  # units are found by start codes: no MP4, and hardly Matroska
            return True, False
        kinds = _kinds(data, (prefix[0] & 3) + 1, hevc)
        # H.264's keyframes other than IDR pictures (5) refer to what is before them.
        return any(first <= kind <= last for kind in kinds), hevc or 5 in kinds
    if codec == "mpeg4":
        return len(data) > EMPTY, True
    if codec == "vp8":
        return data[0] & 16 > 0, True
    if codec == "vp9":  # one that is shown, or shown again, or several with an index behind them
        return data[0] & 10 > 0 or data[-1] & 0xE0 == 0xC0, True
    return codec in ("av1", *STILLS), codec in ("av1", *STILLS)


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


def _ordered(times: Sequence[int], marks: Sequence[int | None], keys: Sequence[bool], reordered: bool) -> bool:
    """Whether times are those of showing, none twice or below 0, and no frame is shown before a keyframe it follows.

    Times that only rise, of frames that are stored in another order than shown (`reordered`), are those of storing.
    A keyframe that is decoded before the one before it is shown may be taken for that one.
    """
    shown, at = np.array(times), np.flatnonzero(keys)
    if len(set(times)) < len(times) or min(times) < 0 or (reordered and len(times) > 1 and (np.diff(shown) > 0).all()):
        return False
    latest, earliest = np.maximum.accumulate(shown), np.minimum.accumulate(shown[::-1])[::-1]
    return bool((latest[at] == shown[at]).all() and (earliest[at] == shown[at]).all()) and all(
        mark is None or mark > time for time, mark in zip(shown[at], [marks[key] for key in at[1:]], strict=False))


def _first_frame(packet: Any) -> Any | None:
    """Return the frame of a stream's first packet; None: none comes of it."""
    import av

    try:
        return next(iter([*packet.decode(), *packet.stream.codec_context.decode(None)]), None)
    except av.error.FFmpegError:
        return None


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
    empty, first = False, None
    with opened(path) as (container, stream):
        codec, extradata = stream.codec_context.codec.canonical_name, bytes(stream.codec_context.extradata or b"")
        kind = container.format.name
        for packet in container.demux(stream):
            if packet.size:
                first = _first_frame(packet) if not packets else first
                packets.append((packet.pts, packet.dts, packet.is_keyframe, not packet.is_discard,
                                *_judged(codec, extradata, packet)))
            else:
                empty |= packet.dts is not None  # else it is the end, which is no packet of the file
        times, marks, keys, shown, pictures, entrances = zip(*packets, strict=True) if packets else ((),) * 6
        whole = not empty and first is not None and keys[0] and None not in times and times[0] == min(times) \
            and all(shown) and all(pictures)
        rate = rate_of(stream, marks if None in times else times)
        reordered = bool(stream.codec_context.has_b_frames)
        jumps = whole and len(container.streams.video) == 1 and _may_jump(path, codec, reordered) and all(
            entrance for entrance, key in zip(entrances, keys, strict=True) if key
        ) and _ordered(times, marks, keys, reordered)
    frames = len(packets)
    if not whole:
        frames, first = _counted(path)
    places = len(packets)
    if kind == "avi" and places > 1 and None not in marks:  # it has no times: frames that are not there take places
        places = max(places, round((max(marks) - min(marks)) * places / (places - 1)))
    look = UNSEEN._replace(frames=frames, packets=places, fps=rate * len(packets) / max(places, 1), jumps=jumps)
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
