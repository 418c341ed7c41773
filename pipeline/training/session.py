"""A training from the command to its result: what can be refused is refused first, then the data are read, the parts
are built in a straight line, and the run is trained or resumed. Folds are runs in turn."""

import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from augment import Chain
from pipeline.command import Command
from pipeline.console import Console
from pipeline.data.contest import find_contest
from pipeline.data.dataset import (
    TrainingData,
    leaks,
    load_training_data,
    mean_shape_score,
    open_train_photos,
    shape_components,
)
from pipeline.data.loader import parse_chain
from pipeline.data.pack import Pack
from pipeline.data.regions import describe_regions, regions_text
from pipeline.data.roi import describe_roi
from pipeline.data.sample_weights import describe_weights
from pipeline.errors import UserError
from pipeline.files import check_folder, check_usable, write_text
from pipeline.inference.locator import located, run_of_locator
from pipeline.inference.measured import measure, save_measured
from pipeline.inference.predict import predict_points
from pipeline.inference.report import write_report
from pipeline.inference.tta import parse_views
from pipeline.memory import out_of_memory_named, smaller_batch
from pipeline.metrics import Scores, errors_of_photos
from pipeline.networks import check_unseen, check_unseen_by, load_run_network, make_network, read_start
from pipeline.ranks import Ranks, current_ranks
from pipeline.recipe import NetworkOptions, Recipe, to_yaml
from pipeline.runs import Run, find_run, fold_runs
from pipeline.runtime import Runtime, compute_deterministically
from pipeline.stages import check_begun_anew, num_finished, stage_folder, stage_recipe, write_finished
from pipeline.stopping import Stopped
from pipeline.threads import choose_threads
from pipeline.training.callbacks import default_callbacks
from pipeline.training.estimate import print_account, print_estimate
from pipeline.training.folds import create_folds, fold_recipe, print_folds, save_held_out, with_kept_weights
from pipeline.training.job import Job, taken_up
from pipeline.training.locating import after_locating, check_located, locator_recipe, shown_whole
from pipeline.training.lr_finder import find_rate
from pipeline.training.new_run import create_run, new_folder
from pipeline.training.norms import describe_norms
from pipeline.training.optim import check_optimiser
from pipeline.training.schedules import check_schedule
from pipeline.training.session_time import plan_session
from pipeline.training.stages import begun_run, check_recipes, folder_of_stages, recipe_of_stage
from pipeline.training.trainer import Trainer
from pipeline.training.user_callbacks import load_callbacks

NOT_LEARNED = 0.7  # of the mean shape's error
NO_JOB = Job(None)


def train_command(command: Command, console: Console) -> Path:
    """Trains what the command asks for, and returns the folder that it lies in. Raises UserError, early, for what
    cannot be trained."""
    job = Job.of(command)
    command = taken_up(command, job)
    options = command.recipe.run
    check_optimiser(command.recipe.optimiser)
    check_schedule(command.recipe.optimiser)
    if not command.resume:
        check_begun_anew(command.recipe)
    data, cache = (Path(os.path.realpath(path)) for path in (options.data, options.cache))  # a loop of links stays
    photos = command.recipe.photos
    boxes, locator = (path and Path(os.path.realpath(path)) for path in (photos.boxes, photos.locator))
    photos = replace(photos, boxes=boxes, locator=locator)
    recipe = replace(command.recipe, run=replace(options, data=data, cache=cache), photos=photos)
    if command.find_lr:
        folder = find_learning_rate(stage_recipe(recipe, 0) if options.stages else recipe)
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
    """Proposes a rate for what the recipe would train, on whole photos where a locator would have to be trained first.
    Returns the folder of the sweep."""
    recipe = replace(recipe, photos=replace(recipe.photos, locate=0.0))
    named = replace(recipe, run=replace(recipe.run, name=f"{recipe.run.name}-find-lr"))
    with out_of_memory_named(what_fits(recipe)):
        trainer, chain = prepare(recipe, None)
        return find_rate(trainer, chain, lambda: new_folder(named))


