"""A run's folder: where everything of one training lies, under a name that says what it was.

recipe.yaml        every field            validation.txt    the held-out photos, one a line
changes.yaml       what is no default     permutation.json  partners of the points, or null
environment.json   versions, device       data.json         fingerprint, ROI
metrics.csv        a row an epoch         manifest.json     what must stay as the run was made with it
best.pt, last.pt   checkpoints            events/           for TensorBoard
console.txt        what was printed       pictures/         worst photos, curves, errors of points
views.json         by predict.py          submission.csv    by predict.py
best-epoch-N.pt    of --keep-best         report.html       what came of it
held_out.npz       what the best weights find of the held-out photos
sample_weights.csv of --sample-weights    regions.json      points whose errors are told together
locator/           run that says where    boxes.csv         where it says that train's photos are to be looked
                                          at, or the table of --boxes

Later steps rely on these files, so each is read through `Run`, which compares it with the manifest and its type: one
that was cut or exchanged is an error, not another split or other flip indices.
"""

import errno
import json
import math
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from annotated_types import Ge, Le
from filelock import FileLock, Timeout
from pydantic import AliasChoices, Field

from pipeline.checkpoint import load_checkpoint
from pipeline.environment import environment
from pipeline.errors import UserError
from pipeline.files import csv_text, digest, parse_json, read_bytes, unsealed, write_text
from pipeline.flip_indices import check_flip_indices
from pipeline.metrics import Scores
from pipeline.precedence import WHOLE
from pipeline.recipe import PhotoOptions, Recipe, changes, flatten, to_yaml
from pipeline.recipe_file import FOLDS, RUN_RECIPE, read_recipe
from pipeline.stages import has_stages, last_stage

ABOUT_DATA = "data.json"
# What these led to lies in the run, with a digest; they may be moved.
KEPT_AS_FILES = {"split", "flip_indices", "sample_weights", "locator"}


@dataclass(frozen=True)
class Manifest:
    """What a run was made with and relies on: digests of files that never change, fields of the recipe that may not."""

    digests: dict[str, str]
    recipe: dict[str, Any]


