"""One run from its recipe to its result: what can be refused is refused first, then the data are read, the parts are
built in a straight line, and the run is trained or resumed."""

import shlex
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from augment import Chain
from models import FROM_SHAPES
from pipeline.console import Console
from pipeline.data.contest import find_contest
from pipeline.data.dataset import TrainingData, leaks, load_training_data, mean_shape_score, shape_components
from pipeline.data.loader import mirrors, parse_chain
from pipeline.data.regions import describe_regions, regions_text
from pipeline.data.roi import describe_roi
from pipeline.data.sample_weights import describe_weights
from pipeline.errors import UserError
from pipeline.files import check_folder, check_usable, write_text
from pipeline.inference.locator import located, run_of_locator
from pipeline.inference.measured import measure, save_measured
from pipeline.inference.report import write_report
from pipeline.inference.tta import parse_views
from pipeline.memory import out_of_memory_named, smaller_batch
from pipeline.metrics import Scores
from pipeline.networks import (
    check_network,
    check_unseen,
    check_unseen_by,
    load_run_network,
    make_network,
    read_start,
)
from pipeline.ranks import current_ranks
from pipeline.recipe import NetworkOptions, Recipe
from pipeline.runs import Run, predict_command
from pipeline.runtime import Runtime, compute_deterministically
from pipeline.stopping import Stopped
from pipeline.threads import choose_threads
from pipeline.trainable import check_longer
from pipeline.training.callbacks import default_callbacks
from pipeline.training.estimate import print_account, print_estimate
from pipeline.training.job import NO_JOB, Job
from pipeline.training.locating import after_locating, check_located, locator_recipe
from pipeline.training.new_run import create_run, new_folder
from pipeline.training.norms import describe_norms
from pipeline.training.session_time import plan_session
from pipeline.training.trainer import Trainer
from pipeline.training.user_callbacks import load_callbacks

NOT_LEARNED = 0.7  # of the mean shape's error
SHIFTED = 0.25  # pixels of the image, from which on labels are said to lie to one side


def train_run(
    recipe: Recipe,
    console: Console,
    earlier: Run | None,
    folder: Path | None = None,
    *,
    part_of: Path | None = None,
    job: Job = NO_JOB,
) -> Path:
    """Trains one run, in a new folder unless one is given, or resumes an earlier one. Returns its folder. With several
    ranks, only the main one writes. part_of: the folder to resume, if it is not the run's."""
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
    run = earlier or made_by_main(lambda: create_run(recipe, data, floor=floor, folder=own_folder).folder)
    resume = f"python hack_train.py --resume {shlex.quote(str(part_of or run.folder))}"
    if is_main:
        job.begin(run.folder)
        console.keep_in(run.folder / "console.txt")
        choose_threads(runtime)
        print_start(run, recipe, data, floor=floor, trainer=trainer, resume=resume)
    with run.claimed() if is_main else nullcontext(), out_of_memory_named(what_fits(recipe)):
        if is_main:
            write_beginning(run, recipe, trainer)
            print_estimate(trainer)
            trainer.callbacks = default_callbacks(run, own_callbacks)
        if earlier:
            load_last_checkpoint(trainer, run)
        if recipe.running.session_minutes:
            plan(trainer, recipe, run)
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
    runtime.ranks.barrier()  # what follows may need what the main one has written
    return run.folder


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
    resumes = earlier is not None and earlier.last.exists()
    start = None if resumes else read_start(starting.network)
    if not resumes:
        check_network(starting, start)

    photos, whole = (earlier.photo_options(), "") if earlier else located(recipe, runtime)
    if earlier and not photos.locates and recipe.photos.boxes != earlier.recipe().photos.boxes:
        photos = replace(photos, boxes=recipe.photos.boxes)  # the table may have been moved
    seen = replace(recipe, photos=photos)
    data = runtime.ranks.in_turn(lambda: load_training_data(seen, of_run=earlier))
    held_out = data.pack.names[data.validation].tolist()
    if start is not None:
        check_unseen(starting.network, data.pack, recipe.run.data, held_out=held_out, everything=False)
    if recipe.photos.locator and whole:
        locator = run_of_locator(recipe.photos.locator)
        flag = f"--locator {locator.folder}"
        check_unseen_by(locator, flag, data.pack, recipe.run.data, held_out=held_out, fingerprint=whole)
    components = shape_components(data) if recipe.network.head in FROM_SHAPES and not resumes else None
    network = make_network(
        starting, start, mean_shape=data.mean_shape, components=components, num_photos=len(data.train)
    )
    network.label_shift.requires_grad_(data.flip_indices is not None and mirrors(chain, recipe.photos.size))
    return Trainer(network, after_locating(recipe), data, runtime), chain