def prepare(recipe: Recipe, earlier: Run | None) -> tuple[Trainer, Chain]:
    """A trainer that has not begun, and the augmentation. What can be refused is refused first."""
    find_contest(recipe.run.data)
    check_run_folder(recipe, earlier)
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    if recipe.run.deterministic:
        compute_deterministically(runtime.device)
    chain = parse_chain(recipe)
    parse_views(recipe.prediction.views, size=recipe.photos.size, mirroring=True, source="views")
    starting = replace(recipe, network=network_to_start(recipe, earlier))
    start = None if earlier and earlier.last.exists() else read_start(starting.network)

    photos, whole = (earlier.photo_options(), "") if earlier else located(recipe, runtime)
    if earlier and not photos.locates:
        photos = replace(photos, boxes=recipe.photos.boxes)  # the table may have been moved
    seen = replace(recipe, photos=photos)
    data = runtime.ranks.in_turn(lambda: load_training_data(seen))
    held_out = data.pack.names[data.validation].tolist()
    if start is not None:
        check_unseen(starting.network, data.pack.fingerprint, held_out=held_out, everything=False)
    if recipe.photos.locator and whole:
        locator = run_of_locator(recipe.photos.locator)
        check_unseen_by(locator, f"--locator {locator.folder}", whole, held_out=held_out)
    components = shape_components(data) if recipe.network.head == "low_rank" else None
    network = make_network(starting, start, mean_shape=data.mean_shape, components=components)
    return Trainer(network, after_locating(recipe), data, runtime), chain


def network_to_start(recipe: Recipe, earlier: Run | None) -> NetworkOptions:
    """The network's options, with the start that it is to have: the weights of the locator that was trained for it, if
    there is one, which has begun to learn the same points."""
    if not recipe.photos.locate or recipe.network.init:
        return recipe.network
    return replace(recipe.network, init=earlier.locator.folder if earlier else recipe.photos.locator)


def train_run(
    recipe: Recipe,
    console: Console,
    earlier: Run | None,
    folder: Path | None = None,
    *,
    part_of: Path | None = None,
    job: Job = NO_JOB,
) -> Path:
    """Trains one run, in a new folder unless one is given, or resumes an earlier one. Returns its folder. Of several
    ranks the main one writes what is written. part_of: the folder that is to be resumed, where it is not the run's."""
    own_callbacks = load_callbacks(recipe.running.callbacks)
    own_folder = folder
    if trains_locator(recipe, earlier):
        check_located(recipe)
        own_folder = train_locator(recipe, console, earlier.folder if earlier else folder, part_of=part_of, job=job)
        recipe = replace(recipe, photos=replace(recipe.photos, locator=Run(own_folder).locator.folder))
        earlier = None
    with out_of_memory_named(what_fits(recipe)):
        trainer, chain = prepare(recipe, earlier)
    data, runtime = trainer.data, trainer.runtime
    is_main, floor = runtime.is_main, mean_shape_score(data)
    if earlier:
        earlier.check_data(data.pack.fingerprint, data.pack.folder)
    run = earlier or made_by_main(lambda: create_run(recipe, data, floor=floor, folder=own_folder).folder)
    resume = f"python hack_train.py --resume {shlex.quote(str(part_of or run.folder))}"
    if is_main:
        job.begin(run.folder)
        console.keep_in(run.folder / "console.txt")
        choose_threads(runtime)
        print_start(run, recipe, data, floor=floor, trainer=trainer, resume=resume)
    with run.claimed() if is_main else nullcontext(), out_of_memory_named(what_fits(recipe)):
        if is_main:
            run.write_recipe(recipe)
            run.add_environment(str(runtime))
            write_text(run.regions, regions_text(trainer.regions))
            print_estimate(trainer)
            trainer.callbacks = default_callbacks(run, own_callbacks)
        if earlier:
            take_up(trainer, run)
        if recipe.running.session_minutes:
            recipe = in_session(recipe, minutes=plan_session(trainer))
            trainer.recipe = after_locating(recipe)
            if is_main:
                run.write_recipe(recipe)
        try:
            trainer.train(chain)
        except Stopped:
            runtime.print(f"stopped      to resume: {resume}")
            raise
    if is_main:
        print_result(run, trainer, floor=floor)
        print_account(trainer, run.folder)
        if trainer.state.history:
            report(run, trainer)
    runtime.ranks.wait()  # what follows may need what the main one has written
    return run.folder


def trains_locator(recipe: Recipe, earlier: Run | None) -> bool:
    """Whether a network that finds where to look has to be trained first, or to its end."""
    return bool(recipe.photos.locate and not recipe.photos.locator and not (earlier and earlier.is_made))


