"""Fitting a photo of any size into a square: the first matrix on the way from the photo to the network."""

from dataclasses import dataclass

import cv2
import numpy as np

from augment.geometry import resize as resize_matrix
from augment.geometry import translation
from augment.transform import Transform

RESIZE_MODES = ("letterbox", "crop")

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of a photo


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of a fitted square that is shown: `size` pixels each way from (left, top), out of `square` pixels."""

    square: int
    left: int
    top: int
    size: int

    @classmethod
    def of(cls, shares: tuple[float, float, float], size: int) -> "RegionOfInterest":
        """The ROI of `size` pixels that is nearest to (left, top, side) in shares of the square's side."""
        left, top, side = shares
        square = round(size / side)
        left, top = (min(round(share * square), square - size) for share in (left, top))
        return cls(square, left, top, size)

    @property
    def matrix(self) -> np.ndarray:
        """(1, 3, 3) pixels of the square to pixels of the ROI."""
        return translation(-self.left, -self.top)

    def then(self, view: Transform) -> Transform:
        """A view of the ROI as a view of the square: if it turns or moves, it shows what lies beside the ROI."""
        return Transform.of(self.matrix, (self.square, self.square), (self.size, self.size)).then(view)

    def cut(self, squares: np.ndarray) -> np.ndarray:
        """(N, size, size, 3) ROIs of (N, square, square, 3) squares."""
        return squares[:, self.top : self.top + self.size, self.left : self.left + self.size]


def fit_photo(photo: np.ndarray, size: int, resize: str = "letterbox") -> tuple[np.ndarray, np.ndarray]:
    """Resizes a (height, width, 3) photo into a (size, size, 3) square and says how.

    `letterbox` makes the long side fit and leaves black beside the short one, so that no chin is lost; `crop` makes
    the short side fit and cuts the long one. Shrinking averages over areas, which avoids aliasing.

    Returns the square and the (3, 3) matrix from pixels of the photo to pixels of the square. Both sides are
    resized to whole pixels and the matrix holds the two scales that this gives, so it is exact.
    """
    assert resize in RESIZE_MODES, resize
    height, width = photo.shape[:2]
    scale = size / (max if resize == "letterbox" else min)(height, width)
    new = max(1, round(height * scale)), max(1, round(width * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    top, left = (size - new[0]) // 2, (size - new[1]) // 2
    if resize == "letterbox":
        square = np.zeros((size, size, 3), photo.dtype)
        inside = square[top : top + new[0], left : left + new[1]]
        cv2.resize(photo, new[::-1], dst=inside, interpolation=interpolation)
    else:
        resized = cv2.resize(photo, new[::-1], interpolation=interpolation)
        square = resized[-top : -top + size, -left : -left + size]
    matrix = resize_matrix((height, width), new)[0]
    matrix[:2, 2] += left, top
    return square, matrix


def square_around(box: Box, margin: float) -> Box:
    """The square around the middle of a box, with `margin` on each side as a share of the box's longer side."""
    left, top, right, bottom = box
    half = (0.5 + margin) * max(right - left, bottom - top, 1)
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - half, y - half, x + half, y + half


def pixels_within(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """left, top, right and bottom of the whole pixels of a photo that a box touches, the last two as ends of slices.

    Raises ValueError if it touches none.
    """
    left, top = np.floor(np.maximum(box[:2], 0)).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(box[2:], (width, height))).astype(int).tolist()
    if left >= right or top >= bottom:
        shown = ", ".join(f"{edge:g}" for edge in box)
        raise ValueError(f"the box {shown} lies outside the photo, which has {width} x {height} pixels")
    return left, top, right, bottom


def fit_box(photo: np.ndarray, box: Box | None, size: int, resize: str = "letterbox") -> tuple[np.ndarray, np.ndarray]:
    """`fit_photo` of the pixels in a box, or of the whole photo, with the matrix from pixels of the whole photo."""
    if box is None:
        return fit_photo(photo, size, resize)
    left, top, right, bottom = pixels_within(box, *photo.shape[:2])
    square, matrix = fit_photo(photo[top:bottom, left:right], size, resize)
    return square, matrix @ translation(-left, -top)[0]
