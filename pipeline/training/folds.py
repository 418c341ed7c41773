"""Folds: runs that each hold out another part of the photos, so that every photo is predicted by one that never saw it.

    recipe.yaml     of all of them          fold-0/, fold-1/ …      runs like any other
    folds.json      how many there are      fold-0.txt …            the photos that each holds out
    held_out.csv    what each scored        sample_weights.csv      of --sample-weights

Each run's `held_out_points.npy` has the points of the photos in its `validation.txt`, in that order.
"""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from pipeline.blocks import blocks
from pipeline.data.dataset import TrainingData
from pipeline.data.sample_weights import weights_table
from pipeline.data.split import split_into_folds
from pipeline.errors import UserError
from pipeline.files import csv_text, digest, replacing, sealed, write_text
from pipeline.metrics import PhotoErrors, scores_of
from pipeline.recipe import Recipe, to_yaml
from pipeline.recipe_file import FOLDS, RUN_RECIPE
from pipeline.runs import Folds, Run, predict_command
from pipeline.training.new_run import new_folder

SAMPLE_WEIGHTS = "sample_weights.csv"


def create_folds(recipe: Recipe, data: TrainingData, count: int) -> Path:
    """Makes a folder for `count` folds, with the photos that each holds out.

    Raises UserError if there are too few groups, or if one of the folds could not be trained or scored.
    """
    fold_of = split_into_folds(data.groups, count)
    if fold_of.max() + 1 < count:
        raise UserError(f"--folds {count}: the photos are of {fold_of.max() + 1} groups, which cannot be split")
    check_points(data, fold_of, count)
    folder = new_folder(replace(recipe, run=replace(recipe.run, name=f"{recipe.run.name}_folds-{count}")))
    digests = {}
    for fold in range(count):
        held_out = "".join(f"{name}\n" for name in data.pack.names[fold_of == fold])
        write_text(folder / f"fold-{fold}.txt", held_out)
        digests[f"fold-{fold}.txt"] = digest(held_out.encode())
    if recipe.photos.sample_weights:
        weights = weights_table(data.pack.names, data.weights)
        write_text(folder / SAMPLE_WEIGHTS, weights)
        digests[SAMPLE_WEIGHTS] = digest(weights.encode())
    write_text(folder / RUN_RECIPE, to_yaml(recipe))
    write_text(folder / FOLDS, sealed(asdict(Folds(count, digests))))  # last: with it they can be resumed
    return folder


def check_points(data: TrainingData, fold_of: np.ndarray, count: int):
    """Raises UserError for a fold that holds out all labels of a point, which it could not learn, or has no labels."""
    values, used = data.pack.values, np.ones(len(fold_of), bool) if data.weights is None else data.weights > 0
    scored, taught = np.zeros((2, count, values.shape[1]), bool)
    for block in blocks(len(values)):
        known = ~np.isnan(values[block]).any(axis=2)
        for fold in range(count):
            own = fold_of[block] == fold
            scored[fold] |= known[own].any(axis=0)
            taught[fold] |= known[own & used[block]].any(axis=0)
    advice = "train with fewer --folds or without, or label more photos"
    for fold in range(count):
        if not scored[fold].any():
            raise UserError(
                f"--folds {count}: none of the photos that fold {fold} holds out has a known point; {advice}"
            )
        if not (known := np.delete(taught, fold, axis=0).any(axis=0)).all():
            raise UserError(
                f"--folds {count}: fold {fold} holds out all photos that have point {known.argmin()}, which it could "
                f"not learn; {advice}"
            )


def with_kept_weights(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the photos' weights that lie in the folder of the folds, if it has any."""
    kept = folder / SAMPLE_WEIGHTS
    if not recipe.photos.sample_weights:
        return recipe
    return replace(recipe, photos=replace(recipe.photos, sample_weights=kept))


def fold_recipe(recipe: Recipe, folder: Path, fold: int) -> Recipe:
    """The recipe of one fold, which differs from the others in what is held out."""
    name = f"{recipe.run.name}-fold-{fold}"
    split = folder / f"fold-{fold}.txt"
    recipe = with_kept_weights(recipe, folder)
    return replace(recipe, run=replace(recipe.run, name=name), photos=replace(recipe.photos, split=split))


def save_held_out(run: Run, points: np.ndarray):
    """Saves (N, K, 2) points of the photos that a fold held out, in pixels of the photos."""
    with replacing(run.held_out_points) as file:
        np.save(file, points.astype(np.float32))


def print_folds(folder: Path, parts: list[tuple[np.ndarray, PhotoErrors]]):
    """Prints a table of what each fold scored on what it held out, and all of them on all photos; also as held_out.csv.

    parts: for each fold, the groups of the photos that it held out, and its errors.
    """
    groups, errors = zip(*parts, strict=True)
    rows = [_row(f"fold {fold}", *part) for fold, part in enumerate(parts)]
    rows.append(_row("all", np.concatenate(groups), PhotoErrors.together(errors)))
    write_text(folder / "held_out.csv", csv_text([rows[0], *(row.values() for row in rows)]))
    print(f"\n{'held out':10}{'photos':>8}{'MSE':>10}{'95 %':>20}{'NME %':>8}")
    for row in rows:
        interval = f"{row['low']:.2f} … {row['high']:.2f}"
        print(f"{row['part']:10}{row['photos']:8,}{row['mse']:10.3f}{interval:>20}{row['nme']:8.2f}")
    print(f"\nfolds        {folder}")
    print(f"submission   {predict_command(folder)}")


def _row(part, groups, errors):
    return {"part": part, "photos": len(groups), **asdict(scores_of(errors, groups))}
