"""Look at a video file once, by its packets: which stream is shown, how many frames it has, and who may read them.

The frames of a file are those that `ffmpeg -i FILE -fps_mode passthrough` puts out. A reader that jumps to a frame is
right about it only where the file says when each frame is shown, and decoding can begin at each keyframe; PyAV, which
reads in order, is right everywhere. `look_at` reads the packets and decodes the first frame; all frames are decoded
only where nothing else tells how many there are. What it found is kept in memory until the file changes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.annotations import file_stamp
from datasets.readers.clip import first_line
from datasets.readers.containers import container_kind
from utils.errors import LaunchError, VideoDecodeError

DEFAULT, ATTACHED = 0x1, 0x400  # dispositions of a stream, as FFmpeg numbers them
FAVOUR = 5_000_000  # pixels that being the default stream counts for
REORDERED_RIGHT = ("h264", "hevc", "vp8", "vp9", "av1")  # seeking is exact with their B-frames in MP4 and Matroska
STILLS = ("mjpeg", "png", "ffv1", "rawvideo", "prores")  # every frame is a keyframe
EMPTY = 16  # bytes; MPEG-4 packets below it may repeat a frame rather than hold one


class Look(NamedTuple):
    """Hold what a file holds.

    Args:
        stream: index of the stream whose frames are shown. packets: how many it has, hidden ones too.
        frames: how many are shown. fps: average frames a second, NaN where unknown. codec: FFmpeg's name of it.
        shape: height and width of the first frame, turned as it is shown.
        jumps: whether a frame can be reached from the keyframe before it, by its time.
        plain: whether frames are shown as they are stored, neither turned nor mirrored. mirrored: whether they are.
    """

    stream: int
    packets: int
    frames: int
    fps: float
    codec: str
    shape: tuple[int, int]
    jumps: bool
    plain: bool
    mirrored: bool


def open_container(path: Path) -> Any:
    """Open a file as a PyAV container. Raises av.error.FFmpegError, ValueError."""
    import av

    # A title in an odd encoding must not make a video unreadable; PyAV 19 ignores it by itself.
    lenient: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    return av.open(str(path.absolute()), **lenient)  # a bare name may have a colon, and look like a protocol


def shown_stream(container: Any) -> Any | None:
    """Return the video stream that ffmpeg shows: a default one, else the largest; a cover picture last; None: none."""
    def score(stream: Any) -> int:
        if stream.disposition & ATTACHED:
            return 1
        context = stream.codec_context
        return int(context.width * context.height + FAVOUR * bool(stream.disposition & DEFAULT))

    stream = max((stream for stream in container.streams.video if stream.codec_context), key=score, default=None)
    if stream is not None:
        stream.thread_type, stream.thread_count = "NONE", 1
    return stream


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


def display_matrix(frame: Any) -> np.ndarray:
    """Return [2, 2] int64 of where a frame's x and y axes (rows) lead when it is shown."""
    from av.sidedata.sidedata import Type

    found = frame.side_data.get(Type.DISPLAYMATRIX)
    return np.eye(2, dtype=np.int64) if found is None else np.frombuffer(found, np.int32)[[[0, 1], [3, 4]]].astype(int)


def turn_of(matrix: np.ndarray) -> int:
    """Return the whole degrees, clockwise, that a display matrix turns by; a mirror may come on top."""
    (a, b), scales = matrix[0], np.hypot(*matrix)
    return round(math.degrees(math.atan2(b / scales[1], a / scales[0]))) % 360 if scales.all() else 0


def _units(data: memoryview, prefix: int, hevc: bool) -> Iterator[tuple[int, memoryview]]:
    """Yield type and bytes of the NAL units of an H.264 or HEVC packet, each behind its length in `prefix` bytes."""
    at = 0
    while at + prefix < len(data):
        end = at + prefix + int.from_bytes(data[at : at + prefix], "big")
        unit = data[at + prefix : end]
        if not len(unit):
            return
        yield (unit[0] >> 1 & 63 if hevc else unit[0] & 31), unit
        at = end


