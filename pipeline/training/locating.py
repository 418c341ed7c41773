"""The training of a locator, which comes before that of the run that looks where it says: a run like any other, in the
folder `locator` of that run's folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data.contest import LANDMARKS, count_points, find_contest
from pipeline.data.loader import parse_chain
from pipeline.data.regions import read_regions
from pipeline.errors import UserError
from pipeline.inference.tta import parse_views
from pipeline.networks import make_network
from pipeline.recipe import AugmentOptions, LossOptions, OptimiserOptions, Recipe, RunningOptions
from pipeline.stages import OF_ONE_SIZE

SMALLEST, MULTIPLE = 64, 32  # pixels, of the images
SCALES = {"AffineAugmenter": {"scale": [0.75, 1.35]}}  # besides those of the recipe: few photos show things so large


def check_located(recipe: Recipe):
    """Raises UserError, before the locator is trained, for what the run that follows it could not be trained with."""
    table = find_contest(recipe.run.data) / LANDMARKS
    num_points = count_points(table)
    if num_points == 1:
        raise UserError(f"--locate: {table} has one point, which spans no box; give --locate 0")
    if num_points and recipe.running.regions:
        read_regions(recipe.running.regions, num_points)
    parse_chain(recipe)
    parse_views(recipe.prediction.views, size=recipe.photos.size, mirroring=True, source="views")
    make_network(recipe, None, mean_shape=np.zeros((2, 2)))


def locator_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe of the locator of a run in `folder`: the same network, for its share of the training, on smaller
    images of the region of interest, at more scales than the run's; no photo is left out for its loss. Heads whose
    weights fit one image size keep that size, since the run starts from them.
    """
    photos, optimiser = recipe.photos, recipe.optimiser
    size = min(photos.size, max(SMALLEST, photos.size // 2 // MULTIPLE * MULTIPLE))
    if recipe.network.head in OF_ONE_SIZE:
        size = photos.size
    minutes = recipe.running.session_minutes or optimiser.minutes
    return replace(
        recipe,
        run=replace(recipe.run, name=f"{recipe.run.name}-locator", runs=folder, stages=[]),
        photos=replace(shown_whole(recipe).photos, size=size, progressive=(), roi="auto"),
        network=replace(recipe.network, freeze_epochs=0),
        augmentation=AugmentOptions([SCALES, *recipe.augmentation.augment]),
        loss=replace(
            recipe.loss,
            top_perc_train=LossOptions.top_perc_train,
            without_top_perc_train=LossOptions.without_top_perc_train,
        ),
        optimiser=replace(_for_share(replace(optimiser, minutes=minutes), photos.locate), keep_best=0, mixup=0.0),
        running=RunningOptions(),
    )


def after_locating(recipe: Recipe) -> Recipe:
    """The recipe with the part of the training that its locator leaves."""
    return replace(recipe, optimiser=_for_share(recipe.optimiser, 1 - recipe.photos.locate))


def shown_whole(recipe: Recipe) -> Recipe:
    """The recipe of a network that sees whole photos, whatever another would find in them."""
    return replace(recipe, photos=replace(recipe.photos, locate=0.0, locator=None))


def _for_share(options: OptimiserOptions, share: float) -> OptimiserOptions:
    minutes = options.minutes and share * options.minutes
    return options if share == 1 else replace(options, epochs=share * options.epochs, minutes=minutes)
