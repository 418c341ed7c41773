"""The folder of a new run, with what is known before it is trained."""

import json
import re
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from pipeline.data.boxes import boxes_table
from pipeline.data.dataset import TrainingData, typical_spread
from pipeline.data.sample_weights import weights_table
from pipeline.errors import UserError
from pipeline.files import digest, read_bytes, sealed, write_text
from pipeline.inference.locator import run_of_locator
from pipeline.metrics import Scores
from pipeline.recipe import CHANGEABLE_ON_RESUME, Recipe, flatten
from pipeline.recipe_file import RUN_RECIPE
from pipeline.runs import ABOUT_DATA, AboutData, Manifest, Run

NUM_LABELS = 64  # photos by whose points a contest is known again
MAX_NAME = 60  # characters of each part of a folder's name
OF_LOCATOR = (RUN_RECIPE, "manifest.json", "data.json", "validation.txt", "best.pt")


def create_run(recipe: Recipe, data: TrainingData, *, floor: Scores, folder: Path | None = None) -> Run:
    """Writes what is known before training into a new folder; `floor` is the mean shape's score."""
    run = Run(folder or new_folder(recipe))
    run.folder.mkdir(exist_ok=True)
    try:
        _write_what_is_known(run, recipe, data, floor)
    except BaseException:
        if not run.locator.is_made or recipe.photos.locate == 0:  # otherwise it can be resumed after its locator
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return run


def _write_what_is_known(run, recipe, data, floor):
    some = data.validation[:: 1 + len(data.validation) // NUM_LABELS]
    about = AboutData(
        fingerprint=data.pack.fingerprint,
        num_train=len(data.train),
        num_validation=len(data.validation),
        mean_shape=floor,
        roi=data.roi,
        num_points=data.num_points,
        spread=typical_spread(data),
        labels=data.pack.checksums(data.pack.names[some].tolist()),
    )
    texts = {
        "validation.txt": "".join(f"{name}\n" for name in data.pack.names[data.validation]),
        "permutation.json": json.dumps(None if data.flip_indices is None else data.flip_indices.tolist()),
    }
    if recipe.photos.sample_weights:
        texts["sample_weights.csv"] = weights_table(data.pack.names, data.weights)
    if recipe.photos.locator:
        assert data.boxes
        texts["boxes.csv"] = boxes_table(data.boxes)
        _copy_locator(run_of_locator(recipe.photos.locator), run.locator)
    elif recipe.photos.boxes:
        texts["boxes.csv"] = read_bytes(recipe.photos.boxes).decode()  # which need not be where the run is taken to
    texts[ABOUT_DATA] = json.dumps(asdict(about), indent=1)
    fixed = {name: value for name, value in flatten(recipe).items() if name not in CHANGEABLE_ON_RESUME}
    manifest = Manifest({name: digest(text.encode()) for name, text in texts.items()}, fixed)
    write_text(run.folder / "manifest.json", sealed(asdict(manifest)))
    for name, text in texts.items():  # the last says that the run is made
        write_text(run.folder / name, text)
    run.write_recipe(recipe)  # last: with it the run can be resumed


def _copy_locator(locator, own):
    """Copies what the run needs of its locator to predict, unless that was trained in the run's own folder."""
    if own.folder.exists() and locator.folder.samefile(own.folder):
        return
    own.folder.mkdir(exist_ok=True)  # of a stage that was stopped before its first checkpoint
    for name in OF_LOCATOR:
        if name != "manifest.json" or (locator.folder / name).exists():  # earlier versions had none
            shutil.copyfile(locator.folder / name, own.folder / name)


def new_folder(recipe: Recipe) -> Path:
    """Makes a folder below the recipe's `runs`, with a name that is not taken."""
    folder = recipe.run.runs / folder_name(recipe, time.strftime("%Y%m%d-%H%M%S"))
    for path in (folder, *(folder.with_name(f"{folder.name}-{again}") for again in range(2, 100))):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise UserError(f"--runs {recipe.run.runs}: {folder.name} and 98 more of its name are there; give another --name")


def folder_name(recipe: Recipe, now: str) -> str:
    """`<time>_<name>_<model>_<size>px`, of letters, digits, dots, dashes and underscores only.

    That much stays true whatever a resumed run changes; changes.yaml has all that differs from the recipe's defaults.
    """
    parts = (now, recipe.run.name, recipe.network.model, f"{recipe.photos.size}px")
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.")[:MAX_NAME].strip("-.") or "run" for part in parts)
