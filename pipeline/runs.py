"""A run's folder: where everything of one training lies, under a name that says what it was.

recipe.yaml        every field            validation.txt    the held-out photos, one a line
environment.json   versions, device       permutation.json  partners of the points, or null
data.json          fingerprint, window    metrics.csv       a row an epoch
best.pt, last.pt   checkpoints            events/           for TensorBoard
pictures/          worst photos           submission.csv    by predict.py
"""

import csv
import importlib.metadata
import io
import json
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.data import TrainingData
from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.metrics import Scores
from pipeline.recipe import NOT_IN_FOLDER_NAME, PhotoOptions, Recipe, changes, read_recipe, to_yaml
from pipeline.window import WHOLE

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "scipy", "scikit-learn")
MAX_NAME = 100


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
        return [name for name in self.split.read_text(encoding="utf-8").split("\n") if name]

    @property
    def permutation(self) -> Path:
        return self.folder / "permutation.json"

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

    def recipe(self) -> Recipe:
        """The recipe, with the window that was found."""
        recipe = read_recipe(self.folder / "recipe.yaml")
        left, top, side = self.about_data().get("window", WHOLE)  # there was none in the beginning
        return replace(recipe, photos=replace(recipe.photos, window=(left, top, side)))

    def write_recipe(self, recipe: Recipe):
        write_text(self.folder / "recipe.yaml", to_yaml(recipe))

    def photo_options(self) -> PhotoOptions:
        """The recipe's, with the window, the split and the permutation that the run was made with."""
        permutation = "none" if json.loads(self.permutation.read_text()) is None else str(self.permutation)
        return replace(self.recipe().photos, split=self.split, permutation=permutation)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps a second process from training the same run. Raises UserError where one does already."""
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise UserError(f"{self.folder} is being trained by another process; stop that one first") from error

    def about_data(self) -> dict[str, Any]:
        return json.loads((self.folder / "data.json").read_text())

    def check_data(self, data: TrainingData):
        """Raises UserError when the data are not those that the run was made with."""
        if self.about_data()["fingerprint"] != data.pack.fingerprint:
            raise UserError(
                f"{self.folder} was trained on other photos or points than {data.pack.folder}; start a new run"
            )

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows of the table, one an epoch."""
        with self.metrics.open() as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def write_metrics(self, rows: list[dict[str, Any]]):
        """Writes the table of all epochs so far."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics, text.getvalue())


def create_run(recipe: Recipe, data: TrainingData, *, floor: Scores, device: str, folder: Path | None = None) -> Run:
    """Writes what is known before training into a new folder; `floor` is the mean shape's score."""
    run = Run(folder or new_folder(recipe))
    run.folder.mkdir(exist_ok=True)
    write_text(run.split, "".join(f"{name}\n" for name in data.pack.names[data.validation]))
    write_text(run.permutation, json.dumps(None if data.permutation is None else data.permutation.tolist()))
    about = {
        "fingerprint": data.pack.fingerprint,
        "num_train": len(data.train),
        "num_validation": len(data.validation),
        "window": data.window,
        "mean_shape": asdict(floor),
    }
    write_text(run.folder / "data.json", json.dumps(about, indent=1))
    write_text(run.folder / "environment.json", json.dumps(environment(device), indent=1))
    run.write_recipe(recipe)  # last: with it the run can be resumed
    return run


def new_folder(recipe: Recipe) -> Path:
    """Makes a folder below the recipe's `runs`, with a name that is not taken."""
    folder = recipe.run.runs / folder_name(recipe, time.strftime("%Y%m%d-%H%M%S"))
    for place in (folder, *(folder.with_name(f"{folder.name}-{again}") for again in range(2, 100))):
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    return place


def folder_name(recipe: Recipe, now: str) -> str:
    """`<time>_<name>_<what was changed>`, of letters, digits, dots, dashes and underscores alone."""
    parts = [now, recipe.run.name]
    for name, value in changes(recipe).items():
        if name not in NOT_IN_FOLDER_NAME:
            parts.append(name.replace("_", "-") + ("" if isinstance(value, list | bool) else f"-{value}"))
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") or "run" for part in parts)[:MAX_NAME].rstrip(
        "-._"
    )


def find_run(folder: Path | None, runs: Path) -> Run:
    """The run in `folder`, or the newest one below `runs` that has weights.

    Raises UserError where there is none.
    """
    if folder:
        if folds := fold_runs(folder):
            raise UserError(f"{folder} has {len(folds)} folds; give one of them, such as {folds[0].folder}")
        if not (folder / "recipe.yaml").exists():
            raise UserError(f"{folder} is not the folder of a run: it has no recipe.yaml")
        return Run(folder)
    found = sorted(runs.glob("*/best.pt"), key=lambda path: (path.stat().st_mtime, path))
    if not found:
        raise UserError(f"no run with weights in {runs}/; train one with hack_train.py, or name its folder with --run")
    return Run(found[-1].parent)


def find_runs(folders: tuple[Path, ...], runs: Path) -> list[Run]:
    """The runs in `folders`, where a folder of folds stands for its runs, or the newest run or folds below `runs`.

    Raises UserError where there are none, or folds are not all trained.
    """
    if not folders:
        found = [*runs.glob("*/best.pt"), *runs.glob("*/fold-*/best.pt")]
        if not found:
            return [find_run(None, runs)]
        folders = (folder_of(Run(max(found, key=lambda path: (path.stat().st_mtime, path)).parent)),)
    return [run for folder in folders for run in _runs_in(folder)]


def _runs_in(folder):
    found = fold_runs(folder) or [find_run(folder, folder)]
    for run in found:
        if len(found) > 1 and not run.best.exists():
            raise UserError(f"{run.folder} is not trained; finish the folds with hack_train.py --resume {folder}")
    return found


def fold_runs(folder: Path) -> list[Run]:
    """The runs of a folder of folds, trained or not; of any other folder none."""
    path = folder / "folds.json"
    count = json.loads(path.read_text())["folds"] if path.exists() else 0
    return [Run(folder / f"fold-{fold}") for fold in range(count)]


def folder_of(run: Run) -> Path:
    """Where the results of a run go: for one of several folds, the folder of all of them."""
    return run.folder.parent if run.folder.name.startswith("fold-") else run.folder


def environment(device: str) -> dict[str, Any]:
    """What a run was made with."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": device,
        "packages": versions,
    }
