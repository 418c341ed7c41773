"""Where to look: one network finds the points, roughly, and another is shown the square about them.

A photo that is looked at so is seen larger in an image of the same size, and the points lie much the same in all.

The first network looks again itself where what it has found is far larger, smaller or farther aside than in most of its
training photos, with that brought to their place and size: it is found step by step.

Then it is shown each photo once more, with what it has found a little aside. Where it finds something else in that it
has seen nothing, as of a small face at the edge of a wide photo, and the photo is searched through enlarged windows.
"""

from collections.abc import Iterator
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
# How a look shows what was found: right and down of the usual place, in typical spreads, and how much larger.
AS_USUAL = (0.0, 0.0, 1.0)
ASIDE = ((-0.4, 0.0, 1.2), (0.4, 0.0, 1.2), (0.0, -0.4, 0.85), (0.0, 0.4, 0.85))
LOST = 0.3  # of their spread: how far apart points of two looks lie, from which on the first has seen nothing
SURE = 0.15  # the same for what a search may find
ANOTHER_PLACE = 1 / 3  # how much of both squares together is in both, at most, for what is found to be elsewhere
SEARCHED = 0.05  # of the photos, at most: of a locator that is lost more often it would take long and find little
FEW = 32  # photos that may always be searched
LARGEST = 4.0  # times by which a look enlarges or reduces a photo at most
REACH = 1.5  # half a box's side, as a multiple of the points' root mean square distance from their centre
WITHIN = 0.1  # of a photo's width and height, by which a box reaches into it at least


@dataclass(frozen=True)
class Locator:
    """A run that finds where to look. recipe: its own, but for where the data and the cache lie now. spread: typical of
    the shapes that it was trained on, in pixels of its images; 0 of those of earlier versions, which look once."""

    run: Run
    recipe: Recipe
    network: LandmarkNet
    runtime: Runtime
    digest: str
    spread: float

    def in_train(self, pack: Pack) -> Path:
        """The file of the boxes of the photos of train, which is kept in the cache. To be called by all ranks."""
        ranks = self.runtime.ranks
        key = key_of(
            self.digest, f"{LOOKS} looks where unusual, searched where lost", pack.folder.name
        )  # the name tells other pixels apart
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
        boxes, doubts = np.empty((len(samples), 4)), np.empty(len(samples))
        with progress(len(samples), description, unit="photo") if description else nullcontext() as bar:
            for block in blocks(len(samples), BATCH):
                boxes[block], doubts[block] = self._found(pack, samples[block])
                if bar:
                    bar.update(len(samples[block]))
        lost = lost_ones(doubts)
        for block in blocks(len(lost), BATCH):
            boxes[lost[block]] = self._searched(pack, samples[lost[block]], boxes[lost[block]])
        return boxes.round(1)

    def _found(self, pack, samples):
        """(N, 4) boxes, and (N,) how far another look would find something else, 0 where there is none."""
        points = self._points(pack, samples, None)
        if not self.spread:
            return boxes_about(points, photo_sizes(pack, samples)), np.zeros(len(samples))
        again = self._is_unusual(transform_points(pack.photo_to_image[samples], points))
        if again.any():
            points[again] = self._looked_again(pack, samples[again], points[again])
        return boxes_about(points, photo_sizes(pack, samples)), self._doubts(pack, samples, points, ASIDE[:1])

    def _looked_again(self, pack, samples, points):
        """(N, K, 2) points as they are found step by step, each time about those of before."""
        for _ in range(LOOKS - 1):
            view = self._about(transform_points(pack.photo_to_image[samples], points))
            points = self._points(pack, samples, view)
        return points

    def _doubts(self, pack, samples, points, looks):
        """(N,) how far from (N, K, 2) points those lie that are found in looks which show them aside, as a multiple of
        their spreads: what is found must not move with the window through which it is seen."""
        seen = transform_points(pack.photo_to_image[samples], points)
        found = [self._points(pack, samples, self._about(seen, aside)) for aside in looks]
        return np.mean([apart(points, again) for again in found], axis=0)

    def _searched(self, pack, samples, known):
        """The (N, 4) known boxes of photos, and those of what is surely found elsewhere in place of them.

        Elsewhere: of two faces that lie side by side one is as sure as the other, and a square that shows both is left
        to the network that follows.
        """
        boxes, least = known.copy(), np.full(len(samples), SURE)
        for window in windows(self.recipe.photos.size):
            points = self._points(pack, samples, EachPlaced(np.broadcast_to(window, (len(samples), 3, 3))))
            points = self._looked_again(pack, samples, points)
            found, doubts = boxes_about(points, photo_sizes(pack, samples)), self._doubts(pack, samples, points, ASIDE)
            better = (doubts < least) & (overlaps(found, known) < ANOTHER_PLACE)
            boxes[better], least[better] = found[better], doubts[better]
        return boxes

    def _points(self, pack, samples, view):
        """(N, K, 2) float64 points that the network finds in a view, in pixels of the photos."""
        found = predict_points(self.network, pack, samples, runtime=self.runtime, batch_size=BATCH, view=view)
        return found.astype(np.float64)

    def _is_unusual(self, points: np.ndarray) -> np.ndarray:
        """(N,) whether (N, K, 2) points of the images are not where and not as large as is usual. Of the others another
        look would show the same; where there are two faces it might go over to the wrong one."""
        spreads = np.maximum(spread(points), 1e-6)
        shifts = np.linalg.norm(points.mean(axis=1) - self._usual_middle(), axis=1)
        return (np.abs(np.log(spreads / self.spread)) > np.log(USUAL_SCALE)) | (shifts > USUAL_SHIFT * spreads)

    def _usual_middle(self):
        return self.network.mean_shape.mean(dim=0).cpu().numpy()

    def _about(self, points: np.ndarray, aside: tuple[float, float, float] = AS_USUAL) -> "EachPlaced":
        """The view in which (N, K, 2) points of the images lie in the middle of the mean shape and have the typical
        spread, or so far aside of it, in typical spreads, and so many times larger."""
        size, (right, down, larger) = self.recipe.photos.size, aside
        scales = larger * np.clip(self.spread / np.maximum(spread(points), 1e-6), 1 / LARGEST, LARGEST)
        middles = points.mean(axis=1).clip(-size, 2 * size)
        matrices = np.zeros((len(points), 3, 3))
        matrices[:, 0, 0] = matrices[:, 1, 1] = scales
        matrices[:, :2, 2] = self._usual_middle() + self.spread * np.array((right, down)) - scales[:, None] * middles
        matrices[:, 2, 2] = 1
        return EachPlaced(matrices)


