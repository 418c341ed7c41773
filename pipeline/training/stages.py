"""What the stages of a training hand on to one another; `pipeline.stages` says how they lie in their folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.data.loader import parse_chain
from pipeline.errors import UserError
from pipeline.networks import check_network, read_start
from pipeline.ranks import Ranks
from pipeline.recipe import CHANGEABLE_ON_RESUME, Recipe, build_recipe, flatten
from pipeline.recipe_file import read_recipe
from pipeline.runs import Run
from pipeline.stages import has_stages, stage_folder, stage_recipe, stage_recipes, write_finished
from pipeline.trainable import stays_frozen
from pipeline.training.new_run import new_folder

LENGTHS = {"epochs", "minutes", "session_minutes"}
OF_EACH = LENGTHS | {"patience", "checkpoint_minutes", "keep_best"}  # may change on resume; each stage may have its own


def check_recipes(recipe: Recipe):
    """Raises UserError, before the first stage is trained, for what a later one could not be trained with."""
    stages = stage_recipes(recipe, name_of=str)
    start = read_start(stages[0].network)
    seen = set()
    for number, stage in enumerate(stages):
        parse_chain(stage)
        photos, options = stage.photos, stage.optimiser
        key = photos.size, photos.progressive, options.batch_size, options.accumulate, stays_frozen(stage)
        if key not in seen:
            seen.add(key)
            try:
                check_network(stage, None if number else start)
            except UserError as error:
                raise UserError(f"stage {number}: {error}") from error


@contextmanager
def folder_of_stages(recipe: Recipe, earlier: Path | None, ranks: Ranks) -> Iterator[Path]:
    """The folder of the stages, a new one unless they are resumed. A new one is removed again if the first stage was
    refused before there was anything to resume.
    """
    named = replace(recipe, run=replace(recipe.run, name=f"{recipe.run.name}_stages"))
    folder = Path(ranks.broadcast_text(lambda: str(earlier or new_folder(named))))
    if ranks.is_main:
        if not has_stages(folder):
            write_finished(folder, 0)
        Run(folder).write_recipe(recipe)  # last: with it they can be resumed
    ranks.barrier()
    try:
        yield folder
    except BaseException:
        if ranks.is_main and not earlier and not Run(stage_folder(folder, 0)).recipe_path.exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def begun_run(folder: Path, number: int) -> Run | None:
    """The run of a stage, if it has a checkpoint; without one it begins anew."""
    run = Run(stage_folder(folder, number))
    run.check_resumable()
    return run if run.last.exists() else None


def recipe_of_stage(recipe: Recipe, folder: Path, number: int) -> Recipe:
    """The recipe of the run of a stage. It has the split, the region of interest and the flip indices of the run
    before, and starts from its weights. A run that was begun keeps its recipe, except for what may change on resume.
    """
    if run := begun_run(folder, number):
        own = flatten(read_recipe(run.recipe_path))
        now = flatten(recipe)
        changed = {name: now[name] for name in CHANGEABLE_ON_RESUME - OF_EACH} | {"runs": str(folder)}
        of_stage = flatten(stage_recipe(recipe, number))
        changed |= {name: of_stage[name] for name in OF_EACH - LENGTHS}
        return build_recipe(own | changed, name_of=str)
    stage = stage_recipe(recipe, number)
    stage = replace(stage, run=replace(stage.run, runs=folder))
    if number == 0:
        return stage
    before = Run(stage_folder(folder, number - 1))
    shown = before.photo_options()
    shown = shown if shown.locates else replace(shown, boxes=stage.photos.boxes)  # the table may have been moved
    photos = replace(shown, size=stage.photos.size, progressive=stage.photos.progressive, locate=0.0)
    return replace(stage, photos=photos, network=replace(stage.network, init=before.folder))
