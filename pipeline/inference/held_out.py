"""The data of runs, and the photos that they held out, for fitting weights on them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from pipeline.blocks import blocks
from pipeline.data.contest import find_contest
from pipeline.data.dataset import TrainingData, load_training_data
from pipeline.data.pack import Pack
from pipeline.errors import UserError
from pipeline.recipe import Recipe, RunOptions
from pipeline.runs import Run

MAX_FITTED = 4000  # held-out photos are enough, and the points of all their views fit into memory
MIN_FITTED = 20
MIN_GROUPS = 5


def training_data(run: Run, options: RunOptions) -> TrainingData:
    """The data that a run was trained on. options: its own, except for where the data and the cache are now.

    Raises UserError if they are not there, or not the same.
    """
    return load_training_data(replace(run.recipe(), run=options, photos=run.photo_options()), of_run=run)


def held_out(run: Run, recipe: Recipe) -> tuple[TrainingData, np.ndarray]:
    """The data that a run was trained on, and the held-out photos that weights are fitted on: all, or MAX_FITTED.

    recipe: the run's own, except for where the data and the cache are now. Raises UserError if the data are not there,
    not the same, or too few are held out.
    """
    options, own = recipe.run, run.recipe().run
    options = replace(options, skip_bad_photos=options.skip_bad_photos or own.skip_bad_photos)
    with suppress(UserError):  # --data may be a test alone
        find_contest(own.data)
        options = replace(options, data=own.data)
    data = training_data(run, options)
    return data, _enough(data, data.validation)


def held_out_by_all(runs: Sequence[tuple[Run, Recipe]]) -> tuple[list[Pack], list[np.ndarray], np.ndarray]:
    """Each run's pack, the rows in it of the photos that all runs held out, in one order, and these photos' groups.

    Raises UserError if there are too few, or the runs have other points on them.
    """
    if not set.intersection(*(set(run.held_out_names()) for run, _ in runs)):
        raise UserError("the runs held out no photo in common")
    opened = [data for data, _ in (held_out(run, recipe) for run, recipe in runs)]
    names = [data.pack.names[data.validation].tolist() for data in opened]
    common = set.intersection(*map(set, names))
    first = opened[0]
    chosen = _enough(first, first.validation[[name in common for name in names[0]]])
    samples = []
    for data in opened:
        row_of = {name: row for row, name in enumerate(data.pack.names.tolist())}
        samples.append(np.array([row_of[name] for name in first.pack.names[chosen]]))
    values = [data.pack.values[rows] for data, rows in zip(opened, samples, strict=True)]
    if not all(np.array_equal(values[0], other, equal_nan=True) for other in values[1:]):
        raise UserError("the runs were trained on other points of the photos that they all held out")
    return [data.pack for data in opened], samples, first.groups[chosen]


def _enough(data, samples):
    """The samples that have points, or MAX_FITTED of them. Raises UserError if they are too few to fit on, or of too
    few groups."""
    parts = (samples[block] for block in blocks(len(samples)))
    labelled = (part[~np.isnan(data.pack.values[part]).any(axis=2).all(axis=1)] for part in parts)
    samples = np.concatenate([samples[:0], *labelled])
    if len(samples) > MAX_FITTED:
        samples = np.sort(np.random.default_rng(0).choice(samples, MAX_FITTED, replace=False))
    num_groups = len(np.unique(data.groups[samples]))
    if len(samples) < MIN_FITTED or num_groups < MIN_GROUPS:
        raise UserError(
            f"only {len(samples)} photos with points, of {num_groups} groups, were held out; at least {MIN_FITTED}, of "
            f"{MIN_GROUPS} groups, are needed; a run with a lower --train-share holds out more"
        )
    return samples
