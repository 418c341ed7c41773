"""What lies over an image: black bars, text, occluders. Flat patches, each with its own colour and matrix.

A patch is one of a few masks of shapes and words, made once; its matrix maps the mask's pixels to the image's. If the
image is warped, the patch follows by a product of matrices, and is drawn after the warp, as sharp as it was.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np
import torch

from augment.effects import Effect, to_float32, whole
from augment.geometry import is_affine, transform_points
from augment.key import Key
from augment.warp import grid_sample, on_device

PATCH = (48, 192)  # height and width of every mask
WORDS = ("LIVE", "NEWS", "photo", "SALE", "www.", "MOVIE", "2020", "Star", "TODAY", "No. 1", "stock", "(c)")
NUM_BLOBS = 8
RECTANGLE, ELLIPSE, FIRST_BLOB, FIRST_WORD = 0, 1, 2, 2 + NUM_BLOBS
NOTHING = -1


@dataclass(frozen=True, eq=False)
class Overlay(Effect):
    """L patches per image: which mask (B, L) or NOTHING, matrix (B, L, 3, 3) from mask to image, colour (B, L, 3)."""

    mask: np.ndarray
    matrix: np.ndarray
    colour: np.ndarray
    neutral: ClassVar = {"mask": NOTHING, "matrix": np.eye(3), "colour": 0.0}

    def active(self):
        return (self.mask != NOTHING).any(axis=1)

    def through(self, geometry, size):
        return Overlay(self.mask, geometry[:, None] @ self.matrix, self.colour)

    def merged(self, following):
        if not isinstance(following, Overlay):
            return None
        return Overlay(*(np.concatenate((one, vars(following)[name]), axis=1) for name, one in vars(self).items()))

    def on_image(self, image, row):
        for mask, matrix, colour in zip(self.mask[row], self.matrix[row], self.colour[row], strict=True):
            part = _touched(matrix, image.shape[:2]) if mask != NOTHING else None
            if part is None:
                continue
            rows, columns = part
            there = np.array([(1, 0, -columns.start), (0, 1, -rows.start), (0, 0, 1)]) @ matrix
            size = rows.stop - rows.start, columns.stop - columns.start
            if mask == RECTANGLE and not there[(0, 1, 2, 2), (1, 0, 0, 1)].any():
                cover = _upright_cover(_inverse_rows(there), size)
            elif mask == RECTANGLE:
                cover = _rectangle_cover(torch.from_numpy(_inverse_rows(there[None])), size)[0].numpy()
            else:
                warp, kept = (cv2.warpAffine, 2) if is_affine(there) else (cv2.warpPerspective, 3)
                cover = warp(masks()[mask], there[:kept], size[::-1]) / np.float32(255)
            image[part] = np.rint(image[part] + (colour.astype(np.float32) - image[part]) * cover[..., None])

    def on_tensor(self, images):
        for mask, matrix, colour in zip(*(array.swapaxes(0, 1) for array in vars(self).values()), strict=True):
            for chosen, cover_of in ((mask == RECTANGLE, _flat_cover), (mask > RECTANGLE, _drawn_cover)):
                if chosen.any():
                    rows = on_device(np.flatnonzero(chosen), images.device)
                    some = images[rows]
                    cover = cover_of(mask[chosen], matrix[chosen], tuple(images.shape[2:]), images.device)
                    paint = to_float32(images, colour[chosen])[:, :, None, None]
                    images[rows] = whole(some + (paint - some) * cover[:, None])
        return images


def _flat_cover(mask, matrix, size, device):
    """(B, H, W) share of each pixel that rectangles cover."""
    return _rectangle_cover(on_device(_inverse_rows(matrix), device), size)


def _drawn_cover(mask, matrix, size, device):
    """(B, H, W) share of each pixel that shapes and words cover."""
    shapes = masks_on(device)[on_device(mask, device)]
    return grid_sample(shapes, matrix, size, padding_mode="zeros")[:, 0].round() / 255


def _inverse_rows(matrix):
    """(B, 3, 3) float32 matrices from pixels of the image to the mask's own square, -1 to 1 between its edges."""
    height, width = PATCH
    square = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return (square @ np.linalg.inv(matrix)).astype(np.float32)


