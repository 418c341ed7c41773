"""Where to look: one network finds the points roughly, and another sees the square around them.

What a photo shows is then larger in an image of the same size, and the points lie in much the same place in all images.

The first network itself looks again if what it has found is much larger, smaller or farther aside than in most of its
training photos, this time with that moved to the usual place and size: it is found step by step.

Then each photo is looked at once more, with what was found moved a little aside. A network that sees something finds it
in the same place again; if it sees nothing, what it finds moves with the window. Such a photo, for instance of a small
face at the edge of a wide photo, is searched: enlarged parts of it are looked at, and what is found in one of them is
taken if further looks agree on it.
"""

import math
from collections.abc import Callable
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
from pipeline.data.roi import region_of
from pipeline.errors import UserError
from pipeline.files import digest, write_text
from pipeline.inference.predict import predict_views
from pipeline.inference.tta import FixedView
from pipeline.networks import load_run_network
from pipeline.progress import progress
from pipeline.recipe import PhotoOptions, Recipe, RunOptions
from pipeline.runs import Run, find_run
from pipeline.runtime import Runtime

VERSION = "2"  # of how boxes are found, and of the numbers below: cached boxes belong to one version
BATCH = 128  # photos
LOOKS = 3  # of the locator, at photos where the first has found something unusual
USUAL_SCALE = 1.25  # times the typical spread, or its inverse, up to which what was found has the usual size
USUAL_SHIFT = 0.5  # of its own spread, up to which it lies in the usual place
# How a look shows what was found: right and down of the usual place, in typical spreads, and how much larger.
AS_USUAL = (0.0, 0.0, 1.0)
ASIDE = ((-0.4, 0.0, 1.2), (0.4, 0.0, 1.2), (0.0, -0.4, 0.85), (0.0, 0.4, 0.85))
NOT_SEEN = 0.3  # distance of two looks' points, as a multiple of their spread, above which the first saw nothing
AGREED = 0.15  # the same distance, up to which looks agree on what a search has found
ELSEWHERE = 1 / 3  # intersection over union with the earlier square, below which that does not show what was found
PARTS = 3  # in a row, of the square of a photo that is searched, each of half its side
SEARCHED = 0.05  # of a contest's photos at most: a locator that misses more has not learned enough to find anything
AT_ONCE = 16  # photos that are searched
MOST_LOOKS = 1 + LOOKS + SEARCHED * PARTS**2 * (LOOKS + len(ASIDE))  # at a photo of a contest, on average
LARGEST = 4.0  # times by which a look enlarges or reduces a photo at most, before what was found is shown aside
REACH = 1.5  # half a box's side, as a multiple of the points' root mean square distance from their centre
WITHIN = 0.1  # of a photo's width and height, by which a box reaches into it at least


