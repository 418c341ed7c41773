"""The pictures of the README and the docs, from drawn faces: `python -m demo.pictures CONTEST` after `make demo`."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tyro.conf import Positional

from demo.photo import draw_photo
from pipeline.cli import parse_flags
from pipeline.data.dataset import load_test_data
from pipeline.data.drawing import POINTS, draw_points, gallery, grid, resized, scaled, write_picture
from pipeline.data.loader import parse_chain
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder
from pipeline.inference.submission import read_submission
from pipeline.metrics import mse_of_photos
from pipeline.recipe_file import read_recipe
from pipeline.runs import Run, find_run
from tools.augment_sheet import EVERYTHING, augmenters_sheet, draws_sheet, some_photos

NUM_DRAWN = 12
COLUMNS = 6
SIDE = 192


@dataclass(frozen=True)
class Options:
    contest: Positional[Path]
    """The folder of the demo's contest."""
    out: Path = Path("readme_img")
    """The folder to write to."""
    runs: Path = Path("runs")
    """Where run folders are; the newest one counts."""
    cache: Path = Path("cache")
    """Where decoded photos are kept."""


def main():
    options = parse_flags(Options, __doc__)
    check_folder("--out", options.out)
    predictions = draw_predictions(options.contest, options.runs)
    recipe = read_recipe(EVERYTHING)
    chain = parse_chain(recipe)
    photos = some_photos(replace(recipe, run=replace(recipe.run, data=options.contest, cache=options.cache)), seed=0)
    pictures = {
        "predictions": predictions,
        "drawn_faces": drawn_faces(),
        "draws": draws_sheet(chain, photos, seed=0),
        "augmenters": augmenters_sheet(chain, photos),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        write_picture(options.out / f"{name}.jpg", picture)
        print(options.out / f"{name}.jpg")


def draw_predictions(contest: Path, runs: Path) -> np.ndarray:
    """Test photos, evenly chosen, with the points of the newest run's submission beside the truth; where the contest
    does not tell the truth, what predict.py has drawn. Raises UserError where nothing was predicted.
    """
    run = find_run(None, runs)
    truth_path = contest / "test_truth.csv"
    if not truth_path.exists():
        return read_predictions(run)
    if not run.submission.exists():
        raise UserError(f"{run.submission} is missing; python predict.py writes it")
    names, truth = read_submission(truth_path)
    predicted_names, predicted = read_submission(run.submission)
    recipe = run.whole_photo_run.recipe()
    recipe = replace(recipe, photos=replace(recipe.photos, size=run.recipe().photos.size))
    _, pack = load_test_data(recipe, run.about_data().num_points or truth.shape[1])
    if not names == predicted_names == pack.names.tolist():
        raise UserError(f"{run.submission} is of another test than {truth_path}; give the contest of the run")
    samples = np.linspace(0, len(pack) - 1, min(len(pack), NUM_DRAWN)).astype(int)
    errors = mse_of_photos(predicted[samples], truth[samples])
    return gallery(
        pack,
        samples,
        predicted[samples],
        truth[samples],
        title="Test photos, which were never trained on",
        captions=[f"RMS error {error**0.5:.2f} px" for error in errors],
    )


def read_predictions(run: Run) -> np.ndarray:
    """What predict.py has drawn of a run's test photos. Raises UserError where it has not."""
    path = run.picture("test")
    picture = cv2.imread(str(path))
    if picture is None:
        raise UserError(f"{path} is no picture; python predict.py draws it")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def drawn_faces() -> np.ndarray:
    """Photos as the demo draws them, each above itself with its 971 points."""
    tiles = []
    for first in range(0, NUM_DRAWN, COLUMNS):
        squares = [_in_square(draw_photo(0, 0, number)) for number in range(first, first + COLUMNS)]
        photos = [resized(square, SIDE) for square, _ in squares]
        tiles += photos
        for photo, (square, points) in zip(photos, squares, strict=True):
            tiles.append(draw_points(photo, scaled(points, SIDE / len(square)), POINTS))
    return grid(tiles, COLUMNS)


def _in_square(photo):
    """The pixels and points of a photo, padded with black to a square."""
    height, width = photo.pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), np.uint8)
    square[top : top + height, left : left + width] = photo.pixels
    return square, photo.points + (left, top)


if __name__ == "__main__":
    run_script(main)
