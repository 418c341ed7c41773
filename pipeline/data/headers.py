"""What the header of an image file says, read without decoding: its size, and whether a JPEG's end is there."""

import re
import struct
from collections.abc import Iterator

MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # FF 00 is a plain FF in a scan, D0 to D7 restart it
END = 0xD9
WITHOUT_LENGTH = (0x01, 0xD8)
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the segments of a JPEG that hold its size
WIDTH, HEIGHT = 256, 257  # tags of a TIFF
INTEGERS = {3: "H", 4: "I", 16: "Q"}  # the types of a TIFF's numbers
MAX_TAGS = 4096


def declared_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels as a JPEG, PNG, WebP, TIFF, BMP or GIF declares them; None if it cannot tell."""
    try:
        if content.startswith(b"\xff\xd8"):
            return _size_of_jpeg(content)
        if content.startswith(b"\x89PNG"):
            return _numbers(">II", content, 16)
        if content.startswith(b"RIFF"):
            return _size_of_webp(content)
        if content.startswith((b"II", b"MM")):
            return _size_of_tiff(content)
        if content.startswith(b"BM"):
            old = _numbers("<I", content, 14) == (12,)
            width, height = _numbers("<HH" if old else "<ii", content, 18)
            return abs(width), abs(height)
        return _numbers("<HH", content, 6) if content.startswith(b"GIF8") else None
    except (struct.error, OverflowError):  # it is truncated, or says that something lies beyond any file
        return None


def jpeg_ends(content: bytes) -> bool:
    """Whether a JPEG's end is there. In most it is the end of the file, where nothing else looks like it."""
    return content.endswith(b"\xff\xd9") or any(kind == END for kind, _ in _jpeg_segments(content))


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The kind of each segment to the end, and the offset of its content.

    Segments are walked by their lengths, scans to the next marker: a thumbnail before the photo and a film after it, as
    phones write them, have ends and sizes of their own.
    """
    offset = 2
    while marker := MARKER.search(content, offset):
        kind = marker.group()[-1]
        offset = marker.end()
        yield kind, offset
        if kind == END:
            return
        if kind not in WITHOUT_LENGTH:
            offset += int.from_bytes(content[offset : offset + 2], "big")


def _size_of_jpeg(content):
    for kind, offset in _jpeg_segments(content):
        if kind in FRAMES:
            height, width = _numbers(">HH", content, offset + 3)
            return width, height
    return None


def _size_of_webp(content):
    kind = content[12:16]
    if kind == b"VP8X":
        return tuple(1 + int.from_bytes(content[offset : offset + 3], "little") for offset in (24, 27))
    if kind == b"VP8L":
        (bits,) = _numbers("<I", content, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return tuple(number & 0x3FFF for number in _numbers("<HH", content, 26)) if kind == b"VP8 " else None


def _size_of_tiff(content):
    """The tags of the first image; a BigTIFF, of version 43, has wider numbers."""
    order = "<" if content.startswith(b"II") else ">"
    (version,) = _numbers(f"{order}H", content, 2)
    offset, count, entry, value = ("8xQ", "Q", 20, 12) if version == 43 else ("4xI", "H", 12, 8)
    (start,) = _numbers(order + offset, content, 0)
    (num_entries,) = _numbers(order + count, content, start)
    first = start + struct.calcsize(order + count)
    found = {}
    for at in range(first, first + entry * min(num_entries, MAX_TAGS), entry):
        tag, kind = _numbers(f"{order}HH", content, at)
        if tag in (WIDTH, HEIGHT) and kind in INTEGERS:
            (found[tag],) = _numbers(order + INTEGERS[kind], content, at + value)
    return (found[WIDTH], found[HEIGHT]) if len(found) == 2 else None


def _numbers(layout, content, offset):
    return struct.unpack_from(layout, content, offset)
