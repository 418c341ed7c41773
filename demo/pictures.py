"""The README's pictures, from the demo's contest and its newest run: `python -m demo.pictures` after `make demo`."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

from demo.photo import draw_photo
from pipeline.errors import run_script
from pipeline.pictures import TRUTH, tile
from pipeline.runs import find_run

NUM_DRAWN = 12
COLUMNS = 6


@dataclass(frozen=True)
class Options:
    out: Path = Path("readme_img")
    """The folder to write to."""
    runs: Path = Path("runs")
    """Where run folders are; the newest one counts."""


def drawn_faces() -> np.ndarray:
    """Photos as the demo draws them, each above itself with its 971 points."""
    rows = []
    for first in range(0, NUM_DRAWN, COLUMNS):
        photos = [draw_photo(0, 0, number) for number in range(first, first + COLUMNS)]
        squares = [_in_square(photo) for photo in photos]
        rows.append(np.hstack([tile(square, [], "") for square, _ in squares]))
        rows.append(np.hstack([tile(square, [(points, TRUTH)], "") for square, points in squares]))
    return np.vstack(rows)


def _in_square(photo):
    """The pixels and points of a photo, padded with black to a square."""
    height, width = photo.pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), np.uint8)
    square[top : top + height, left : left + width] = photo.pixels
    return square, photo.points + (left, top)


def main():
    options = tyro.cli(Options, description=__doc__)
    options.out.mkdir(exist_ok=True)
    predictions = cv2.imread(str(find_run(None, options.runs).picture("test")))
    assert predictions is not None
    faces = cv2.cvtColor(drawn_faces(), cv2.COLOR_RGB2BGR)
    small = cv2.resize(faces, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    for name, picture in (("predictions", predictions), ("drawn_faces", small)):
        path = options.out / f"{name}.jpg"
        cv2.imwrite(str(path), picture, (cv2.IMWRITE_JPEG_QUALITY, 88))
        print(path)


if __name__ == "__main__":
    run_script(main)
