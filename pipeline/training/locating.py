"""The training of a locator, which comes before that of the run that looks where it says: a run like any other, in the
folder `locator` of that run's."""

from dataclasses import replace
from pathlib import Path

from pipeline.recipe import LossOptions, Recipe, RunningOptions

SMALLEST, MULTIPLE = 64, 32  # pixels, of the images


def locator_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe of the locator of a run in `folder`: the same network, for a few steps on whole photos of half the
    size, of which none is left out for its loss."""
    photos, loss, optimiser = recipe.photos, recipe.loss, recipe.optimiser
    size = min(photos.size, max(SMALLEST, photos.size // 2 // MULTIPLE * MULTIPLE))
    return replace(
        shown_whole(recipe),
        run=replace(recipe.run, name=f"{recipe.run.name}-locator", runs=folder, stages=[]),
        photos=replace(shown_whole(recipe).photos, size=size, progressive=(), roi="auto"),
        network=replace(recipe.network, freeze_epochs=0),
        loss=replace(
            loss,
            top_perc_train=LossOptions.top_perc_train,
            without_top_perc_train=LossOptions.without_top_perc_train,
        ),
        optimiser=replace(
            optimiser, epochs=1, steps_per_epoch=photos.locate_steps, minutes=None, keep_best=0, mixup=0.0
        ),
        running=RunningOptions(),
    )


def shown_whole(recipe: Recipe) -> Recipe:
    """The recipe of a network that is shown whole photos, whatever another would find in them."""
    return replace(recipe, photos=replace(recipe.photos, locate_steps=None, locator=None))