@dataclass(frozen=True)
class Locator:
    """A run that finds where to look. recipe: its own, except for where the data and the cache are now. spread: typical
    of the shapes that it was trained on, in pixels of its images; 0 if unknown, as for runs of earlier versions, which
    look once."""

    run: Run
    recipe: Recipe
    network: LandmarkNet
    runtime: Runtime
    digest: str
    spread: float

    def in_train(self, pack: Pack) -> Path:
        """The file of the boxes of the photos of train, which is kept in the cache. To be called by all ranks."""
        ranks = self.runtime.ranks
        key = key_of(self.digest, VERSION, pack.folder.name)  # the name tells other pixels apart
        path = self.recipe.run.cache / f"boxes-{key}.csv"
        if ranks.all_max(float(not path.exists()))[0]:
            table = boxes_table(self._table(pack))
            ranks.in_turn(lambda: path.exists() or write_text(path, table))
        return path

    def in_test(self, num_points: int) -> Boxes:
        """The boxes of the test's photos, of which `num_points` points may be asked. To be called by all ranks."""
        return self._table(self.runtime.ranks.in_turn(lambda: load_test_data(self.recipe, num_points)[1]))

    def squares(self, photos: dict[str, np.ndarray]) -> dict[str, Box]:
        """What to show of each of these photos."""
        options = self.recipe.photos
        found = self._boxes(Squares.of(photos, region_of(options), options.resize), share=1)
        return {name: square_around(tuple(box), MARGIN) for name, box in zip(photos, found.tolist(), strict=True)}

    def _table(self, pack):
        found = self._boxes(pack, share=SEARCHED, description="where to look")
        of_photo = {name: [tuple(box)] for name, box in zip(pack.names.tolist(), found.tolist(), strict=True)}
        boxes = Boxes(f"what {self.run.folder} finds", of_photo, "")
        return replace(boxes, key=digest(boxes_table(boxes).encode())[:16])

    def _boxes(self, pack: Pack | Squares, *, share: float, description: str | None = None) -> np.ndarray:
        """(N, 4) boxes of the photos of a pack, at most a share of which is searched. To be called by all ranks."""
        everything = np.arange(len(pack.names))
        found = self._by_ranks(
            lambda own: self._find(pack, own), everything, unit=BATCH, width=5, description=description
        )
        boxes, distances = found[:, :4], found[:, 4]
        searched = to_be_searched(distances, most=math.ceil(share * len(distances)))
        if len(searched):
            boxes[searched] = self._by_ranks(
                lambda own: self._search(pack, own, boxes[own]),
                searched,
                unit=AT_ONCE,
                width=4,
                description=description and "searching",
            )
        return boxes.round(1)

    def _by_ranks(
        self,
        find: Callable[[np.ndarray], np.ndarray],
        samples: np.ndarray,
        *,
        unit: int,
        width: int,
        description: str | None,
    ) -> np.ndarray:
        """(N, width) what `find` gives for samples, `unit` of them at once; each rank does its part."""
        part = self.runtime.ranks.part(len(samples), unit=unit)
        own = samples[part]
        found = np.empty((len(own), width))
        with progress(len(own), description, unit="photo") as bar:
            for block in blocks(len(own), unit):
                found[block] = find(own[block])
                bar.update(len(own[block]))
        return self.runtime.ranks.gather_arrays(found, part, len(samples))

    def _find(self, pack, samples):
        """(N, 5) boxes, and how far apart two looks find the points, which is 0 if there is only one look."""
        (points,) = self._look(pack, samples, [FixedView.identity()])
        distances = np.zeros(len(samples))
        if self.spread:
            again = self._is_unusual(transform_points(pack.photo_to_image[samples], points))
            if again.any():
                points[again] = self._look_again(pack, samples[again], points[again])
            distances = self._distances(pack, samples, points, ASIDE[:1])
        return np.concatenate((boxes_about(points, photo_sizes(pack, samples)), distances[:, None]), axis=1)

    def _search(self, pack, samples, known):
        """The (N, 4) known boxes of photos, or instead those of what is found elsewhere if looks agree on it.

        A known box that shows much the same stays: with two faces side by side, looks agree on either.
        """
        boxes, least = known.copy(), np.full(len(samples), AGREED)
        sizes = photo_sizes(pack, samples)
        parts = [np.broadcast_to(part, (len(samples), 3, 3)) for part in parts_of_square(pack.roi)]
        for points in self._look(pack, samples, [EachPlaced(matrices) for matrices in parts]):
            points = self._look_again(pack, samples, points)
            found, distances = boxes_about(points, sizes), self._distances(pack, samples, points, ASIDE)
            better = (distances < least) & (shown_overlap(found, known) < ELSEWHERE)
            boxes[better], least[better] = found[better], distances[better]
        return boxes

    def _look_again(self, pack, samples, points):
        """(N, K, 2) points as they are found step by step, each look centred on the points before."""
        for _ in range(LOOKS - 1):
            (points,) = self._look(pack, samples, [self._about(transform_points(pack.photo_to_image[samples], points))])
        return points

    def _distances(self, pack, samples, points, looks):
        """(N,) how far (N, K, 2) points lie from those found in looks that show them aside: the largest distance."""
        seen = transform_points(pack.photo_to_image[samples], points)
        found = self._look(pack, samples, [self._about(seen, aside) for aside in looks])
        return np.max([relative_distance(points, again) for again in found], axis=0)

    def _look(self, pack, samples, views):
        """(V, N, K, 2) points that the network finds in each view, in pixels of the photos."""
        found = predict_views(self.network, pack, samples, views, None, runtime=self.runtime, batch_size=BATCH)
        return np.concatenate([block.points for block in found], axis=1)

    def _is_unusual(self, points: np.ndarray) -> np.ndarray:
        """(N,) whether (N, K, 2) points of the images are not where, or not as large as, is usual. For the others,
        another look would show the same; with two faces it might move to the wrong one."""
        spreads = np.maximum(spread(points), 1e-6)
        shifts = np.linalg.norm(points.mean(axis=1) - self._usual_middle(), axis=1)
        return (np.abs(np.log(spreads / self.spread)) > np.log(USUAL_SCALE)) | (shifts > USUAL_SHIFT * spreads)

    def _usual_middle(self):
        return self.network.mean_shape.mean(dim=0).cpu().numpy()

    def _about(self, points: np.ndarray, aside: tuple[float, float, float] = AS_USUAL) -> "EachPlaced":
        """The view in which (N, K, 2) points of the images lie in the middle of the mean shape with the typical spread,
        or this far aside of it, in typical spreads, and this many times larger."""
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
    """(N, 4) left, top, right and bottom of squares around (N, K, 2) points, widened until they reach into photos of
    (N, 2) width and height."""
    middle, half = points.mean(axis=1), REACH * spread(points)[:, None]
    low, high = np.minimum(middle - half, (1 - WITHIN) * sizes), np.maximum(middle + half, WITHIN * sizes)
    return np.concatenate((low, high), axis=1)