def network_to_start(recipe: Recipe, earlier: Run | None) -> NetworkOptions:
    """The network's options, with the weights that it is to start from: those of the locator that was trained for it,
    if there is one, which has begun to learn the same points."""
    if not recipe.photos.locate or recipe.network.init:
        return recipe.network
    return replace(recipe.network, init=earlier.locator.folder if earlier else recipe.photos.locator)


def check_run_folder(recipe: Recipe, earlier: Run | None):
    """Raises UserError if the results could not be written, or an earlier run is not that of the recipe."""
    if earlier:
        check_usable(earlier.folder)
        earlier.check_recipe(recipe)
        earlier.check_resumable()
        check_longer(recipe, earlier.recipe())
    else:
        check_folder("--runs", recipe.run.runs)


def trains_locator(recipe: Recipe, earlier: Run | None) -> bool:
    """Whether a network that finds where to look has to be trained first, or trained to its end."""
    return bool(recipe.photos.locate and not recipe.photos.locator and not (earlier and earlier.is_made))


def train_locator(recipe: Recipe, console: Console, folder: Path | None, *, part_of: Path | None, job: Job) -> Path:
    """Trains, or resumes, the locator of a run that is not made yet. Returns the run's folder: the one that is given,
    or a new one. A folder without a run yet is removed if the locator is refused."""
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    if not folder:
        find_contest(recipe.run.data)
        check_folder("--runs", recipe.run.runs)
    run = Run(folder) if folder else made_by_main(lambda: new_folder(recipe))
    locator, was_begun = run.locator, run.recipe_path.exists()
    if runtime.is_main:
        run.folder.mkdir(exist_ok=True)
        run.write_recipe(recipe)  # with it they can be resumed
        job.begin(run.folder)
    runtime.ranks.barrier()
    runtime.print(f"locator      {recipe.photos.locate:.0%} of the training, to find where to look")
    try:
        own = locator_recipe(recipe, run.folder)
        locator.check_resumable()
        known = locator if locator.last.exists() else None
        train_run(own, console, known, locator.folder, part_of=part_of or run.folder)
    except BaseException:
        if runtime.is_main and not was_begun and not locator.is_made:
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    runtime.print("\nlocator      finished; now the photos are looked at where it has found the points")
    return run.folder


def made_by_main(make: Callable[[], Path]) -> Run:
    """The run in the folder that the main rank makes, for all ranks.

    Raises UserError if another machine does not see it.
    """
    folder = Path(current_ranks().broadcast_text(lambda: str(make().absolute())))
    if not folder.is_dir():
        raise UserError(f"{folder} is not there, where process 0 has made it; give all machines one folder for --runs")
    return Run(folder)


def write_beginning(run: Run, recipe: Recipe, trainer: Trainer):
    """Writes what a run is, and what it is trained with in this sitting."""
    run.write_recipe(recipe)
    run.add_environment(str(trainer.runtime))
    if recipe.running.regions or not run.regions.exists():  # it is where regions are given names
        write_text(run.regions, regions_text(trainer.regions))


