"""Ask a container's own sizes, before any decoder, if a file can be whole: MP4, AVI, WebM and Matroska."""

from pathlib import Path

SLACK = 1024  # bytes a container may promise and not have before it counts as truncated


def container_kind(head: bytes) -> str | None:
    """Return "mp4", "avi" or "matroska" (WebM, too), by the first bytes of a file; None: another, or none."""
    if head[:4] == b"RIFF":
        return "avi"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    return "mp4" if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip") else None


def _ebml_number(head: bytes, at: int, keep_marker: bool) -> tuple[int, int]:
    """Return an EBML number and the position behind it; -1 for "unknown size"."""
    length = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + length], "big")
    if keep_marker:
        return value, at + length
    value &= (1 << 7 * length) - 1
    return (-1 if value == (1 << 7 * length) - 1 else value), at + length


def _matroska_end(head: bytes) -> int | None:
    """Return the byte at which a WebM or Matroska file says it ends; None if it does not say."""
    size, at = _ebml_number(head, 4, keep_marker=False)
    if size < 0 or at + size + 12 > len(head):
        return None
    name, at = _ebml_number(head, at + size, keep_marker=True)
    size, at = _ebml_number(head, at, keep_marker=False)
    return at + size if name == 0x18538067 and size >= 0 else None


def _mp4_problem(path: Path, size: int) -> str | None:
    """Return what is missing of an MP4 file: a box that ends behind the file, or the index (`moov`); None: nothing."""
    at, boxes = 0, set[bytes]()
    with open(path, "rb") as file:
        while at + 8 <= size and len(boxes) < 64:
            file.seek(at)
            head = file.read(16)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:], "big")
            boxes.add(name)
            if length == 0:
                break
            if length < 8:
                return None
            at += length
            if name in (b"mdat", b"moov") and at > size:
                return f"truncated: the file should have at least {at} bytes, found {size}"
    return None if b"moov" in boxes else "truncated: an MP4 file without its index (moov)"


def container_problem(path: Path) -> str | None:
    """Return why a file cannot be a whole video, as its container's sizes tell (MP4, AVI, WebM); None: no objection.

    Decoders read a truncated AVI or WebM as a shorter video, so this is asked before them.
    """
    size = path.stat().st_size
    if size == 0:
        return "empty file (0 bytes)"
    with open(path, "rb") as file:
        head = file.read(128)
    kind, end = container_kind(head), None
    if kind == "avi" and len(head) >= 12:
        declared = int.from_bytes(head[4:8], "little")
        end = None if declared in (0, 2**32 - 1) else declared + 8
    elif kind == "matroska" and len(head) == 128:
        end = _matroska_end(head)
    elif kind == "mp4":
        return _mp4_problem(path, size)
    if end is not None and end > size + SLACK:
        return f"truncated: the file should have {end} bytes, found {size}"
    return None
