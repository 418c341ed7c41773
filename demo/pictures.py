"""The pictures of the README and the docs, from drawn faces: `python -m demo.pictures CONTEST` after `make demo`."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tyro.conf import Positional

from augment import parse_augmenters
from demo.photo import draw_photo
from pipeline.errors import run_script
from pipeline.flags import parse_flags
from pipeline.pictures import TRUTH, tile
from pipeline.recipe import read_recipe
from pipeline.runs import find_run
from pipeline.sheet import EVERYTHING, augmenters_sheet, draws_sheet, some_photos

NUM_DRAWN = 12
COLUMNS = 6


@dataclass(frozen=True)
class Options:
    contest: Positional[Path]
    """The folder of the demo's contest."""
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
    options = parse_flags(Options, __doc__)
    options.out.mkdir(exist_ok=True)
    run = find_run(None, options.runs)
    predictions = cv2.imread(str(run.picture("test")))
    assert predictions is not None
    chain = parse_augmenters(read_recipe(EVERYTHING).augmentation.augment)
    photos = some_photos(replace(run.recipe(), run=replace(run.recipe().run, data=options.contest)), seed=0)
    pictures = {
        "predictions": (predictions[..., ::-1], 1.0),
        "drawn_faces": (drawn_faces(), 0.75),
        "draws": (draws_sheet(chain, photos, seed=0), 0.5),
        "augmenters": (augmenters_sheet(chain, photos), 0.5),
    }
    for name, (picture, scale) in pictures.items():
        path = options.out / f"{name}.jpg"
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(path), cv2.cvtColor(small, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 85))
        print(path)


if __name__ == "__main__":
    run_script(main)
