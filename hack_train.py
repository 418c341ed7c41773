"""Trains a landmark regressor on a contest's folder: `python hack_train.py --name x --data PATH --gpu`."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.console import Console, recorded_console
from pipeline.errors import run_script
from pipeline.recipe import Command, Recipe, parse_command
from pipeline.stopping import Stopped, terminated_as_interrupted

if TYPE_CHECKING:
    from pipeline.metrics import Scores
    from pipeline.runs import Run

NOT_LEARNED = 0.7  # of the mean shape's error


def main():
    try:
        with terminated_as_interrupted(), recorded_console() as console:
            run_command(parse_command(sys.argv[1:]), console)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.status)


def run_command(command: Command, console: Console):
    """Trains what the command asks for."""
    # What follows needs torch, which takes seconds to import; --help does not wait for it.
    from pipeline.runs import find_run, fold_runs

    options = command.recipe.run
    data, cache = (Path(os.path.realpath(path)) for path in (options.data, options.cache))  # a loop of links stays
    recipe = replace(command.recipe, run=replace(options, data=data, cache=cache))
    if command.folds or (command.resume and fold_runs(command.resume)):
        train_folds(recipe, console, command.folds, command.resume)
    else:
        train_run(recipe, console, find_run(command.resume, recipe.run.runs) if command.resume else None)


def train_run(recipe: Recipe, console: Console, earlier: "Run | None", folder: Path | None = None):
    """Trains one run, in a new folder unless one is given, or goes on with an earlier one."""
    from pipeline.batches import parse_chain
    from pipeline.checkpoint import load_checkpoint
    from pipeline.contest import find_contest
    from pipeline.data import leaks, load_training_data, mean_shape_score
    from pipeline.device import choose_device, choose_precision, describe, say_busy
    from pipeline.files import check_folder, check_usable
    from pipeline.report import Report
    from pipeline.runs import create_run
    from pipeline.start import check_unseen, make_network, read_start
    from pipeline.training import Training, train
    from pipeline.views import parse_views
    from pipeline.window import describe_window

    root = find_contest(recipe.run.data)
    if earlier:
        check_usable(earlier.folder)
        earlier.check_recipe(recipe)
    else:
        check_folder("--runs", recipe.run.runs)
    device = choose_device(gpu=recipe.run.gpu)
    precision = choose_precision(recipe.network.precision, device)
    chain = parse_chain(recipe)
    parse_views(recipe.prediction.views, size=recipe.photos.size, mirroring=True, source="views")
    start = None if earlier and earlier.last.exists() else read_start(recipe.network)

    data = load_training_data(replace(recipe, photos=earlier.photo_options()) if earlier else recipe)
    if not earlier:
        check_unseen(recipe.network, data, data.validation)
    network = make_network(
        recipe.network, start, mean_shape=data.mean_shape, size=recipe.photos.size, seed=recipe.run.seed
    )
    training = Training(network, recipe, data, device, precision)
    floor = mean_shape_score(data)
    if earlier:
        earlier.check_data(data)
    run = earlier or create_run(recipe, data, floor=floor, folder=folder)
    console.keep_in(run.folder / "console.txt")

    print(f"data         {root}")
    print(f"photos       {len(data.train):,} to train on, {len(data.validation):,} held out; {data.num_points} points")
    if data.pack.left_out:
        print(f"             left out {len(data.pack.left_out):,} photos of train that are missing or broken")
    print(f"groups       {data.grouping}")
    for leak in leaks(data):
        print(f"warning      {leak}")
    print(f"window       {describe_window(data.window)}")
    print(f"left/right   {data.symmetry}")
    print(f"network      {recipe.network.model} at {recipe.photos.size} px, {precision} on {describe(device)}")
    print(f"mean shape   {floor}: the floor, from a network that does not look")
    print(f"run          {run.folder}")
    print(f"             after a stop: {resume_command(folder.parent if folder else run.folder)}")
    print(f"             watch it: tensorboard --logdir {recipe.run.runs}", flush=True)

    say_busy(device)
    with run.claimed():
        run.write_recipe(recipe)
        run.add_environment(describe(device))
        if run.last.exists():
            training.load_state(load_checkpoint(run.last))
            so_far = training.progress
            print(f"goes on      from epoch {so_far.epoch}, step {so_far.step:,}, minute {so_far.minutes:.1f}")
        elif earlier:
            print("goes on      from the start: the run was stopped before its first checkpoint")
        report = Report(run, training.num_read)
        try:
            train(training, chain, run, report)
        except Stopped:
            print(f"stopped      to go on: {resume_command(folder.parent if folder else run.folder)}", flush=True)
            raise
        finally:
            report.close()

    say_result(run, training.progress.history, floor)


def resume_command(folder: Path) -> str:
    return f"python hack_train.py --resume {shlex.quote(str(folder))}"


def say_result(run: "Run", history: list[dict[str, float]], floor: "Scores"):
    """The best epoch, and where everything lies."""
    if not history:
        print("\nno step fits into the time that is left; raise --minutes")
        return
    best = min(history, key=lambda row: row["validation_mse"])
    mse = f"{best['validation_mse']:.2f} px² (mean shape {floor.mse:.2f})"
    print(f"\nbest         epoch {best['epoch']}: validation MSE {mse}")
    if best["validation_mse"] > NOT_LEARNED * floor.mse:
        print("             that is hardly better than not looking: train longer, or see the pictures")
    print(f"weights      {run.best}")
    print(f"metrics      {run.metrics}")
    print(f"pictures     {run.picture('worst_validation')}")
    print(f"submission   python predict.py --run {run.folder}")


def train_folds(recipe: Recipe, console: Console, count: int | None, earlier: Path | None):
    """Trains each fold in turn, or goes on with them, and keeps what each predicts of what it held out."""
    import numpy as np

    from pipeline.data import load_training_data
    from pipeline.device import choose_device, choose_precision
    from pipeline.files import write_text
    from pipeline.folds import create_folds, fold_recipe, save_held_out, say_folds
    from pipeline.predictions import predict_points
    from pipeline.recipe import to_yaml
    from pipeline.runs import fold_runs
    from pipeline.start import check_unseen, load_run_network, read_start

    device = choose_device(gpu=recipe.run.gpu)
    precision = choose_precision(recipe.network.precision, device)
    begun = fold_runs(earlier)[0] if earlier else None
    if begun and (begun.folder / "recipe.yaml").exists():
        recipe = replace(recipe, photos=replace(recipe.photos, window=begun.recipe().photos.window))
    if not earlier:
        read_start(recipe.network)  # what cannot be had is refused before there is a folder
    data = load_training_data(recipe)
    if not earlier:
        check_unseen(recipe.network, data, np.arange(len(data.pack)))
    folder = earlier or create_folds(recipe, data, count or 0)
    recipe = replace(recipe, photos=replace(recipe.photos, window=data.window))
    write_text(folder / "recipe.yaml", to_yaml(recipe))
    for fold, run in enumerate(fold_runs(folder)):
        print(f"\nfold {fold}")
        known = run if (run.folder / "recipe.yaml").exists() else None
        train_run(fold_recipe(recipe, folder, fold), console, known, run.folder)
        samples = np.flatnonzero(np.isin(data.pack.names, run.held_out_names()))
        network = load_run_network(run, "best").to(device)
        save_held_out(run, predict_points(network, data.pack, samples, device=device, precision=precision))
    say_folds(folder, data)


if __name__ == "__main__":
    run_script(main)
