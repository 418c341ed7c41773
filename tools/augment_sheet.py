"""Contact sheets of a recipe's augmenters on a contest's photos, for choosing ranges by eye.

    python -m tools.augment_sheet --data PATH --config configs/FILE

`augmenters.jpg` shows what the inverse brings back, and then each parameter of each augmenter at its lowest, middle and
highest value. `draws.jpg` shows random draws: could these photos occur in the test?
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from tyro.conf import arg

from augment import (
    AlbumentationsAugmenter,
    Augmenter,
    Chain,
    Key,
    MirrorAugmenter,
    RandomAugmenter,
    RegionOfInterest,
    Sampler,
    Transform,
    transform_points,
)
from augment.augmenters import ends
from augment.geometry import IDENTITY
from pipeline.cli import parse_flags
from pipeline.data.dataset import TrainingData, load_training_data
from pipeline.data.drawing import (
    GAP,
    PAPER,
    POINTS,
    TEXT_LINE,
    draw_points,
    grid,
    resized,
    scaled,
    text_line,
    write_over,
    write_picture,
)
from pipeline.data.loader import parse_chain
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder
from pipeline.recipe import Recipe
from pipeline.recipe_file import read_recipe

NUM_PHOTOS = 6
NUM_DRAWS = 7
NUM_SETTINGS = 3  # of a parameter
SIDE = 128  # pixels, of a photo on a sheet
MARGIN = 12  # pixels, between one strip of photos and the next
HIGHEST = 2500  # pixels, of the sheet of augmenters
MOST_STRIPS = HIGHEST // (TEXT_LINE + SIDE + 2 * GAP)  # one above the other
NUM_TRIED = 64  # draws, to find one that moves the points far
EVERYTHING = Path(__file__).parents[1] / "configs" / "every_augmenter.yaml"


@dataclass(frozen=True)
class Options:
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """The contest's folder; by default the recipe's, or else the working folder."""
    config: Annotated[Path, arg(metavar="FILE")] = EVERYTHING
    """A recipe file whose augmenters to show; by default one with every augmenter."""
    out: Path = Path("sheets")
    """The folder to write the sheets to."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; by default where the recipe says, or else in cache."""
    skip_bad_photos: bool = False
    """Leave out photos that are missing or broken, as hack_train.py does with this flag."""
    size: Annotated[Annotated[int, Ge(32)] | None, arg(metavar="INT")] = None
    """Side of the images, in pixels; by default the recipe's."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed for choosing the photos and for the draws."""


@dataclass(frozen=True)
class Photos:
    """A few photos of a pack: squares (N, 3, S, S) uint8, of which the ROI is shown, points (N, K, 2) in pixels of the
    ROI, and the points' partners.
    """

    squares: torch.Tensor
    points: np.ndarray
    flip_indices: np.ndarray | None
    roi: RegionOfInterest

    @classmethod
    def of(cls, data: TrainingData, samples: np.ndarray) -> "Photos":
        pack = data.pack
        squares = torch.from_numpy(pack.squares[samples]).permute(0, 3, 1, 2)
        return cls(
            squares, transform_points(pack.photo_to_image[samples], pack.values[samples]), data.flip_indices, pack.roi
        )

    def __getitem__(self, index: int) -> "Photos":
        index %= len(self.squares)
        return Photos(self.squares[index : index + 1], self.points[index : index + 1], self.flip_indices, self.roi)

    def draw(self, augmenter: Sampler, *, seed: int, sample: int = 0) -> Transform:
        """A view of one photo."""
        view = augmenter.draw(Key(seed, 0, np.array([sample])), (self.roi.size, self.roi.size))
        return view.unmirrored() if self.flip_indices is None else view

    def tile(self, view: Transform, caption: str = "", *, with_points: bool = True) -> np.ndarray:
        """A (SIDE, SIDE, 3) picture of one photo and its points through a view."""
        points = view.move(self.points, self.flip_indices)
        return _tile(self.roi.then(view).warp(self.squares), points if with_points else points[:, :0], caption)

    def tile_brought_back(self, view: Transform, caption: str = "") -> np.ndarray:
        """A picture of one photo and its points, brought back by the inverse of the view's placement."""
        home = view.placement.inverse()
        points = home.move(view.move(self.points, self.flip_indices), self.flip_indices)
        return _tile(home.warp(self.roi.then(view).warp(self.squares)), points, caption)


def _tile(images, points, caption):
    image = images[0].permute(1, 2, 0).contiguous().numpy()
    picture = draw_points(resized(image, SIDE), scaled(points[0], SIDE / len(image)), POINTS)
    write_over(picture, caption)
    return picture


@dataclass(frozen=True)
class Row:
    """What to show of a parameter, or of an augmenter without ranges: a title, and augmenters with captions."""

    title: str
    settings: list[tuple[str, Sampler]]


def some_photos(recipe: Recipe, seed: int) -> Photos:
    """A few training photos of the recipe's contest, drawn by the seed."""
    data = load_training_data(recipe)
    count = min(NUM_PHOTOS, len(data.train))
    return Photos.of(data, np.random.default_rng(seed).choice(data.train, count, replace=False))


