"""Fitting a photo of any size into a square: the first matrix on the way from the photo to the network."""

import cv2
import numpy as np

from augment.geometry import resize, translation

FITS = ("pad", "crop")


def fit_photo(photo: np.ndarray, size: int, fit: str = "pad") -> tuple[np.ndarray, np.ndarray]:
    """Resizes a (height, width, 3) photo into a (size, size, 3) square and says how.

    `pad` makes the long side fit and leaves black beside the short one, so that no chin is lost; `crop` makes
    the short side fit and cuts the long one. Shrinking averages over areas, which is free of aliases.

    Returns the square and the (3, 3) matrix from pixels of the photo to pixels of the square. Both sides are
    resized to whole pixels and the matrix holds the two scales that this gives, so it is exact.
    """
    assert fit in FITS, fit
    height, width = photo.shape[:2]
    scale = size / (max if fit == "pad" else min)(height, width)
    new = max(1, round(height * scale)), max(1, round(width * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(photo, new[::-1], interpolation=interpolation)
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    if fit == "pad":
        square = np.zeros((size, size, 3), photo.dtype)
        square[top : top + new[0], left : left + new[1]] = resized
    else:
        square = resized[-top : -top + size, -left : -left + size]
    return square, (translation(left, top) @ resize((height, width), new))[0]