def relative_distance(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) the root mean square distance of (N, K, 2) points from others, as a multiple of the geometric mean of their
    spreads; infinite if either has none."""
    spreads = np.sqrt(spread(points) * spread(others))
    distances = np.sqrt(((points - others) ** 2).sum(axis=2).mean(axis=1))
    return np.divide(distances, spreads, out=np.full(len(points), np.inf), where=spreads > 0)


def to_be_searched(distances: np.ndarray, *, most: int) -> np.ndarray:
    """The photos in which the locator has seen nothing, at most `most` of them: those whose looks differ most."""
    unseen = np.flatnonzero(distances > NOT_SEEN)
    return np.sort(unseen[np.argsort(-distances[unseen], kind="stable")[:most]])


def parts_of_square(roi: RegionOfInterest) -> list[np.ndarray]:
    """(3, 3) matrices from the image of a ROI to images of parts of the square that it was cut from, which overlap by
    half. They enlarge the image up to twice, which they do if the ROI is the whole square."""
    side, first = roi.square / 2, -0.5 - np.array((roi.left, roi.top))  # first: the square's corner, in the image
    steps = np.linspace(0, side, PARTS)
    corners = [first + (right, down) for down in steps for right in steps]
    scale = roi.size / side
    return [np.array([[scale, 0, -0.5 - scale * x], [0, scale, -0.5 - scale * y], [0, 0, 1]]) for x, y in corners]


def shown_overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of the squares that are shown around (N, 4) boxes and around others."""
    a, b = (np.array([square_around(tuple(box), MARGIN) for box in each.tolist()]) for each in (boxes, others))
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = sides.clip(min=0).prod(axis=1)
    return both / ((a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - both)


def photo_sizes(pack: Pack | Squares, samples: np.ndarray) -> np.ndarray:
    """(N, 2) width and height of the photos, to a pixel or two; photos lie in the middle of their squares."""
    matrices = pack.photo_to_image[samples]
    scales = np.stack((matrices[:, 0, 0], matrices[:, 1, 1]), axis=1)
    starts = matrices[:, :2, 2] + 0.5 - scales / 2 + (pack.roi.left, pack.roi.top)
    return (pack.roi.square - 2 * starts) / scales


def run_of_locator(folder: Path) -> Run:
    """The run that --locator names. Raises UserError if the folder is not one."""
    return find_run(folder, folder)


def load_locator(run: Run, where: RunOptions, runtime: Runtime) -> Locator:
    """The run as a locator for photos that lie where `where` says.

    Raises UserError for one that needs boxes itself, or that finds a single point, which has no box around it.
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
    """The recipe's photos with the boxes that its locator finds, and the fingerprint of the whole photos: if its data
    have the same, it was trained on them. Without a locator, the photos as they were. To be called by all ranks."""
    photos = recipe.photos
    if not photos.locator or photos.boxes:
        return photos, ""
    locator = load_locator(run_of_locator(photos.locator), recipe.run, runtime)
    whole = replace(locator.recipe.photos, limit_photos=photos.limit_photos, pack=photos.pack)
    pack = runtime.ranks.in_turn(lambda: open_train_photos(replace(locator.recipe, photos=whole)))
    return replace(photos, boxes=locator.in_train(pack)), pack.fingerprint