@dataclass(frozen=True)
class EachPlaced:
    """A view with a matrix of its own for each photo."""

    matrices: np.ndarray

    def of_block(self, block: slice, size: int) -> Transform:
        return Transform.of(self.matrices[block], (size, size))


def boxes_about(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, right and bottom of a square about (N, K, 2) points, widened until it reaches into a photo of
    (N, 2) width and height."""
    middle, half = points.mean(axis=1), REACH * spread(points)[:, None]
    low, high = np.minimum(middle - half, (1 - WITHIN) * sizes), np.maximum(middle + half, WITHIN * sizes)
    return np.concatenate((low, high), axis=1)


def apart(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) the root mean square distance of (N, K, 2) points from others, as a multiple of their spreads' geometric
    mean."""
    distances = np.sqrt(((points - others) ** 2).sum(axis=2).mean(axis=1))
    return distances / np.maximum(np.sqrt(spread(points) * spread(others)), 1e-6)


def lost_ones(doubts: np.ndarray) -> np.ndarray:
    """The photos of which the locator has seen nothing, the most doubtful of them where they are many."""
    lost = np.flatnonzero(doubts > LOST)
    most = max(FEW, round(SEARCHED * len(doubts)))
    return np.sort(lost[np.argsort(-doubts[lost], kind="stable")[:most]])


def windows(size: int) -> Iterator[np.ndarray]:
    """(3, 3) matrices that enlarge nine parts of an image, each of half its side, to the whole."""
    for down in (0.25, 0.5, 0.75):
        for right in (0.25, 0.5, 0.75):
            middle, centre = (size - 1) / 2, np.array((right, down)) * size - 0.5
            yield np.array([[2, 0, middle - 2 * centre[0]], [0, 2, middle - 2 * centre[1]], [0, 0, 1]])


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) how much of what is shown of two (N, 4) boxes together is shown of both (intersection over union)."""
    a, b = (np.array([square_around(tuple(box), MARGIN) for box in each.tolist()]) for each in (boxes, others))
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = sides.clip(min=0).prod(axis=1)
    return both / ((a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - both)


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
        run, replace(recipe, run=where), network, runtime, digest(run.best.read_bytes()), run.about_data().spread or 0.0
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
