"""Reading a photo from a file, whole or not at all."""

import errno
from pathlib import Path

import cv2
import numpy as np

from pipeline.data.headers import declared_size, jpeg_ends
from pipeline.files import check_regular

MAX_PIXELS = 2**28  # 0.8 GB in memory; a file of a few kilobytes can declare more than any memory holds
MAX_BYTES = 2**31 - 1  # of a file, the most that OpenCV takes
MAX_RATIO = 100  # of the sides: fitted by its short side, a longer photo would not fit into memory
# Of a file system that is gone for a while, or of a machine that has run out of something.
NOT_OF_A_PHOTO = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET,
    errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
}  # fmt: skip
MIN_HASHED = 128  # pixels, the least short side to which a photo is halved before it is hashed


class BrokenPhoto(Exception):
    """A photo that cannot be read; the text says why and how to mend it."""


def read_photo(path: Path) -> np.ndarray:
    """The (height, width, 3) uint8 RGB pixels of a photo, turned as its EXIF says.

    Raises BrokenPhoto if the file is missing, truncated, not an image, or of a size that no photo has; OSError or
    MemoryError for what is no fault of the photo, such as a network that is down.
    """
    content = _read(path)
    if (size := declared_size(content)) is not None:
        _check_size(path, *size)
    if content.startswith(b"\xff\xd8") and not jpeg_ends(content):  # a decoder may fill the rest with grey
        raise BrokenPhoto(f"{path} is cut short at {len(content):,} bytes; copy it again")
    try:
        photo = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    except cv2.error as error:  # of a size that OpenCV refuses, in a format whose header is not read here
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        photo = None
    if photo is None:
        raise BrokenPhoto(f"{path} is not an image that can be decoded ({len(content):,} bytes); replace it")
    _check_size(path, *photo.shape[1::-1])
    return photo


def _read(path):
    """With few system calls: after each, one of several threads waits until the interpreter is free again."""
    try:
        if (size := check_regular(path)) > MAX_BYTES:
            raise BrokenPhoto(f"{path} has {size:,} bytes; a photo has at most {MAX_BYTES:,}")
        with path.open("rb", buffering=0) as file:
            content = file.read(size)
            while len(content) < size and (more := file.read(size - len(content))):
                content += more  # a file system on a network may give less than was asked for
            return content
    except OSError as error:
        if error.errno in NOT_OF_A_PHOTO:
            raise
        raise BrokenPhoto(
            f"{path} cannot be read: {error.strerror}; copy it there, or leave it out by --skip-bad-photos"
        ) from error


def _check_size(path, width, height):
    if width * height > MAX_PIXELS:
        raise BrokenPhoto(f"{path} is of {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}; make it smaller")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BrokenPhoto(f"{path} is of {width:,} x {height:,} pixels, which is no photo; replace it")


def difference_hash(photo: np.ndarray) -> np.ndarray:
    """(32,) uint8: 256 bits that near-duplicate photos share: whether a grey pixel is darker than its right neighbour.

    A photo is halved until its short side is below 256 pixels, then sampled at six points each way per pixel of the
    hash: means over areas of any other size take OpenCV as long as decoding the photo.
    Source: "dHash", N. Krawetz, "Kind of Like That", hackerfactor.com, 2013, at 16 x 16.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    while min(grey.shape) >= 2 * MIN_HASHED:
        height, width = (side // 2 for side in grey.shape)
        grey = cv2.resize(grey[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    grey = cv2.resize(grey, (6 * 17, 6 * 16), interpolation=cv2.INTER_LINEAR)
    grey = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
    return np.packbits(grey[:, :-1] < grey[:, 1:])
