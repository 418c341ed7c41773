"""Reading a photo from a file, whole or not at all."""

from pathlib import Path

import cv2
import numpy as np


class BrokenPhoto(Exception):
    """A photo that cannot be read; the text says why and how to mend it."""


def read_photo(path: Path) -> np.ndarray:
    """The (height, width, 3) uint8 RGB pixels of a photo, turned as its EXIF says.

    Raises BrokenPhoto where the file is missing, cut short or no image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenPhoto(f"{path} cannot be read: {error.strerror}") from error
    # A decoder fills the rest of a JPEG that is cut short with grey. It must end (D9) after its last scan begins (DA).
    if content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise BrokenPhoto(f"{path} is cut short at {len(content):,} bytes; copy it again")
    photo = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    if photo is None:
        raise BrokenPhoto(f"{path} is not an image that can be decoded ({len(content):,} bytes); replace it")
    return photo


def difference_hash(photo: np.ndarray) -> np.ndarray:
    """(32,) uint8: 256 bits that near-duplicate photos share, whether a grey pixel is darker than its right neighbour.

    Source: "dHash", N. Krawetz, "Kind of Like That", hackerfactor.com, 2013, at 16 x 16.
    """
    grey = cv2.cvtColor(cv2.resize(photo, (17, 16), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return np.packbits(grey[:, :-1] < grey[:, 1:])
