"""Photos with their points drawn on, side by side: what is easier to see than to read."""

import cv2
import numpy as np

from augment import transform_points

TRUTH = (60, 220, 60)
PREDICTION = (255, 90, 60)
TILE = 256


def draw_points(image: np.ndarray, points: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A copy of a (H, W, 3) RGB image with (K, 2) points of its pixels on it, sixteenths of a pixel exact."""
    image = image.copy()
    radius = 24 if len(points) < 200 else 7
    for point in points[np.isfinite(points).all(axis=1)]:
        centre = np.clip(np.rint(point * 16), -(2**20), 2**20).astype(int).tolist()
        cv2.circle(image, centre, radius, colour, cv2.FILLED, cv2.LINE_AA, shift=4)
    return image


def tile(image: np.ndarray, layers: list[tuple[np.ndarray, tuple[int, int, int]]], caption: str) -> np.ndarray:
    """A (TILE, TILE, 3) picture of a square image, enlarged, with layers of (points, colour) and a caption."""
    scale = TILE / len(image)
    picture = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
    for points, colour in layers:
        picture = draw_points(picture, (points + 0.5) * scale - 0.5, colour)
    around = [((x, y), (0, 0, 0)) for x in (-1, 0, 1) for y in (-1, 0, 1)]  # a thicker letter would be a wider one
    for (x, y), colour in [*around, ((0, 0), (255, 255, 255))]:
        cv2.putText(picture, caption, (6 + x, TILE - 8 + y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return picture


def gallery(
    images: np.ndarray,
    fits: np.ndarray,
    predicted: np.ndarray,
    truth: np.ndarray | None,
    captions: list[str],
    *,
    columns: int = 4,
) -> np.ndarray:
    """(rows * TILE, columns * TILE, 3) tiles of fitted images; predictions and truth are in pixels of the photos."""
    layers = [] if truth is None else [(transform_points(fits, truth), TRUTH)]
    layers.append((transform_points(fits, predicted), PREDICTION))
    tiles = [
        tile(image, [(points[i], colour) for points, colour in layers], caption)
        for i, (image, caption) in enumerate(zip(images, captions, strict=True))
    ]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def write_picture(path, picture: np.ndarray):
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path} cannot be written")
