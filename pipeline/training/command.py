"""A training from the command to its result: a run, folds or stages, which are runs in turn, or a sweep
for a rate."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.command import Command
from pipeline.console import Console
from pipeline.data.contest import find_contest
from pipeline.data.dataset import load_training_data, open_train_photos
from pipeline.data.pack import Pack
from pipeline.files import check_folder, write_text
from pipeline.inference.predict import predict_points
from pipeline.memory import out_of_memory_named
from pipeline.metrics import errors_of_photos
from pipeline.networks import check_network, check_unseen, load_run_network, read_start
from pipeline.ranks import Ranks
from pipeline.recipe import Recipe, to_yaml
from pipeline.recipe_file import RUN_RECIPE
from pipeline.runs import Run, find_run, fold_runs, predict_command
from pipeline.runtime import Runtime
from pipeline.stages import check_begun_anew, num_finished, stage_folder, stage_recipe, write_finished
from pipeline.training.folds import create_folds, fold_recipe, print_folds, save_held_out, with_kept_weights
from pipeline.training.job import NO_JOB, Job, taken_up
from pipeline.training.locating import shown_whole
from pipeline.training.lr_finder import find_rate
from pipeline.training.new_run import new_folder
from pipeline.training.one_run import made_by_main, prepare, train_run, what_fits
from pipeline.training.stages import begun_run, check_recipes, folder_of_stages, recipe_of_stage
from pipeline.training.user_callbacks import load_callbacks


def train_command(command: Command, console: Console) -> Path:
    """Trains what the command asks for, and returns its folder. Raises UserError, early, for what cannot be trained."""
    job = Job.of(command)
    command = taken_up(command, job)
    options = command.recipe.run
    load_callbacks(command.recipe.running.callbacks)
    if not command.resume:
        check_begun_anew(command.recipe)
    data, cache = (Path(os.path.realpath(path)) for path in (options.data, options.cache))  # a loop of links stays
    photos = command.recipe.photos
    boxes, locator = (path and Path(os.path.realpath(path)) for path in (photos.boxes, photos.locator))
    photos = replace(photos, boxes=boxes, locator=locator)
    recipe = replace(command.recipe, run=replace(options, data=data, cache=cache), photos=photos)
    if command.find_lr:
        folder = find_learning_rate(recipe)
    elif command.folds or (command.resume and fold_runs(command.resume)):
        folder = train_folds(recipe, console, command.folds, command.resume, job=job)
    elif recipe.run.stages:
        folder = train_stages(recipe, console, command.resume, job=job)
    else:
        earlier = find_run(command.resume, recipe.run.runs) if command.resume else None
        folder = train_run(recipe, console, earlier, job=job)
    job.end()
    return folder


def find_learning_rate(recipe: Recipe) -> Path:
    """Proposes a rate for the first stage of what the recipe would train, on whole photos if a locator would have to be
    trained first. Returns the folder of the sweep."""
    if recipe.run.stages:
        print(f"sweep        for the first of {len(recipe.run.stages)} stages")
        recipe = stage_recipe(recipe, 0)
    if recipe.photos.locate and not recipe.photos.locator:
        print("sweep        on whole photos, since there is no locator yet")
    recipe = replace(recipe, photos=replace(recipe.photos, locate=0.0))
    named = replace(recipe, run=replace(recipe.run, name=f"{recipe.run.name}-find-lr"))
    with out_of_memory_named(what_fits(recipe)):
        trainer, chain = prepare(recipe, None)
        return find_rate(trainer, chain, lambda: new_folder(named))


def train_folds(
    recipe: Recipe, console: Console, count: int | None, earlier: Path | None, *, job: Job = NO_JOB
) -> Path:
    """Trains each fold in turn, or resumes them, and keeps what each predicts for what it held out. Returns the folder
    of all of them."""
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    begun = fold_runs(earlier)[0] if earlier else None
    locates = recipe.photos.locates
    if begun and begun.is_made and not locates:
        recipe = replace(recipe, photos=replace(recipe.photos, roi=begun.recipe().photos.roi))
    if earlier:
        recipe = with_kept_weights(recipe, earlier)
    else:
        with out_of_memory_named(what_fits(recipe)):
            check_network(recipe, read_start(recipe.network))  # bad ones are refused before there is a folder
    ranks = runtime.ranks
    with out_of_memory_named(what_fits(recipe)):
        data = ranks.in_turn(lambda: load_training_data(shown_whole(recipe)))
    if not earlier:
        names = data.pack.names.tolist()
        check_unseen(recipe.network, data.pack, recipe.run.data, held_out=names, everything=True)
    folder = earlier or made_by_main(lambda: create_folds(recipe, data, count or 0)).folder
    if not locates:
        recipe = replace(recipe, photos=replace(recipe.photos, roi=data.roi))
    if ranks.is_main:
        write_text(folder / RUN_RECIPE, to_yaml(recipe))
        job.begin(folder)
    ranks.barrier()
    parts = []
    for fold, run in enumerate(fold_runs(folder)):
        runtime.print(f"\nfold {fold}")
        known = run if run.recipe_path.exists() else None
        train_run(fold_recipe(recipe, folder, fold), console, known, run.folder, part_of=folder)
        samples = np.flatnonzero(np.isin(data.pack.names, run.held_out_names()))
        network = load_run_network(run, "best").to(runtime.device)
        part = ranks.part(len(samples))
        pack = pack_of_fold(run, recipe, ranks) if locates else data.pack
        own = predict_points(network, pack, samples[part], runtime=runtime)
        points = ranks.gather_arrays(own, part, len(samples))
        if ranks.is_main:
            save_held_out(run, points)
            parts.append((data.groups[samples], errors_of_photos(points, data.pack.values[samples])))
    if ranks.is_main:
        print_folds(folder, parts)
    return folder


def pack_of_fold(run: Run, recipe: Recipe, ranks: Ranks) -> Pack:
    """The photos as a fold sees them, which looks where its own locator says."""
    shown = replace(recipe, photos=run.photo_options())
    return ranks.in_turn(lambda: open_train_photos(shown))


def train_stages(recipe: Recipe, console: Console, earlier: Path | None, *, job: Job = NO_JOB) -> Path:
    """Trains the stages in turn, each from the best weights of the one before, or resumes them. Returns the folder of
    all of them."""
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    find_contest(recipe.run.data)
    if not earlier:
        check_folder("--runs", recipe.run.runs)
        check_recipes(recipe)
    count = len(recipe.run.stages)
    with folder_of_stages(recipe, earlier, runtime.ranks) as folder:
        job.begin(folder)
        for number in range(min(num_finished(folder), count - 1), count):
            runtime.print(f"\nstage {number}, {count - number - 1} more after it")
            stage = recipe_of_stage(recipe, folder, number)
            train_run(stage, console, begun_run(folder, number), stage_folder(folder, number), part_of=folder)
            if runtime.is_main:
                write_finished(folder, number + 1)
            runtime.ranks.barrier()
    runtime.print(f"\nstages       {folder}")
    runtime.print(f"submission   {predict_command(folder)}")
    return folder