def train_locator(recipe: Recipe, console: Console, folder: Path | None, *, part_of: Path | None, job: Job) -> Path:
    """Trains, or resumes, the locator of a run that is not made yet. Returns the run's folder, a new one unless one is
    given, and then removed where the locator is refused."""
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    if not folder:
        find_contest(recipe.run.data)
        check_folder("--runs", recipe.run.runs)
    run = Run(folder) if folder else made_by_main(lambda: new_folder(recipe))
    locator = run.locator
    if runtime.is_main:
        run.folder.mkdir(exist_ok=True)
        run.write_recipe(recipe)  # with it they can be resumed
        job.begin(run.folder)
    runtime.ranks.wait()
    runtime.print(f"locator      {recipe.photos.locate:.0%} of the training, to find where to look")
    try:
        own = locator_recipe(recipe, run.folder)
        known = locator if locator.last.exists() else None
        train_run(own, console, known, locator.folder, part_of=part_of or run.folder)
    except BaseException:
        if runtime.is_main and not folder and not locator.is_made:
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    runtime.print("\nlocator      finished; now the photos are looked at where it has found the points")
    return run.folder


def made_by_main(make: Callable[[], Path]) -> Run:
    """The run in the folder that the main rank makes, for all ranks.

    Raises UserError where another machine does not see it.
    """
    folder = Path(current_ranks().text_of_main(lambda: str(make().absolute())))
    if not folder.is_dir():
        raise UserError(f"{folder} is not there, where process 0 has made it; give all machines one folder for --runs")
    return Run(folder)


def take_up(trainer: Trainer, run: Run):
    """Loads the last checkpoint of an earlier run, if there is one, and says so."""
    state, runtime = trainer.state, trainer.runtime
    if not run.last.exists():
        runtime.print("resuming     from the start: the run was stopped before its first checkpoint")
        return
    trainer.load(run.last)
    state = trainer.state
    runtime.print(f"resuming     from epoch {state.epoch}, step {state.step:,}, minute {state.minutes:.1f}")
    if trainer.num_ranks_before != runtime.ranks.count:
        before, now = trainer.num_ranks_before, runtime.ranks.count
        runtime.print(
            f"             as {now} processes, {before} before: each step has the photos that it would have had"
        )


def report(run: Run, trainer: Trainer):
    """Writes the run's report, for which its best weights predict once more what was held out."""
    runtime = trainer.runtime
    network = load_run_network(run, "best").to(runtime.device)
    save_measured(run.folder, measure(network, trainer.data, runtime))
    runtime.print(f"report       {write_report(run)}")


def in_session(recipe: Recipe, *, minutes: float) -> Recipe:
    """The recipe of a session in which so many minutes are left. A later one, which resumes the run, plans its own if
    it is told to, and else trains what is left of these minutes."""
    running, optimiser = recipe.running, recipe.optimiser
    whole = minutes / (1 - recipe.photos.locate)
    return replace(recipe, running=replace(running, session_minutes=None), optimiser=replace(optimiser, minutes=whole))


def what_fits(recipe: Recipe) -> str:
    """What to try where the memory does not suffice."""
    options = recipe.optimiser
    smaller = smaller_batch(options.batch_size, otherwise=f"a --size below {recipe.photos.size}")
    return f"start anew with {smaller}, with --accumulate {2 * options.accumulate}, or with another --model or --size"


def check_run_folder(recipe: Recipe, earlier: Run | None):
    """Raises UserError where the results could not be written, or an earlier run is not that of the recipe."""
    if earlier:
        check_usable(earlier.folder)
        earlier.check_recipe(recipe)
    else:
        check_folder("--runs", recipe.run.runs)


def print_start(run: Run, recipe: Recipe, data: TrainingData, *, floor: Scores, trainer: Trainer, resume: str):
    """What is trained on what, where it goes, and how to resume it."""
    runtime = trainer.runtime
    runtime.print(f"data         {find_contest(recipe.run.data)}")
    runtime.print(
        f"photos       {len(data.train):,} to train on, {len(data.validation):,} held out; {data.num_points} points"
    )
    if data.pack.left_out:
        runtime.print(f"             left out {len(data.pack.left_out):,} photos of train that are missing or broken")
    if data.weights is not None:
        runtime.print(f"weights      {describe_weights(data.weights, data.validation)} (--sample-weights)")
    runtime.print(f"groups       {data.grouping}")
    for leak in leaks(data):
        runtime.print(f"warning      {leak}")
    runtime.print(f"roi          {describe_roi(data.roi)}")
    runtime.print(f"left/right   {data.symmetry}")
    runtime.print(f"network      {recipe.network.model} at {recipe.photos.size} px, {runtime.precision} on {runtime}")
    if norms := describe_norms(trainer.network, runtime):
        runtime.print(f"             {norms}")
    runtime.print(f"mean shape   {floor}: the floor, from a network that does not look")
    runtime.print(f"run          {run.folder}")
    runtime.print(f"             after a stop: {resume}")
    runtime.print(f"             watch it: tensorboard --logdir {recipe.run.runs}")