@dataclass(frozen=True)
class AboutData:
    """What a run was trained on. mean_shape: its score on the held-out photos. spread: typical of a shape, in pixels of
    the images. labels: checksums of the points of some held-out photos, by which their contest is known wherever it
    lies, and whatever size it is packed at."""

    fingerprint: str
    num_train: int
    num_validation: int
    mean_shape: Scores
    roi: Annotated[tuple[float, float, float], Field(validation_alias=AliasChoices("roi", "window"))] = WHOLE
    num_points: int | None = None  # of earlier versions it is not known, nor is the spread
    spread: Annotated[float, Ge(0), Field(allow_inf_nan=False)] | None = None
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """The folder of a run and the names of what lies in it."""

    folder: Path

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    def best_of_epoch(self, epoch: int) -> Path:
        return self.folder / f"best-epoch-{epoch}.pt"

    def best_epochs(self) -> dict[int, Path]:
        """The weights of the best epochs that the run keeps, by the number of the epoch."""
        found = {path.stem.removeprefix("best-epoch-"): path for path in self.folder.glob("best-epoch-*.pt")}
        return {int(epoch): found[epoch] for epoch in sorted(found) if epoch.isdecimal()}

    @property
    def events(self) -> Path:
        return self.folder / "events"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def split(self) -> Path:
        return self.folder / "validation.txt"

    def held_out_names(self) -> list[str]:
        text = self._content("validation.txt")
        try:
            return [name for name in text.decode("utf-8").split("\n") if name]
        except UnicodeDecodeError as error:
            raise UserError(f"{self.split} is damaged: it is not UTF-8; take a copy of it, or another run") from error

    @property
    def flip_indices(self) -> Path:
        return self.folder / "permutation.json"

    def read_flip_indices(self, num_points: int) -> np.ndarray | None:
        """(K,) partners of the points under mirroring, None where there is no mirroring."""
        partners = self._flip_indices()
        return None if partners is None else check_flip_indices(partners, num_points, source=str(self.flip_indices))

    def _flip_indices(self) -> object:
        return parse_json(self.flip_indices, self._content("permutation.json"), object)

    @property
    def sample_weights(self) -> Path:
        return self.folder / "sample_weights.csv"

    @property
    def boxes(self) -> Path:
        return self.folder / "boxes.csv"

    @property
    def locator(self) -> "Run":
        """The run that finds where this one looks, a folder in this one's."""
        return Run(self.folder / "locator")

    @property
    def whole_photo_run(self) -> "Run":
        """The run that is shown whole photos: this one's locator, if it has one, or the run itself."""
        return self.locator if self.recipe().photos.locates else self

    @property
    def is_made(self) -> bool:
        """Whether it is known what the run is trained on. Before that it may hold a locator that is trained."""
        return (self.folder / ABOUT_DATA).exists()

    @property
    def regions(self) -> Path:
        return self.folder / "regions.json"

    @property
    def views(self) -> Path:
        return self.folder / "views.json"

    @property
    def held_out_points(self) -> Path:
        return self.folder / "held_out_points.npy"

    @property
    def submission(self) -> Path:
        return self.folder / "submission.csv"

    def picture(self, name: str) -> Path:
        (self.folder / "pictures").mkdir(exist_ok=True)
        return self.folder / "pictures" / f"{name}.png"

    @property
    def recipe_path(self) -> Path:
        return self.folder / RUN_RECIPE

    def recipe(self) -> Recipe:
        """The recipe, with the ROI that was found. Raises UserError where it is another than the run was made by."""
        recipe = read_recipe(self.recipe_path)
        self.check_recipe(recipe)
        return replace(recipe, photos=replace(recipe.photos, roi=self.about_data().roi))

    def check_recipe(self, recipe: Recipe):
        """Raises UserError for a field that differs from what the run was made with, and may not."""
        now = json.loads(json.dumps(flatten(recipe)))
        for name, value in self._manifest().recipe.items():
            if name in now and now[name] != value and name not in KEPT_AS_FILES:
                why = f"{name} is {now[name]!r}, the run was made with {value!r}; change it back"
                raise UserError(f"{self.recipe_path}: {why}")

    def write_recipe(self, recipe: Recipe):
        if recipe.photos.locate:  # the run's own locator lies in its folder; others of this recipe train theirs
            recipe = replace(recipe, photos=replace(recipe.photos, locator=None))
        write_text(self.recipe_path, to_yaml(recipe))
        write_text(self.folder / "changes.yaml", yaml.safe_dump(changes(recipe), sort_keys=False, width=110))

    def photo_options(self) -> PhotoOptions:
        """The recipe's, with the ROI, the split, the flip indices, the weights of photos and the boxes that the run was
        made with."""
        self.held_out_names()
        flip_indices = "none" if self._flip_indices() is None else str(self.flip_indices)
        options = replace(self.recipe().photos, split=self.split, flip_indices=flip_indices)
        if options.sample_weights:
            self._content("sample_weights.csv")
            options = replace(options, sample_weights=self.sample_weights)
        if options.locates:
            self._content("boxes.csv")
            options = replace(options, boxes=self.boxes, locator=self.locator.folder)
        elif options.boxes and not os.path.exists(options.boxes) and self.boxes.exists():
            self._content("boxes.csv")
            options = replace(options, boxes=self.boxes)
        return options

    def add_environment(self, device: str):
        """Notes what this sitting computes with, below those of earlier ones."""
        path = self.folder / "environment.json"
        earlier: Any = parse_json(path, read_bytes(path), object) if path.exists() else []
        sittings = earlier if isinstance(earlier, list) else [earlier]  # the first runs had one
        write_text(path, json.dumps([*sittings, environment(device)], indent=1))

    def _manifest(self):
        path = self.folder / "manifest.json"
        return unsealed(path, Manifest) if path.exists() else Manifest({}, {})  # the first runs had none

    def _content(self, name):
        """The bytes of one of the run's files. Raises UserError where they are not those that the run was made with."""
        content = read_bytes(self.folder / name)
        if self._manifest().digests.get(name, digest(content)) != digest(content):
            raise UserError(f"{self.folder / name} was changed since the run was made; take a copy of it as it was")
        return content

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps a second process from training the same run. Raises UserError where one does already."""
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(f"{self.folder} is being trained by another process; stop that one first") from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            raise UserError(
                f"{self.folder} has no file locks ({error.strerror}); give --runs a local folder"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def about_data(self) -> AboutData:
        return parse_json(self.folder / ABOUT_DATA, self._content(ABOUT_DATA), AboutData)

    def check_resumable(self):
        """Raises UserError where a run has weights but not the state of its training, as averages and copies without
        last.pt have: to begin anew would replace them. One that was stopped while its first epoch was saved begins
        anew."""
        if self.last.exists() or not self.best.exists():
            return
        best = load_checkpoint(self.best, "epoch")
        fix = f"train a new run that starts from these weights: --init {shlex.quote(str(self.folder))}"
        if "averaged" in best:
            raise UserError(f"{self.folder} is an average, which has no training to go on with; {fix}")
        if best["epoch"] > 0:
            raise UserError(
                f"{self.folder} has weights but no {self.last.name}, without which a training cannot go on; copy it "
                f"there, or {fix}"
            )

    def check_data(self, fingerprint: str, source: Path):
        """Raises UserError when the data of `source` are not those that the run was made with."""
        if self.about_data().fingerprint != fingerprint:
            raise UserError(f"{self.folder} was trained on other photos or points than {source}; start a new run")

    @property
    def best_mse(self) -> float:
        return mse_of(self.best)

    def write_metrics(self, rows: list[dict[str, Any]]):
        """Writes the table of all epochs so far."""
        columns = dict.fromkeys(name for row in rows for name in row)  # earlier versions had others
        write_text(self.metrics, csv_text([columns, *([row.get(name) for name in columns] for row in rows)]))


def predict_command(folder: Path) -> str:
    """What a shell takes to predict with a run, with folds or with stages."""
    return f"python predict.py --run {shlex.quote(str(folder))}"


def mse_of(weights: Path) -> float:
    """The validation MSE that lies with weights. Raises UserError where there is none."""
    mse = load_checkpoint(weights, "mse")["mse"]
    if type(mse) is not float or not 0 <= mse < math.inf:
        raise UserError(f"{weights} is damaged: its validation MSE is {str(mse)[:20]}; take a copy of it")
    return mse


def find_run(folder: Path | None, runs: Path) -> Run:
    """The run in `folder`, or the newest one below `runs` that has weights. A folder of stages stands for the last one
    that is finished.

    Raises UserError where there is none.
    """
    if folder:
        folder = last_stage(folder)
        if folds := fold_runs(folder):
            raise UserError(f"{folder} has {len(folds)} folds; give one of them, such as {folds[0].folder}")
        if not Run(folder).recipe_path.exists():
            raise UserError(f"{folder} is not the folder of a run, or of one that was set up: it has no {RUN_RECIPE}")
        return Run(folder)
    found = [Run(path.parent) for path in runs.glob("*/best.pt")]
    if not found:
        raise UserError(f"no run with weights in {runs}/; train one with hack_train.py, or name its folder with --run")
    return max(found, key=_last_trained)


def _last_trained(run):
    """What is larger for a run that was trained later, whether or not it became better."""
    files = filter(os.path.exists, (run.best, run.metrics))
    return max(os.stat(file).st_mtime_ns for file in files), run.folder


def find_runs(folders: tuple[Path, ...], runs: Path) -> list[Run]:
    """The runs in `folders`, where a folder of folds stands for its runs and one of stages for the last that is
    finished, or the newest run, folds or stages below `runs`.

    Raises UserError where there are none, or folds are not all trained.
    """
    if not folders:
        found = [path for form in ("*", "*/fold-*", "*/stage-*") for path in runs.glob(f"{form}/best.pt")]
        if not found:
            return [find_run(None, runs)]
        folders = (folder_of(max((Run(path.parent) for path in found), key=_last_trained)),)
    runs_of = {run.folder.resolve(): run for folder in folders for run in _runs_in(folder)}
    return list(runs_of.values())  # each once, however often it is named


def _runs_in(folder):
    found = fold_runs(folder) or [find_run(folder, folder)]
    for run in found:
        if len(found) > 1 and not run.best.exists():
            raise UserError(f"{run.folder} is not trained; finish the folds with hack_train.py --resume {folder}")
    return found


@dataclass(frozen=True)
class Folds:
    """folds: how many runs there are. digests: of the files that say what each of them holds out."""

    folds: Annotated[int, Ge(2), Le(1000)]
    digests: dict[str, str] = field(default_factory=dict)


def fold_runs(folder: Path) -> list[Run]:
    """The runs of a folder of folds, trained or not; of any other folder none.

    Raises UserError where what they hold out was changed since.
    """
    path = folder / FOLDS
    if not path.exists():
        return []
    about = unsealed(path, Folds)
    num_splits = len(about.digests.keys() - {"sample_weights.csv"})
    if about.digests and num_splits != about.folds:
        raise UserError(f"{path} is damaged: it is of {num_splits} folds; take a copy of it as it was")
    for name, known in about.digests.items():
        if digest(read_bytes(folder / name)) != known:
            raise UserError(f"{folder / name} was changed since the folds were made; take a copy of it as it was")
    return [Run(folder / f"fold-{fold}") for fold in range(about.folds)]


def folder_of(run: Run) -> Path:
    """Where the results of a run go: for one of several folds or stages, the folder of all of them."""
    name, parent = run.folder.name, run.folder.parent
    of_stages = re.fullmatch(r"stage-\d+", name) and has_stages(parent)
    of_folds = re.fullmatch(r"fold-\d+", name) and (parent / FOLDS).exists()
    return parent if of_stages or of_folds else run.folder
