"""Contact sheets of a recipe's augmenters on a contest's photos, so that ranges are chosen by eye.

    python -m pipeline.sheet --data PATH --config configs/FILE

`augmenters.jpg` has a row for each parameter of each augmenter: its lowest, middle and highest value, each with the
image and the points brought back beside it. `draws.jpg` has random draws: could these photos occur in the test?
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
    Draws,
    Key,
    MirrorAugmenter,
    RandomAugmenter,
    View,
    Window,
    transform_points,
)
from augment.augmenters import ends
from pipeline.batches import parse_chain
from pipeline.data import TrainingData, load_training_data
from pipeline.errors import UserError, run_script
from pipeline.flags import parse_flags
from pipeline.pictures import TRUTH, tile, write_picture
from pipeline.recipe import Recipe, read_recipe

NUM_PHOTOS = 6
NUM_DRAWS = 7
EVERYTHING = Path(__file__).parents[1] / "configs" / "every_augmenter.yaml"


@dataclass(frozen=True)
class Options:
    data: Annotated[Path, arg(aliases=["-d"])] = Path()
    """The contest's folder."""
    config: Annotated[Path, arg(metavar="FILE")] = EVERYTHING
    """A recipe file, whose augmenters are shown; without it one with every augmenter there is."""
    out: Path = Path("sheets")
    """The folder to write to."""
    cache: Path = Path("cache")
    """Where decoded photos are kept."""
    size: Annotated[int, Ge(32)] = 128
    """Side of the images, in pixels."""
    seed: int = 0
    """Of the photos and the draws."""


@dataclass(frozen=True)
class Photos:
    """A few photos of a pack: squares (N, 3, S, S) uint8, of which the window is shown, points (N, K, 2) in its pixels,
    and the points' partners.
    """

    squares: torch.Tensor
    points: np.ndarray
    permutation: np.ndarray | None
    window: Window

    @classmethod
    def of(cls, data: TrainingData, samples: np.ndarray) -> "Photos":
        pack = data.pack
        squares = torch.from_numpy(pack.squares[samples]).permute(0, 3, 1, 2)
        return cls(squares, transform_points(pack.fits[samples], pack.values[samples]), data.permutation, pack.window)

    def __getitem__(self, place: int) -> "Photos":
        place %= len(self.squares)
        return Photos(self.squares[place : place + 1], self.points[place : place + 1], self.permutation, self.window)

    def draw(self, augmenter: Draws, *, seed: int, sample: int = 0) -> View:
        """A view of one photo."""
        view = augmenter.draw(Key(seed, 0, np.array([sample])), (self.window.size, self.window.size))
        return view.unmirrored() if self.permutation is None else view

    def seen_by(self, view: View, caption: str) -> np.ndarray:
        """A tile of one photo and its points through a view."""
        image = self.window.then(view).warp(self.squares)[0].permute(1, 2, 0).numpy()
        return tile(np.ascontiguousarray(image), [(view.move(self.points, self.permutation)[0], TRUTH)], caption)

    def brought_back(self, view: View) -> np.ndarray:
        """A tile of what comes home of the photo and of its points, through the inverse."""
        home = view.placement.inverse()
        image = home.warp(self.window.then(view).warp(self.squares))[0].permute(1, 2, 0).numpy()
        points = home.move(view.move(self.points, self.permutation), self.permutation)
        return tile(np.ascontiguousarray(image), [(points[0], TRUTH)], "brought back")


def some_photos(recipe: Recipe, seed: int) -> Photos:
    """A few photos of the recipe's contest, drawn by the seed."""
    data = load_training_data(recipe)
    samples = np.random.default_rng(seed).choice(data.train, min(NUM_PHOTOS, len(data.train)), replace=False)
    return Photos.of(data, samples)


def augmenters_sheet(chain: Chain, photos: Photos) -> np.ndarray:
    """A row for each parameter of each augmenter: lowest, middle, highest, each brought back beside it."""
    rows = []
    for number, settings in enumerate(row for augmenter in chain.augmenters for row in settings_of(augmenter)):
        tiles = []
        for caption, augmenter in settings:
            if photos.permutation is None and isinstance(augmenter, MirrorAugmenter):
                caption = "Mirror: off, no permutation"
            view = photos[number].draw(augmenter, seed=number)
            tiles += [photos[number].seen_by(view, caption), photos[number].brought_back(view)]
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def draws_sheet(chain: Chain, photos: Photos, seed: int) -> np.ndarray:
    """A row for each photo: as it is, and random draws of the whole chain."""
    rows = []
    for place in range(len(photos.squares)):
        views = [photos[place].draw(chain, seed=seed, sample=NUM_DRAWS * place + draw) for draw in range(NUM_DRAWS)]
        as_it_is = photos[place].seen_by(photos[place].draw(Chain(()), seed=0), "as it is")
        rows.append(np.hstack([as_it_is, *(photos[place].seen_by(view, "") for view in views)]))
    return np.vstack(rows)


def settings_of(augmenter) -> Iterator[list[tuple[str, Draws]]]:
    """For each parameter that has a range, three settings with their captions; others are at their middle. Of what
    albumentations draws, three draws.
    """
    name = type(augmenter).__name__.removesuffix("Augmenter")
    if isinstance(augmenter, RandomAugmenter):
        for child in augmenter.augmenters:
            yield from settings_of(child)
        return
    if isinstance(augmenter, AlbumentationsAugmenter):
        name = ", ".join(type(transform).__name__ for transform, _ in augmenter.parts)
        sure = replace(augmenter, probability=1.0)
        yield [(name, sure)] * 3 if sure.seed is not None else [(name, replace(sure, seed=seed)) for seed in range(3)]
        return
    if not isinstance(augmenter, Augmenter):
        yield [(name, augmenter)] * 3
        return
    spans = {parameter: ends(getattr(augmenter, parameter)) for parameter in augmenter.parameters()}
    middles = {parameter: _middle(augmenter, parameter, *span) for parameter, span in spans.items()}
    still = replace(augmenter, probability=1.0, **middles)
    ranged = [parameter for parameter, (low, high) in spans.items() if low < high]
    for parameter in ranged:
        values = (spans[parameter][0], middles[parameter], spans[parameter][1])
        yield [(f"{name} {parameter} {value:.3g}", replace(still, **{parameter: value})) for value in values]
    if not ranged:
        yield [(name, still)] * 3


def _middle(augmenter, parameter, low, high):
    return (low * high) ** 0.5 if parameter in augmenter.factors else (low + high) / 2


def main():
    options = parse_flags(Options, __doc__)
    recipe = read_recipe(options.config)
    place = replace(recipe.run, data=options.data, cache=options.cache)
    recipe = replace(recipe, run=place, photos=replace(recipe.photos, size=options.size))
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
