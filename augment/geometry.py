"""Batches of 3 x 3 matrices in the convention of `augment/__init__.py`, and what they do to points.

Every builder takes numbers or arrays of shape (B,) and returns (B, 3, 3) float64; a number counts as B = 1.
"""

import cv2
import numpy as np

IDENTITY = np.eye(3)
LAST_ROW = IDENTITY[2]  # of a matrix that is affine


def matrices(rows):
    """A (B, 3, 3) float64 array from two or three rows of three entries, each a number or a (B,) array."""
    if len(rows) == 2:
        rows = [*rows, (0, 0, 1)]
    entries = [entry for row in rows for entry in row]
    sizes = {entry.size for entry in entries if getattr(entry, "ndim", 0)}
    built = np.empty((0 if 0 in sizes else max(sizes, default=1), 9))
    for i, entry in enumerate(entries):
        built[:, i] = entry
    return built.reshape(-1, 3, 3)


def translation(dx, dy):
    return matrices([(1, 0, dx), (0, 1, dy)])


def scaling(sx, sy):
    """Scales about the point (0, 0), which is the centre of the first pixel. For a resize see `resize`."""
    return matrices([(sx, 0, 0), (0, sy, 0)])


def rotation(degrees):
    """Rotates about (0, 0); positive angles turn the picture clockwise as it is seen (x right, y down)."""
    angle = np.radians(degrees)
    return matrices([(np.cos(angle), -np.sin(angle), 0), (np.sin(angle), np.cos(angle), 0)])


def mirror(width):
    """Left becomes right: x -> width - 1 - x."""
    return matrices([(-1, 0, np.asarray(width) - 1), (0, 1, 0)])


def resize(source, size):
    """Stretches an image of size `source` to `size`, both (height, width): x -> s * (x + 0.5) - 0.5."""
    (height, width), (new_height, new_width) = source, size
    sy, sx = new_height / height, new_width / width
    return matrices([(sx, 0, sx / 2 - 0.5), (0, sy, sy / 2 - 0.5)])


def about_centre(matrix, size):
    """The matrix applied about the centre of an image of (height, width) instead of about (0, 0)."""
    y, x = (size[0] - 1) / 2, (size[1] - 1) / 2
    return translation(x, y) @ matrix @ translation(-x, -y)


def linear_part(matrix, size):
    """(B, 2, 2) derivatives of (B, 3, 3) matrices, in the middle of an image of (height, width)."""
    middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1.0])
    x, y, w = (matrix @ middle).T[..., None, None]
    where = np.concatenate((x, y), axis=1)
    return (matrix[:, :2, :2] * w - where * matrix[:, 2:, :2]) / w**2


def scale_of(matrix, size=None):
    """(B,) factors by which (B, 3, 3) matrices scale lengths: the root of the area that a small square in the middle of
    an image of (height, width) becomes. Affine matrices, which need no size, have one scale.

    A perspective has a different scale at each point. Errors are weighted by that of the middle, where the points are.
    For an image tilted by 0.15 to one side, a mean over its inner half would be 0.3 % more, one over all of it 1.1 %.
    """
    assert size is not None or is_affine(matrix), "the scale of a perspective depends on the point"
    return np.sqrt(np.abs(np.linalg.det(linear_part(matrix, (1, 1) if size is None else size))))


def is_affine(matrix):
    """Whether the last row of every matrix is (0, 0, 1), to the bit."""
    return bool(which_are_affine(matrix).all())


def which_are_affine(matrix):
    """(B,) bool for (B, 3, 3) matrices."""
    return (matrix[..., 2, :] == LAST_ROW).all(axis=-1)


def transform_points(matrix, points):
    """Applies (B, 3, 3) matrices to (B, K, 2) points, in float64. A missing point (NaN) stays missing."""
    points = np.asarray(points, np.float64)
    moved = np.empty(np.broadcast_shapes(points.shape, (len(matrix), 1, 2)))
    if moved.size:  # OpenCV refuses an empty array
        rows = np.broadcast_to(matrix, (len(moved), 3, 3))
        affine = which_are_affine(rows).tolist()
        for row, plain, here, there in zip(rows, affine, np.broadcast_to(points, moved.shape), moved, strict=True):
            cv2.transform(here[None], row[:2], dst=there[None])
            if not plain:
                there /= here @ row[2, :2, None] + row[2, 2]
    return moved