class _Packets:
    """Judge packets of one codec, one by one: whether each holds one picture, and each keyframe is an entrance."""

    def __init__(self, context: Any):
        self.codec, self.extradata = context.codec.canonical_name, bytes(context.extradata or b"")
        self.prefix = 0  # length of a NAL unit's length; 0: they are found by start codes
        if self.codec in ("h264", "hevc") and self.extradata[:1] == b"\x01":
            self.prefix = (self.extradata[21 if self.codec == "hevc" else 4] & 3) + 1
        # Whether each packet is one frame; whether decoding can begin at each keyframe.
        self.pictures = self.codec in ("mpeg4", *REORDERED_RIGHT, *STILLS)
        self.entrances = self.pictures and (self.codec not in ("h264", "hevc") or self.prefix > 0)
        self._sizes = set[Any]()

    def add(self, packet: Any) -> None:
        data, key = memoryview(packet), packet.is_keyframe
        if self.prefix:
            self._add_units(data, key)
        elif self.codec == "mpeg4":
            self.pictures &= len(data) > EMPTY
        elif self.codec == "vp8":
            self.pictures &= bool(data[0] & 16)
            if key:
                self._sizes.add(bytes(data[6:10]))
        elif self.codec == "vp9" and key:
            self._sizes.add(int.from_bytes(data[4:9], "big") >> 4)
        elif self.codec == "vp9" and data[-1] & 0xE0 != 0xC0:  # one frame alone, and not several with an index
            self.pictures &= bool(data[0] & 2) or bool(data[0] & 8)
        self.entrances &= len(self._sizes) < 2 and not packet.has_sidedata("new_extradata")

    def _add_units(self, data: memoryview, key: bool) -> None:
        hevc, last = self.codec == "hevc", 31 if self.codec == "hevc" else 5
        picture = entrance = False
        for kind, unit in _units(data, self.prefix, hevc):
            picture |= (hevc or kind > 0) and kind <= last
            entrance |= hevc or kind == 5  # other keyframes of H.264 refer to what is before them
            if kind == (33 if hevc else 7):  # another size may begin here
                self.entrances &= bytes(unit) in self.extradata
            if picture and (entrance or not key):
                break
        self.pictures &= picture
        self.entrances &= entrance or not key


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file as a PyAV container and give it with the stream that is shown.

    Raises VideoDecodeError: it cannot be opened, or has no pictures; av.error.FFmpegError, ValueError.
    """
    import av

    try:
        container = open_container(path)
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoDecodeError(path, f"not a video, or damaged (pyav: {first_line(error)})") from error
    with container:
        stream = shown_stream(container)
        if stream is None:
            raise VideoDecodeError(path, "has no video stream that can be decoded" if container.streams.video else
                                   "has no video stream")
        yield container, stream


def _ordered(times: list[int], decoded_at: list[int | None], keys: list[bool], reordered: bool) -> bool:
    """Whether times are those of showing, none twice or below 0, and no frame is shown before a keyframe it follows.

    Times that only rise, of frames that are stored in another order than shown (`reordered`), are those of storing.
    A keyframe that is decoded before the one before it is shown may be taken for that one.
    """
    shown, at = np.array(times), np.flatnonzero(keys)
    if any(mark is not None and mark <= shown[one] for one, mark in
           zip(at, (decoded_at[key] for key in at[1:]), strict=False)):
        return False
    if len(set(times)) < len(times) or min(times) < 0 or (reordered and len(times) > 1 and (np.diff(shown) > 0).all()):
        return False
    latest, earliest = np.maximum.accumulate(shown), np.minimum.accumulate(shown[::-1])[::-1]
    return bool((latest[at] == shown[at]).all() and (earliest[at] == shown[at]).all())


def _first_frame(packet: Any) -> Any | None:
    """Return the frame of a stream's first packet, if that is a keyframe; None: it is not, or none comes of it."""
    import av

    try:
        return next(iter([*packet.decode(), *packet.stream.codec_context.decode(None)]), None)
    except av.error.FFmpegError:
        return None


def _may_jump(path: Path, context: Any, codec: str) -> bool:
    """Whether seeking was found exact in this container with this codec."""
    with open(path, "rb") as file:
        kind = container_kind(file.read(64))
    if kind == "avi" and codec in ("h264", "hevc"):
        return False
    return kind is not None and (not context.has_b_frames or (kind != "avi" and codec in REORDERED_RIGHT))


def _counted(path: Path) -> tuple[int, Any | None]:
    """Return the number of frames, and the first one, by decoding all of them."""
    count, first = 0, None
    with opened(path) as (container, stream):
        for frame in decoded(container, stream):
            first = first or frame
            count += 1
    return count, first


@lru_cache(maxsize=1 << 16)
def _look(path: Path, _stamp: tuple[int, int]) -> Look:
    times: list[int | None] = []
    marks: list[int | None] = []  # when packets are decoded
    keys: list[bool] = []
    whole, first = True, None  # whole: no packet is hidden or empty
    with opened(path) as (container, stream):
        context, judge = stream.codec_context, _Packets(stream.codec_context)
        rate = stream.average_rate or stream.guessed_rate
        for packet in container.demux(stream):
            if packet.size:
                first = _first_frame(packet) if not keys and packet.is_keyframe else first
                judge.add(packet)
                times.append(packet.pts)
                marks.append(packet.dts)
                keys.append(packet.is_keyframe)
                whole &= not packet.is_discard
            else:
                whole &= packet.dts is None  # the last one, which is no packet of the file
        known = [time for time in times if time is not None]
        whole &= len(known) == len(keys) > 0 and first is not None and known[0] == min(known) and judge.pictures
        jumps = (whole and judge.entrances and len(container.streams.video) == 1
                 and _ordered(known, marks, keys, bool(context.has_b_frames)) and _may_jump(path, context, judge.codec))
        codec, index = context.name, stream.index
    count = len(keys)
    if not whole:
        count, first = _counted(path)
    matrix = np.eye(2) if first is None else display_matrix(first)
    shape = (0, 0) if first is None else (first.height, first.width)[:: -1 if turn_of(matrix) % 180 == 90 else 1]
    return Look(index, len(keys), count, float(rate) if rate else math.nan, codec, shape, jumps,
                bool((np.sign(matrix) == np.eye(2)).all()), turn_of(matrix) % 90 > 0 or bool(np.linalg.det(matrix) < 0))


def look_at(path: Path) -> Look:
    """Return what a file holds.

    Raises VideoDecodeError: it is no video, or damaged; LaunchError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise LaunchError(f"DATA.DECODER pyav: the av package cannot be imported ({error})") from error
    try:
        return _look(path.absolute(), file_stamp(path))
    except VideoDecodeError as error:
        raise VideoDecodeError(path, error.reason) from error
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoDecodeError(path, f"damaged: decoding failed (pyav: {first_line(error)})") from error