def _rectangle_cover(inverse, size):
    """(B, H, W) share of each pixel that a rectangle covers, from its distance to the edges, which are a pixel soft."""
    (a, b, c), (d, e, f), (g, h, i) = inverse.permute(1, 2, 0)[..., None, None]
    x = torch.arange(size[1], dtype=torch.float32, device=inverse.device)
    y = torch.arange(size[0], dtype=torch.float32, device=inverse.device)[:, None]
    below = g * x + h * y + i
    cover = torch.ones((), device=inverse.device)
    for along, across, shift in ((a, b, c), (d, e, f)):
        position = (along * x + across * y + shift) / below
        slope = torch.hypot(along - position * g, across - position * h) / below.abs()
        cover = cover * ((1 - position.abs()) / slope + 0.5).clamp(0, 1)
    return cover


def _upright_cover(inverse, size):
    """`_rectangle_cover` of one rectangle with horizontal and vertical edges: the product of two lines."""
    down, across = (
        ((1 - np.abs(scale * np.arange(n, dtype=np.float32) + shift)) / abs(scale) + np.float32(0.5)).clip(0, 1)
        for n, scale, shift in zip(size, inverse[(1, 0), (1, 0)], inverse[:2, 2][::-1], strict=True)
    )
    return down[:, None] * across


def rectangles(left: np.ndarray, top: np.ndarray, right: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices that lay a mask over the rectangles between these edges, given as coordinates of pixels."""
    height, width = PATCH
    matrix = np.zeros((*np.shape(left), 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 2] = (right - left) / width, left + 0.5 * (right - left) / width
    matrix[..., 1, 1], matrix[..., 1, 2] = (bottom - top) / height, top + 0.5 * (bottom - top) / height
    matrix[..., 2, 2] = 1
    return matrix


@lru_cache(maxsize=8)
def masks_on(device: torch.device) -> torch.Tensor:
    """(M, 1, *PATCH) float32."""
    return on_device(masks(), device)[:, None].float()


@lru_cache(maxsize=1)
def masks() -> np.ndarray:
    """(M, *PATCH) uint8: a rectangle, an ellipse, ragged blobs, and words."""
    height, width = PATCH
    drawn: list[np.ndarray] = [np.full(PATCH, 255, np.uint8)]
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    for blob in range(-1, NUM_BLOBS):
        waves = Key(0, blob, np.arange(1)).uniform(8)[0].reshape(4, 2)
        radius = 1 + sum(
            0.25 * size * np.cos(k * angle + 6.3 * phase) for k, (size, phase) in enumerate(waves, start=2)
        )
        radius = radius / radius.max() if blob >= 0 else np.ones(60)
        outline = np.stack(
            ((np.cos(angle) * radius + 1) * width / 2, (np.sin(angle) * radius + 1) * height / 2), axis=-1
        )
        mask = np.zeros(PATCH, np.uint8)
        cv2.fillPoly(mask, [np.rint(16 * outline - 8).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        drawn.append(mask)
    for word in WORDS:
        (long, tall), below = cv2.getTextSize(word, cv2.FONT_HERSHEY_DUPLEX, 1.2, 3)
        mask = np.zeros((tall + below + 4, 4 * (tall + below + 4)), np.uint8)
        corner = ((mask.shape[1] - long) // 2, tall + 2)
        cv2.putText(mask, word, corner, cv2.FONT_HERSHEY_DUPLEX, 1.2, 255, 3, cv2.LINE_AA)
        drawn.append(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA))
    return np.stack(drawn)


def _touched(matrix, size):
    """The rows and columns of an image that a patch can reach, or None."""
    if not is_affine(matrix):
        return slice(0, size[0]), slice(0, size[1])
    height, width = PATCH
    corners = np.array([[(-1.0, -1.0), (width, -1.0), (-1.0, height), (width, height)]])
    reached = transform_points(matrix[None], corners)[0]
    (left, top), (right, bottom) = np.floor(reached.min(0)), np.ceil(reached.max(0)) + 1
    columns, rows = (
        slice(max(0, int(left)), min(size[1], int(right))),
        slice(max(0, int(top)), min(size[0], int(bottom))),
    )
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None
