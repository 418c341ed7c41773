"""Reading a photo from a file, whole or not at all."""

import re
from pathlib import Path

import cv2
import numpy as np

MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # FF 00 is a plain FF in a scan, D0 to D7 restart it
END = 0xD9
WITHOUT_LENGTH = (0x01, 0xD8)


class BrokenPhoto(Exception):
    """A photo that cannot be read; the text says why and how to mend it."""


def read_photo(path: Path) -> np.ndarray:
    """The (height, width, 3) uint8 RGB pixels of a photo, turned as its EXIF says.

    Raises BrokenPhoto where the file is missing, cut short or no image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenPhoto(
            f"{path} cannot be read: {error.strerror}; copy it there, or go on without it by --skip-bad-photos"
        ) from error
    if content.startswith(b"\xff\xd8") and not _jpeg_ends(content):
        raise BrokenPhoto(f"{path} is cut short at {len(content):,} bytes; copy it again")
    photo = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    if photo is None:
        raise BrokenPhoto(f"{path} is not an image that can be decoded ({len(content):,} bytes); replace it")
    return photo


def _jpeg_ends(content):
    """Whether a JPEG's end is there. A decoder fills the rest of one that is cut short with grey and says nothing.

    Segments are walked by their lengths, scans to the next marker: a thumbnail before and a film behind the photo, as
    telephones write them, have ends of their own.
    """
    place = 2
    while marker := MARKER.search(content, place):
        kind = marker.group()[-1]
        if kind == END:
            return True
        place = marker.end()
        if kind not in WITHOUT_LENGTH:
            place += int.from_bytes(content[place : place + 2], "big")
    return False


def difference_hash(photo: np.ndarray) -> np.ndarray:
    """(32,) uint8: 256 bits that near-duplicate photos share, whether a grey pixel is darker than its right neighbour.

    Source: "dHash", N. Krawetz, "Kind of Like That", hackerfactor.com, 2013, at 16 x 16.
    """
    grey = cv2.cvtColor(cv2.resize(photo, (17, 16), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return np.packbits(grey[:, :-1] < grey[:, 1:])