def print_result(run: Run, trainer: Trainer, *, floor: Scores):
    """The best epoch, and where everything lies."""
    state, runtime = trainer.state, trainer.runtime
    if not (state.step and state.history):
        runtime.print("\nno step fits into the time that is left; raise --minutes")
        return
    best = next(row for row in reversed(state.history) if row["validation_mse"] == state.best_mse)
    mse = f"{best['validation_mse']:.2f} px² (mean shape {floor.mse:.2f})"
    runtime.print(f"\nbest         epoch {best['epoch']}: validation MSE {mse}")
    runtime.print(f"regions      {describe_regions(best)}: MSE, px², from the worst to the best")
    if best["validation_mse"] > NOT_LEARNED * floor.mse:
        runtime.print("             that is hardly better than not looking: train longer, or see the pictures")
    if trainer.is_out_of_patience and trainer.progress < 1:
        runtime.print(f"ended early  no better one in {trainer.recipe.running.patience} epochs (--patience)")
    runtime.print(f"weights      {run.best}")
    runtime.print(f"metrics      {run.metrics}")
    runtime.print(f"pictures     {run.picture('worst_validation')}")
    runtime.print(f"submission   python predict.py --run {run.folder}")


def train_folds(
    recipe: Recipe, console: Console, count: int | None, earlier: Path | None, *, job: Job = NO_JOB
) -> Path:
    """Trains each fold in turn, or resumes them, and keeps what each predicts of what it held out. Returns the folder
    of all of them."""
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    begun = fold_runs(earlier)[0] if earlier else None
    locates = recipe.photos.locates
    if begun and begun.is_made and not locates:
        recipe = replace(recipe, photos=replace(recipe.photos, roi=begun.recipe().photos.roi))
    if earlier:
        recipe = with_kept_weights(recipe, earlier)
    else:
        read_start(recipe.network)  # a bad one is refused before there is a folder
    ranks = runtime.ranks
    data = ranks.in_turn(lambda: load_training_data(shown_whole(recipe)))
    if not earlier:
        names = data.pack.names.tolist()
        check_unseen(recipe.network, data.pack.fingerprint, held_out=names, everything=True)
    folder = earlier or made_by_main(lambda: create_folds(recipe, data, count or 0)).folder
    if not locates:
        recipe = replace(recipe, photos=replace(recipe.photos, roi=data.roi))
    if ranks.is_main:
        write_text(folder / "recipe.yaml", to_yaml(recipe))
        job.begin(folder)
    ranks.wait()
    parts = []
    for fold, run in enumerate(fold_runs(folder)):
        runtime.print(f"\nfold {fold}")
        known = run if (run.folder / "recipe.yaml").exists() else None
        train_run(fold_recipe(recipe, folder, fold), console, known, run.folder, part_of=folder)
        samples = np.flatnonzero(np.isin(data.pack.names, run.held_out_names()))
        network = load_run_network(run, "best").to(runtime.device)
        part = ranks.part(len(samples))
        pack = pack_of_fold(run, recipe, ranks) if locates else data.pack
        own = predict_points(network, pack, samples[part], runtime=runtime)
        points = ranks.arrays_of_all(own, part, len(samples))
        if ranks.is_main:
            save_held_out(run, points)
            parts.append((data.groups[samples], errors_of_photos(points, data.pack.values[samples])))
    if ranks.is_main:
        print_folds(folder, parts)
    return folder


def pack_of_fold(run: Run, recipe: Recipe, ranks: Ranks) -> Pack:
    """The photos as a fold is shown them, which looks where its own locator says."""
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
            runtime.ranks.wait()
    runtime.print(f"\nstages       {folder}")
    runtime.print(f"submission   python predict.py --run {folder}")
    return folder
