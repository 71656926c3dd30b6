"""Tell from a packet alone whether it holds a picture that is shown, and whether decoding can begin with it."""

from collections.abc import Callable
from typing import Any

STILLS = ("mjpeg", "png", "ffv1", "rawvideo", "prores")  # every frame is a keyframe
SPARED = ("h264",)  # what no picture refers to says so; in HEVC those of higher layers may refer to it all the same
EMPTY = 16  # bytes; MPEG-4 packets below it may repeat a frame rather than hold one
SEI, RECOVERY_POINT = 6, 6  # H.264: type of a unit, and of a message in it
IDR = {False: (5,), True: (19, 20)}  # pictures of H.264, and of HEVC (true), where all that was before is forgotten
SETS = {False: (7, 8), True: (32, 33, 34)}  # units that say how those behind them are to be decoded
OPEN = (16, 17, 18, 21)  # of HEVC: nothing in front of them is needed for what follows, but it may be shown among it
# From there on pictures are decoded in another way than the file says at its start, as where files were joined: whoever
# comes from elsewhere may not know. Decoding cannot begin there; can in a closed group (where streams were joined in an
# open one, pictures come out in another order than that of their times); can, by FFmpeg of today; can, by any decoder.
CHANGED, NOWHERE, CLOSED, EXACT, CLEAN = -1, 0, 1, 2, 3
Judge = Callable[[Any], tuple[bool, int]]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of an SEI message, in bytes that add up until one is not 255, and the place behind it."""
    value = 0
    while data[at : at + 1] == b"\xff":
        value, at = value + 255, at + 1
    return value + int.from_bytes(data[at : at + 1], "big"), at + 1


def _recovers(unit: bytes) -> bool:
    """Whether an H.264 SEI unit, behind its first byte, says that all that is shown from here on will be exact.

    That is a recovery point after 0 frames, which matches exactly and is no broken link (ITU-T H.264, D.2.8).
    """
    data, at = unit.replace(b"\0\0\3", b"\0\0"), 0
    while at + 2 < len(data):
        kind, at = _number(data, at)
        size, at = _number(data, at)
        if kind == RECOVERY_POINT:
            return data[at : at + 1] > b"" and data[at] >> 5 == 0b110
        at += size
    return False


def _judge_units(prefix: int, hevc: bool, extradata: bytes) -> Judge:
    """Judge H.264 or HEVC packets, whose units stand each behind its length in `prefix` bytes."""
    pictures, clean, closed = range(32) if hevc else range(1, 6), IDR[hevc], OPEN if hevc else ()
    sets = SETS[hevc]

    def judge(packet: Any) -> tuple[bool, int]:
        data, at, recovers, changed = memoryview(packet), 0, False, False
        while at + prefix < len(data):
            kind = data[at + prefix] >> 1 & 63 if hevc else data[at + prefix] & 31
            if kind in pictures:  # the other units of the packet are of the same picture
                return True, CHANGED if changed else CLEAN if kind in clean else CLOSED if kind in closed else \
                    EXACT if recovers else NOWHERE
            behind = at + prefix + int.from_bytes(data[at : at + prefix], "big")
            changed |= kind in sets and bytes(data[at + prefix : behind]) not in extradata
            if kind == SEI and packet.is_keyframe and not hevc:
                recovers |= _recovers(bytes(data[at + prefix + 1 : behind]))
            at = behind
        return False, NOWHERE

    return judge


def judge_of(codec: str, extradata: bytes) -> Judge:
    """Return what says of a codec's packets: sure to hold one picture that is shown; if decoding can begin there.

    It can where every frame is right that is shown from this one on; those shown before it need not be.
    """
    if codec in ("h264", "hevc"):
        prefix = extradata[21:22] if codec == "hevc" else extradata[4:5]
        if extradata[:1] != b"\x01" or not prefix:  # units are found by start codes: no MP4, and hardly Matroska
            return lambda packet: (True, NOWHERE)
        return _judge_units((prefix[0] & 3) + 1, codec == "hevc", extradata)
    if codec == "mpeg4":
        return lambda packet: (packet.size > EMPTY, CLEAN)
    if codec == "vp8":
        return lambda packet: (memoryview(packet)[0] & 16 > 0, CLEAN)
    if codec == "vp9":  # one that is shown, or shown again, or several with an index behind them
        return lambda packet: (memoryview(packet)[0] & 10 > 0 or memoryview(packet)[-1] & 0xE0 == 0xC0, CLEAN)
    known = codec in ("av1", *STILLS)
    return lambda packet: (known, CLEAN if known else NOWHERE)