def augmenters_sheet(chain: Chain, photos: Photos) -> np.ndarray:
    """What the inverse brings back, and then each parameter of each augmenter: lowest, middle and highest.

    Each augmenter is shown on one photo, or on several if it has no ranges. Points are drawn only where something moves
    them, since they would hide everything else. The more there is to show, the wider the sheet.
    """
    strips = _there_and_back(chain, photos[0])
    for number, augmenter in enumerate(chain.augmenters):
        strips += [_strip_of_row(row, photos, number) for row in rows_of(augmenter)]
    return grid(strips, -(-len(strips) // MOST_STRIPS))


def _there_and_back(chain, photo):
    """A strip of a photo as it is, of a draw that moves its points far but keeps them in the frame, and of what the
    inverse brings back; no strip if nothing moves.
    """
    views = [photo.draw(chain, seed=0, sample=sample).placement for sample in range(NUM_TRIED)]
    moved = [transform_points(view.geometry, photo.points) for view in views]
    ways = [
        np.nanmax(np.abs(points - photo.points)) * view.inside(points).mean()
        for view, points in zip(views, moved, strict=True)
    ]
    if not max(ways) > 0:
        return []
    view, still = views[int(np.argmax(ways))], photo.draw(Chain(()), seed=0)
    tiles = [photo.tile(still, "as it is"), photo.tile(view, "drawn"), photo.tile_brought_back(view, "brought back")]
    return [_strip("There and back, by the inverse", tiles)]


def _strip_of_row(row, photos, number):
    """A strip of a row's settings on one photo, or of a single setting on several."""
    settings, chosen = row.settings, [photos[number]] * NUM_SETTINGS
    if len(settings) == 1:
        settings, chosen = settings * NUM_SETTINGS, [photos[number + index] for index in range(NUM_SETTINGS)]
    views = [photo.draw(setting, seed=number) for photo, (_, setting) in zip(chosen, settings, strict=True)]
    moves = any((view.geometry != IDENTITY).any() for view in views)
    tiles = [
        photo.tile(view, caption, with_points=moves)
        for photo, view, (caption, _) in zip(chosen, views, settings, strict=True)
    ]
    off = photos.flip_indices is None and isinstance(settings[0][1], MirrorAugmenter)
    return _strip(f"{row.title}: off, no flip indices" if off else row.title, tiles)


def _strip(title, tiles):
    row = grid(tiles, NUM_SETTINGS)
    return np.pad(
        np.vstack([text_line(title, row.shape[1]), row]), ((0, 0), (0, MARGIN), (0, 0)), constant_values=PAPER
    )


def draws_sheet(chain: Chain, photos: Photos, seed: int) -> np.ndarray:
    """A row for each photo: as it is, and random draws of the whole chain."""
    tiles = []
    for index in range(len(photos.squares)):
        views = [photos[index].draw(chain, seed=seed, sample=NUM_DRAWS * index + draw) for draw in range(NUM_DRAWS)]
        identity = photos[index].tile(photos[index].draw(Chain(()), seed=0), "as it is")
        tiles += [identity, *(photos[index].tile(view) for view in views)]
    return grid(tiles, 1 + NUM_DRAWS)


def rows_of(augmenter: Sampler) -> Iterator[Row]:
    """For each parameter that has a range, its lowest, middle and highest value, with the others at their middle. For
    albumentations, three draws.
    """
    name = type(augmenter).__name__.removesuffix("Augmenter")
    if isinstance(augmenter, RandomAugmenter):
        for child in augmenter.augmenters:
            yield from rows_of(child)
        return
    if isinstance(augmenter, AlbumentationsAugmenter):
        name = ", ".join(type(transform).__name__ for transform, _ in augmenter.parts)
        sure = replace(augmenter, probability=1.0)
        seeds = range(NUM_SETTINGS) if sure.seed is None else [sure.seed]
        yield Row(name, [(f"draw {seed}", replace(sure, seed=seed)) for seed in seeds])
        return
    if not isinstance(augmenter, Augmenter):
        yield Row(name, [("", augmenter)])
        return
    spans = {parameter: ends(getattr(augmenter, parameter)) for parameter in augmenter.parameters()}
    middles = {parameter: _middle(augmenter, parameter, *span) for parameter, span in spans.items()}
    still = replace(augmenter, probability=1.0, **middles)
    ranged = [parameter for parameter, (low, high) in spans.items() if low < high]
    for parameter in ranged:
        values = (spans[parameter][0], middles[parameter], spans[parameter][1])
        yield Row(f"{name} {parameter}", [(f"{value:.3g}", replace(still, **{parameter: value})) for value in values])
    if not ranged:
        yield Row(name, [("", still)])


def _middle(augmenter, parameter, low, high):
    return (low * high) ** 0.5 if parameter in augmenter.factors else (low + high) / 2


def main():
    options = parse_flags(Options, __doc__)
    check_folder("--out", options.out)
    recipe = read_recipe(options.config)
    where = recipe.run.moved(options.data, options.cache, skip_bad_photos=options.skip_bad_photos)
    recipe = replace(recipe, run=where, photos=replace(recipe.photos, size=options.size or recipe.photos.size))
    try:
        chain = parse_chain(recipe)
    except UserError as error:
        raise UserError(f"{options.config}: {error}") from error
    if not chain.augmenters:
        raise UserError(f"{options.config}: augment is empty; there is nothing to show")
    photos = some_photos(recipe, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, picture in (
        ("augmenters", augmenters_sheet(chain, photos)),
        ("draws", draws_sheet(chain, photos, options.seed)),
    ):
        write_picture(options.out / f"{name}.jpg", picture)
        print(options.out / f"{name}.jpg")


if __name__ == "__main__":
    run_script(main)