def load_last_checkpoint(trainer: Trainer, run: Run):
    """Loads the last checkpoint of an earlier run, if there is one, and says so."""
    runtime = trainer.runtime
    if not run.last.exists():
        runtime.print("resuming     from the start: the run was stopped before its first checkpoint")
        return
    trainer.load(run.last)
    state = trainer.state
    runtime.print(f"resuming     from epoch {state.epoch}, step {state.step:,}, minute {state.minutes:.1f}")
    if trainer.num_ranks_before != runtime.ranks.num_ranks:
        before, now = trainer.num_ranks_before, runtime.ranks.num_ranks
        runtime.print(
            f"             as {now} processes, {before} before: each step has the photos that it would have had"
        )


def plan(trainer: Trainer, recipe: Recipe, run: Run):
    """Shortens the training so that it ends in time for its session."""
    locator = run.locator if recipe.photos.locates else None
    planned = in_session(recipe, minutes=plan_session(trainer, locator=locator))
    trainer.recipe = after_locating(planned)
    if trainer.runtime.is_main:
        run.write_recipe(planned)


def in_session(recipe: Recipe, *, minutes: float) -> Recipe:
    """The recipe of a session with this many minutes left. A later one, which resumes the run, plans its own time if it
    is told to, and otherwise trains what is left of these minutes."""
    running, optimiser = recipe.running, recipe.optimiser
    whole = minutes / (1 - recipe.photos.locate)
    return replace(recipe, running=replace(running, session_minutes=None), optimiser=replace(optimiser, minutes=whole))


def what_fits(recipe: Recipe) -> str:
    """What to try if there is not enough memory."""
    options = recipe.optimiser
    smaller = smaller_batch(options.batch_size, otherwise=f"a --size below {recipe.photos.size}")
    return f"start anew with {smaller}, with --accumulate {2 * options.accumulate}, or with another --model or --size"


def report(run: Run, trainer: Trainer):
    """Writes the run's report, for which its best weights predict the held-out photos once more. Files of the run that
    make no report, such as regions that were edited, are said, and what follows is trained all the same."""
    runtime = trainer.runtime
    try:
        network = load_run_network(run, "best").to(runtime.device)
        with out_of_memory_named("make the report with python -m tools.report"):
            save_measured(run.folder, measure(network, trainer.data, runtime))
        runtime.print(f"report       {write_report(run)}")
    except UserError as reason:
        runtime.print(f"report       left out: {reason}")


def print_start(run: Run, recipe: Recipe, data: TrainingData, *, floor: Scores, trainer: Trainer, resume: str):
    """Prints what is trained on what, where it goes, and how to resume it."""
    runtime = trainer.runtime
    runtime.print(f"data         {find_contest(recipe.run.data)}")
    runtime.print(
        f"photos       {len(data.train):,} to train on, {len(data.validation):,} held out; {data.num_points} points"
    )
    if data.pack.left_out:
        runtime.print(f"             left out {len(data.pack.left_out):,} photos of train that are missing or broken")
    if data.num_empty:
        runtime.print(f"             left out {data.num_empty:,} training photos without a known point")
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
    runtime.print(f"             watch it: tensorboard --logdir {shlex.quote(str(recipe.run.runs))}")


def print_result(run: Run, trainer: Trainer, *, floor: Scores):
    """Prints the best epoch, and where everything lies."""
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
    right = float(trainer.average.network.shift[0])  # how far down they lie cannot be told from what they name
    if abs(right) >= SHIFTED:
        side = "right" if right > 0 else "left"
        where = f"{abs(right):.2f} px to the {side} of where the images show their points"
        runtime.print(f"labels       lie {where}; predictions follow")
    if trainer.is_out_of_patience and trainer.progress < 1:
        runtime.print(f"ended early  no better one in {trainer.recipe.running.patience} epochs (--patience)")
    runtime.print(f"weights      {run.best}")
    runtime.print(f"metrics      {run.metrics}")
    runtime.print(f"pictures     {run.picture('worst_validation')}")
    runtime.print(f"submission   {predict_command(run.folder)}")
