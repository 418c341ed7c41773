"""A training in stages: runs in turn, each of which starts from the best weights of the one before.

    recipe.yaml     of all of them, with what differs in each    stage-0/, stage-1/ …    runs like any other
    stages.json     how many are finished

Nothing here imports torch, since the command reads stages too.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from pipeline.errors import UserError, did_you_mean
from pipeline.files import sealed, unsealed, write_text
from pipeline.old_names import rename_fields
from pipeline.recipe import SECTION_OF, Recipe, build_recipe, flatten, needs_distributions, needs_scale
from pipeline.trainable import check_trainable

MAX_SEED = 2**63
MAX_STAGES = 1000
OF_ONE_SIZE = ("flat", "simcc")  # heads that have a weight for each place of the image, and would start at random
OF_STAGE = {"size", "progressive", "freeze_epochs", "precision", "patience", "session_minutes"} | {
    name for name, section in SECTION_OF.items() if section in ("augmentation", "loss", "optimiser")
}


def stage_recipe(recipe: Recipe, number: int, *, name_of: Callable[[str], str] = str) -> Recipe:
    """The recipe of one stage: that of all of them, but for the fields of the stage, and a seed of its own, so that it
    draws other orders and augmentations than the stage before.

    Raises UserError for a field that no stage has and for a value that is not allowed; `name_of` says what `stages` is
    called: a flag, or a key of a file.
    """
    where = f"{name_of('stages')}: stage {number}"
    own = rename_fields(recipe.run.stages[number])
    for name in own:
        if name in SECTION_OF and name not in OF_STAGE:
            raise UserError(f"{where}: {name} is of the whole training; give it beside the stages, not in one of them")
        if name not in SECTION_OF:
            raise UserError(f"{where}: {name!r} is no field of a stage{did_you_mean(name, OF_STAGE)}")
    whole = flatten(recipe)
    if "epochs" in own and "minutes" not in own:
        whole["minutes"] = None  # which would hold instead
    of_run = {
        "stages": [],
        "name": f"{recipe.run.name}-stage-{number}",
        "seed": (recipe.run.seed + number) % MAX_SEED,
    }
    return build_recipe(whole | own | of_run, name_of=lambda name: f"{where}: {name}")


def stage_recipes(recipe: Recipe, *, name_of: Callable[[str], str]) -> list[Recipe]:
    """The recipe of each stage. Raises UserError as `stage_recipe` does, and for too many."""
    if len(recipe.run.stages) > MAX_STAGES:
        raise UserError(
            f"{name_of('stages')}: {len(recipe.run.stages):,} stages; no more than {MAX_STAGES:,} are taken"
        )
    return [stage_recipe(recipe, number, name_of=name_of) for number in range(len(recipe.run.stages))]


def check_stages(recipe: Recipe, *, name_of: Callable[[str], str]):
    """Raises UserError for a stage that makes no sense, or does not go with the others."""
    stages = stage_recipes(recipe, name_of=name_of)
    head, ends_by = recipe.network.head, 0.0
    before = recipe.photos.size if recipe.network.init or not stages else stages[0].photos.size
    for number, stage in enumerate(stages):
        if head in OF_ONE_SIZE and stage.photos.size != before:
            raise UserError(
                f"{name_of('stages')}: stage {number}: size {stage.photos.size}: what a {head} head has learned is of "
                f"images of {before} px; give all stages one size, and smaller images at first by progressive, or take "
                "another head"
            )
        minutes = stage.running.session_minutes or ends_by
        if stage.running.session_minutes and minutes <= ends_by:
            raise UserError(
                f"{name_of('stages')}: stage {number}: session_minutes {minutes:g} are over when an earlier stage "
                f"ends, by {ends_by:g}; give later stages later minutes of the session"
            )
        ends_by = minutes
        where = f"{name_of('stages')}: stage {number}: loss {stage.loss.loss}"
        if needs_distributions(stage.loss) and head != "simcc":
            raise UserError(
                f"{where} is of the head simcc, not of {head}; train with --head simcc, or give another loss"
            )
        if head == "linear" and needs_scale(stage.loss) != needs_scale(stages[0].loss):
            raise UserError(
                f"{where}: a linear head that learns a scale for each point cannot start from one without, nor the "
                "other way round; give all stages such a loss, or none, or take another head"
            )


def check_begun_anew(recipe: Recipe):
    """Raises UserError, before anything is trained, for fields that contradict each other, in any stage."""
    if not recipe.run.stages:
        check_trainable(recipe)
    for number, stage in enumerate(stage_recipes(recipe, name_of=str)):
        check_trainable(stage, where=f"stage {number}: ")


@dataclass(frozen=True)
class Progress:
    """What stages.json says: how many stages are finished."""

    finished: Annotated[int, Ge(0), Le(MAX_STAGES)]


def stage_folder(folder: Path, number: int) -> Path:
    return folder / f"stage-{number}"


def has_stages(folder: Path) -> bool:
    """Whether a folder is that of stages, and no run."""
    return os.path.exists(_progress_path(folder))  # Path.exists raises for names that are too long


def num_finished(folder: Path) -> int:
    """How many stages of a folder are finished. Raises UserError where that was changed by hand."""
    return unsealed(_progress_path(folder), Progress).finished


def write_finished(folder: Path, finished: int):
    write_text(_progress_path(folder), sealed(asdict(Progress(finished))))


def last_stage(folder: Path) -> Path:
    """The run that a folder of stages stands for: the last one that is finished, or the first while none is. Any other
    folder stands for itself.
    """
    return stage_folder(folder, max(num_finished(folder) - 1, 0)) if has_stages(folder) else folder


def _progress_path(folder):
    return folder / "stages.json"
