"""Where to look: one network finds the points, roughly, and another is shown the square about them.

A photo that is looked at so is seen larger in an image of the same size, and the points lie much the same in all.

The first network looks again itself where what it has found is far larger, smaller or farther aside than in most of its
training photos, with that brought to their place and size: it is found step by step.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from augment import RegionOfInterest, Transform, transform_points
from augment.fit import Box, square_around
from models import LandmarkNet
from pipeline.blocks import blocks
from pipeline.data.boxes import MARGIN, Boxes, boxes_table
from pipeline.data.dataset import load_test_data, open_train_photos, spread
from pipeline.data.kept import key_of
from pipeline.data.pack import Pack, Squares
from pipeline.data.roi import shares_of
from pipeline.errors import UserError
from pipeline.files import digest, write_text
from pipeline.inference.predict import predict_points
from pipeline.networks import load_run_network
from pipeline.progress import progress
from pipeline.recipe import PhotoOptions, Recipe, RunOptions
from pipeline.runs import Run, find_run
from pipeline.runtime import Runtime

BATCH = 128  # photos
LOOKS = 3  # of the locator, at photos where the first has found something unusual
USUAL_SCALE = 1.25  # times the typical spread, or its inverse, up to which what was found has the usual size
USUAL_SHIFT = 0.5  # of its own spread, up to which it lies in the usual place
LARGEST = 4.0  # times by which a look enlarges or reduces a photo at most
REACH = 1.5  # half a box's side, as a multiple of the points' root mean square distance from their centre
WITHIN = 0.1  # of a photo's width and height, by which a box reaches into it at least


@dataclass(frozen=True)
class Locator:
    """A run that finds where to look. recipe: its own, but for where the data and the cache lie now. spread: typical of
    the shapes that it was trained on, in pixels of its images; None of those of earlier versions, which look once."""

    run: Run
    recipe: Recipe
    network: LandmarkNet
    runtime: Runtime
    digest: str
    spread: float | None

    def in_train(self, pack: Pack) -> Path:
        """The file of the boxes of the photos of train, which is kept in the cache. To be called by all ranks."""
        ranks = self.runtime.ranks
        key = key_of(self.digest, f"{LOOKS} looks where unusual", pack.folder.name)  # the name tells other pixels apart
        path = self.recipe.run.cache / f"boxes-{key}.csv"
        if ranks.most(float(not path.exists()))[0]:
            table = boxes_table(self._boxes(pack))
            ranks.in_turn(lambda: path.exists() or write_text(path, table))
        return path

    def in_test(self, num_points: int) -> Boxes:
        """The boxes of the test's photos, of which `num_points` points may be asked. To be called by all ranks."""
        return self._boxes(self.runtime.ranks.in_turn(lambda: load_test_data(self.recipe, num_points)[1]))

    def squares(self, photos: dict[str, np.ndarray]) -> dict[str, Box]:
        """What is to be shown of each of these photos."""
        options = self.recipe.photos
        roi = RegionOfInterest.of(shares_of(options.roi), options.size)
        found = self._extents(Squares.of(photos, roi, options.resize), np.arange(len(photos)))
        return {name: square_around(tuple(box), MARGIN) for name, box in zip(photos, found.tolist(), strict=True)}

    def _boxes(self, pack):
        ranks = self.runtime.ranks
        part = ranks.part(len(pack), unit=BATCH)
        own = self._extents(pack, np.arange(len(pack))[part], description="where to look")
        found = ranks.arrays_of_all(own, part, len(pack))
        of_photo = {name: [tuple(box)] for name, box in zip(pack.names.tolist(), found.tolist(), strict=True)}
        boxes = Boxes(f"what {self.run.folder} finds", of_photo, "")
        return replace(boxes, key=digest(boxes_table(boxes).encode())[:16])

    def _extents(self, pack: Pack | Squares, samples: np.ndarray, *, description: str | None = None) -> np.ndarray:
        """(N, 4) left, top, right and bottom of a square about the points, widened until it reaches into the photo.

        Its middle and side are those of all points together: the outermost ones, which would span a box, are found with
        twice the error.
        """
        found = [np.empty((0, 4))]
        with progress(len(samples), description, unit="photo") if description else nullcontext() as bar:
            for block in blocks(len(samples), BATCH):
                found.append(self._extents_of_block(pack, samples[block]))
                if bar:
                    bar.update(len(found[-1]))
        return np.concatenate(found)

    def _extents_of_block(self, pack, samples):
        points = self._points(pack, samples, None)
        if self.spread:
            again = self._is_unusual(transform_points(pack.photo_to_image[samples], points), self.spread)
            for _ in range(LOOKS - 1 if again.any() else 0):
                view = self._about(transform_points(pack.photo_to_image[samples[again]], points[again]), self.spread)
                points[again] = self._points(pack, samples[again], view)
        middle, half = points.mean(axis=1), REACH * spread(points)[:, None]
        size = photo_sizes(pack, samples)
        low, high = np.minimum(middle - half, (1 - WITHIN) * size), np.maximum(middle + half, WITHIN * size)
        return np.concatenate((low, high), axis=1).round(1)

    def _points(self, pack, samples, view):
        """(N, K, 2) float64 points that the network finds in a view, in pixels of the photos."""
        found = predict_points(self.network, pack, samples, runtime=self.runtime, batch_size=BATCH, view=view)
        return found.astype(np.float64)

    def _is_unusual(self, points: np.ndarray, typical: float) -> np.ndarray:
        """(N,) whether (N, K, 2) points of the images are not where and not as large as is usual. Of the others another
        look would show the same; where there are two faces it might go over to the wrong one."""
        spreads = np.maximum(spread(points), 1e-6)
        shifts = np.linalg.norm(points.mean(axis=1) - self._usual_middle(), axis=1)
        return (np.abs(np.log(spreads / typical)) > np.log(USUAL_SCALE)) | (shifts > USUAL_SHIFT * spreads)

    def _usual_middle(self):
        return self.network.mean_shape.mean(dim=0).cpu().numpy()

    def _about(self, points: np.ndarray, typical: float) -> "EachPlaced":
        """The view in which (N, K, 2) points of the images lie in the middle of the mean shape and have the typical
        spread."""
        size = self.recipe.photos.size
        scales = np.clip(typical / np.maximum(spread(points), 1e-6), 1 / LARGEST, LARGEST)
        middles = points.mean(axis=1).clip(-size, 2 * size)
        matrices = np.zeros((len(points), 3, 3))
        matrices[:, 0, 0] = matrices[:, 1, 1] = scales
        matrices[:, :2, 2] = self._usual_middle() - scales[:, None] * middles
        matrices[:, 2, 2] = 1
        return EachPlaced(matrices)


