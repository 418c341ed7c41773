"""One training of an ablation: a row on a split, its scores with one view, and what a photo costs."""

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.ablation_rows import Study
from models import FROM_SHAPES
from pipeline.command import parse_command
from pipeline.console import Console
from pipeline.data.contest import GROUPS, LANDMARKS, find_contest
from pipeline.data.dataset import load_training_data, shape_components
from pipeline.data.loader import parse_chain, training_batches
from pipeline.files import digest, write_text
from pipeline.inference.locator import located
from pipeline.metrics import mse_of_photos, normalised_mean_error
from pipeline.networks import make_network, read_start
from pipeline.recipe import Recipe
from pipeline.runs import Run
from pipeline.runtime import Runtime
from pipeline.training.locating import after_locating, locator_recipe
from pipeline.training.one_run import train_run
from pipeline.training.trainer import Trainer

PARTS = 5
WORST = 0.01  # of the photos
ROUNDS, STEPS = 5, 4  # of the measurement of costs


def measure(study: Study, row: str, split: int, *, data: Path, cache: Path) -> dict[str, Any]:
    """Trains one row on one split, and scores it with one view on what was held out."""
    trainer = trainer_of(study, row, split, data=data, cache=cache)
    begun = time.process_time()
    trainer.train(parse_chain(trainer.recipe))
    seconds = time.process_time() - begun
    held_out = trainer.data.validation
    truth, names = trainer.data.pack.values[held_out], trainer.data.pack.names[held_out]
    points = trainer.validate()
    errors = np.sort(mse_of_photos(points, truth, names))
    found = {
        "mse": round(float(errors.mean()), 3),
        "mse without the worst 1 %": round(float(errors[: len(errors) - round(WORST * len(errors))].mean()), 3),
        "nme": round(float(normalised_mean_error(points, truth)), 4),
        "photos": int(trainer.state.seen),
        "processor seconds": round(seconds, 1),
        "precision": trainer.runtime.precision,
        "epochs": trainer.recipe.optimiser.epochs,
    }
    if split == 0 and row != "default":
        found["cost"] = cost(study, row, data=data, cache=cache)
    return found


def cost(study: Study, row: str, *, data: Path, cache: Path) -> float:
    """The processor time of a photo against the default's, over the mixture of sizes that the recipes train; steps of
    both are measured in turn."""
    trainers = [trainer_of(study, each, 0, data=data, cache=cache) for each in ("default", row)]
    seconds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for trainer, spent in zip(trainers, seconds, strict=True):
            spent.append(sum(share * seconds_a_photo(trainer, size) for share, size in mixture(trainer.recipe)))
    default, changed = (statistics.median(spent) for spent in seconds)
    return round(changed / default, 3)


def mixture(recipe: Recipe) -> list[tuple[float, int]]:
    """The sizes that a recipe trains, each with its share of the photos."""
    smaller = list(recipe.photos.progressive)
    return [*smaller, (1 - sum(share for share, _ in smaller), recipe.photos.size)]


def seconds_a_photo(trainer: Trainer, size: int) -> float:
    """Processor time of some steps at one size."""
    batches = list(
        training_batches(
            trainer.data.pack,
            trainer.source,
            trainer.order.of_pass(0)[:STEPS],
            parse_chain(trainer.recipe),
            trainer.data.flip_indices,
            seed=0,
            epoch=0,
            size_of_batch=lambda _: size,
        )
    )
    begun = time.process_time()
    for batch in batches:
        trainer.step(batch)
    return (time.process_time() - begun) / sum(len(batch.samples) for batch in batches)


def trainer_of(study: Study, row: str, split: int, *, data: Path, cache: Path) -> Trainer:
    recipe = recipe_of(study, row, split, data=data, cache=cache)
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    if locator_row := study.locator_row(row):
        locator = folder_of_locator(study, locator_row, split, cache=cache)
        network_options, photos = replace(recipe.network, init=locator), replace(recipe.photos, locator=locator)
        recipe = replace(recipe, network=network_options, photos=photos)
    photos, _ = located(recipe, runtime)
    contest = load_training_data(replace(recipe, photos=photos))
    components = shape_components(contest) if recipe.network.head in FROM_SHAPES else None
    start = read_start(recipe.network)
    network = make_network(recipe, start, mean_shape=contest.mean_shape, components=components)
    if row in study.changes:
        study.changes[row](network)
    return Trainer(network, after_locating(recipe), contest, runtime)


def train_locator(study: Study, row: str, split: int, *, data: Path, cache: Path):
    """Trains a row's locator on a split, or goes on with it."""
    run = Run(folder_of_locator(study, row, split, cache=cache))
    recipe = locator_recipe(recipe_of(study, row, split, data=data, cache=cache), cache)
    train_run(recipe, Console(sys.stdout), run if run.last.exists() else None, run.folder)


def folder_of_locator(study: Study, row: str, split: int, *, cache: Path) -> Path:
    return cache.absolute() / f"{study.folder}_locator_{split}_{digest(' '.join(study.flags(row)).encode())[:8]}"


def recipe_of(study: Study, row: str, split: int, *, data: Path, cache: Path) -> Recipe:
    cache.mkdir(exist_ok=True)
    held_out = cache / f"{study.folder}_split_{split}.txt"
    write_text(held_out, "".join(f"{name}\n" for name in names_held_out(data, split)))
    flags = ("--data", str(data), "--cache", str(cache), "--split", str(held_out))
    return parse_command([*flags, *study.flags(row)]).recipe


def names_held_out(data: Path, split: int) -> list[str]:
    """The photos whose group, or without groups whose row, has the number of the split as its remainder by five. Groups
    with names are numbered in their order."""
    data = find_contest(data)
    if (data / GROUPS).exists():
        groups = pd.read_csv(data / GROUPS, sep="\t", index_col=0).iloc[:, 0]
        if not pd.api.types.is_integer_dtype(groups):
            groups = pd.Series(pd.factorize(groups, sort=True)[0], groups.index)
        return list(groups.index[groups % PARTS == split])
    names = pd.read_csv(data / LANDMARKS, sep="\t", usecols=[0]).iloc[:, 0]
    return list(names[np.arange(len(names)) % PARTS == split])