@dataclass(frozen=True)
class EachPlaced:
    """A view with a matrix of its own for each photo."""

    matrices: np.ndarray

    def of_block(self, block: slice, size: int) -> Transform:
        return Transform.of(self.matrices[block], (size, size))


def photo_sizes(pack: Pack | Squares, samples: np.ndarray) -> np.ndarray:
    """(N, 2) width and height of the photos, to a pixel or two, which lie in the middle of their squares."""
    matrices = pack.photo_to_image[samples]
    scales = np.stack((matrices[:, 0, 0], matrices[:, 1, 1]), axis=1)
    starts = matrices[:, :2, 2] + 0.5 - scales / 2 + (pack.roi.left, pack.roi.top)
    return (pack.roi.square - 2 * starts) / scales


def run_of_locator(folder: Path) -> Run:
    """The run that --locator names. Raises UserError where the folder is none."""
    return find_run(folder, folder)


def load_locator(run: Run, where: RunOptions, runtime: Runtime) -> Locator:
    """The run as a locator of photos that lie where `where` says.

    Raises UserError for one that needs boxes itself, or that finds a single point, about which there is no box.
    """
    recipe = run.recipe()
    if recipe.photos.boxes or recipe.photos.locates:
        raise UserError(f"{run.folder} is shown a part of each photo itself; give a run that is shown whole ones")
    network = load_run_network(run, "best").to(runtime.device)
    if len(network.mean_shape) == 1:
        raise UserError(f"{run.folder} finds one point, which spans no box; train without a locator")
    return Locator(
        run, replace(recipe, run=where), network, runtime, digest(run.best.read_bytes()), run.about_data().spread
    )


def located(recipe: Recipe, runtime: Runtime) -> tuple[PhotoOptions, str]:
    """The recipe's photos with the boxes that its locator finds, and the fingerprint of the whole photos, which it was
    trained on if it is that of its data. Without a locator they are as they were. To be called by all ranks."""
    photos = recipe.photos
    if not photos.locator or photos.boxes:
        return photos, ""
    locator = load_locator(run_of_locator(photos.locator), recipe.run, runtime)
    whole = replace(locator.recipe.photos, limit_photos=photos.limit_photos, pack=photos.pack)
    pack = runtime.ranks.in_turn(lambda: open_train_photos(replace(locator.recipe, photos=whole)))
    return replace(photos, boxes=locator.in_train(pack)), pack.fingerprint
