"""Finds training photos whose labels may be wrong: `python -m tools.suspects RUN`, or `--data PATH` without a network.

Labels are compared with what a run has learned, or with what folds predict for photos that they never saw; with what
shapes look like; and with the labels of exact and near duplicates. Networks learn labels that agree with others before
those that do not, so the losses of wrong labels stay high over the epochs (Arpit et al., ICML 2017): for the photos
that a run was trained on, its running losses count along with its predictions.

`suspects.csv` lists the photos, worst first, with the reason, a score and the weight 1; exact duplicates, and
duplicates of test photos, are listed too. `suspects_1.jpg` … show the first of them. The scores cannot tell a hard
photo from a wrong label, so look at each; with a weight of 0, `hack_train.py --sample-weights FILE` leaves it out.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Interval
from tyro.conf import Positional, arg

from pipeline.cli import parse_flags
from pipeline.data.dataset import TrainingData, load_training_data
from pipeline.data.drawing import gallery, write_picture
from pipeline.data.duplicates import Pairs, differences, find_pairs
from pipeline.data.odd_shapes import fit_usual_shapes, shape_distances, shape_reason
from pipeline.data.shape_model import ShapeModel
from pipeline.data.suspects import (
    EXPLAINED,
    FEW,
    LEAST,
    Suspect,
    duplicate_scores,
    rank,
    reason_of,
    robust_scores,
    suspects_table,
)
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder, free_name, write_text
from pipeline.inference.disagreement import Disagreement, of_folds, of_run
from pipeline.metrics import mse_of_photos
from pipeline.recipe import PhotoOptions, Recipe, RunOptions
from pipeline.runs import find_run, fold_runs
from pipeline.runtime import Runtime

ON_A_SHEET = 24  # photos
NUM_NAMED = 3  # duplicates of a photo


@dataclass(frozen=True)
class Options:
    run: Positional[Path | None] = None
    """The run, or the folder of folds, whose training photos to check; without it, the labels of --data alone."""
    count: Annotated[int, Interval(ge=1, le=10_000)] = 48
    """How many photos to draw, and at least to list."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """The folder to write to; by default the run's, or the working folder."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """The contest's folder, or where the run's contest is now, if it was moved."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; by default where the run kept them, or in cache."""
    skip_bad_photos: bool = False
    """Leave out photos that are missing or broken, as hack_train.py does with this flag."""
    gpu: bool = False
    """Predict on the GPU."""


@dataclass(frozen=True)
class Checks:
    """What each check found: (N,) scores of the photos of the pack, NaN where it cannot tell."""

    data: TrainingData
    disagreement: Disagreement | None
    model: ShapeModel | None
    within: Pairs
    across: Pairs
    of_network: np.ndarray
    of_shape: np.ndarray
    of_duplicates: np.ndarray


def main():
    options = parse_flags(Options, __doc__)
    if not options.run and not options.data:
        raise UserError("nothing is named to look at; give the folder of a run or of folds, or --data PATH")
    out = options.out or options.run or Path()
    check_folder("--out", out)
    data, disagreement = load(options)
    checks = check(data, disagreement)
    suspects = find_suspects(checks, options.count)
    out.mkdir(parents=True, exist_ok=True)
    print_summary(checks, suspects)
    path, table = out / "suspects.csv", suspects_table(suspects, data.pack.names)
    if path.exists() and path.read_bytes() != table.encode():
        print(f"earlier     the list that was there, whose weights may be yours, is now {path.rename(free_name(path))}")
    write_text(path, table)
    for written in (path, *draw_sheets(out, suspects[: options.count], checks)):
        print(written)


def load(options: Options) -> tuple[TrainingData, Disagreement | None]:
    """The data, and how far their labels lie from what the run or the folds predict."""
    if not options.run:
        where = RunOptions(
            data=options.data or Path(),
            cache=options.cache or Path("cache"),
            skip_bad_photos=options.skip_bad_photos,
        )
        return load_training_data(Recipe(run=where, photos=PhotoOptions(roi="whole"))), None
    folds = fold_runs(options.run)
    run = folds[0] if folds else find_run(options.run, options.run)
    own = run.recipe()
    where = own.run.moved(options.data, options.cache, skip_bad_photos=options.skip_bad_photos)
    photos = replace(run.photo_options(), sample_weights=None)  # photos that were left out are looked at as well
    data = load_training_data(replace(own, run=where, photos=photos), of_run=run)
    if folds:
        return data, of_folds(folds, data)
    return data, of_run(run, data, Runtime.choose(gpu=options.gpu, precision=own.network.precision))


def check(data: TrainingData, disagreement: Disagreement | None) -> Checks:
    """Scores of each kind for all photos."""
    values = data.pack.values
    model = fit_usual_shapes(values, np.arange(len(values)))
    within, across = find_pairs(data.pack, data.test)
    exact, near = (differences(data.pack, within.those(which)) for which in (within.exact, ~within.exact))
    unknown = np.full(len(values), np.nan)
    return Checks(
        data=data,
        disagreement=disagreement,
        model=model,
        within=within,
        across=across,
        of_network=disagreement.scores if disagreement else unknown,
        of_shape=robust_scores(shape_distances(model, values)) if model else unknown,
        of_duplicates=duplicate_scores(exact, near),
    )


def find_suspects(checks: Checks, count: int) -> list[Suspect]:
    """The photos whose labels are suspect, and those that are exact duplicates or duplicates of the test's, ranked."""
    exact = checks.within.those(checks.within.exact)
    listed = np.unique(np.concatenate((exact.one, exact.other, checks.across.one)))
    scores = np.stack((checks.of_network, checks.of_shape, checks.of_duplicates))
    samples = rank(scores, listed=listed, count=count)
    points = checks.disagreement.predict(samples) if checks.disagreement else None
    duplicates = _duplicates(checks, samples)
    suspects = []
    for row, sample in enumerate(samples):
        own = scores[:, sample]
        score = float(np.nanmax(own)) if np.isfinite(own).any() else float("nan")
        found = None if points is None else points[row]
        reasons = _reasons(checks, int(sample), found, duplicates.get(int(sample), []))
        error = _error(found, checks.data.pack.values[sample])
        suspects.append(Suspect(int(sample), score, reasons, error, duplicates.get(int(sample), [])))
    return suspects


def _error(points, truth):
    if points is None or np.isnan(points).any() or np.isnan(truth).all():
        return float("nan")
    return float(mse_of_photos(points[None], truth[None])[0] ** 0.5)


def _reasons(checks, sample, points, duplicates):
    """What each check says about a photo that it finds suspect, highest score first."""
    data, truth = checks.data, checks.data.pack.values[sample]
    said = []
    if checks.of_network[sample] >= LEAST and points is not None:
        why = reason_of(points, truth, data.flip_indices) or "far from what the network finds"
        said.append((checks.of_network[sample], why))
    if checks.of_shape[sample] >= LEAST:
        why = shape_reason(checks.model, truth, data.flip_indices, explained=EXPLAINED, few=FEW)
        said.append((checks.of_shape[sample], why or "an unusual shape"))
    if checks.of_duplicates[sample] >= LEAST:
        said.append((checks.of_duplicates[sample], "another label than its duplicates"))
    if not said and duplicates:
        said.append((0.0, "a duplicate"))
    return list(dict.fromkeys(why for _, why in sorted(said, key=lambda pair: -pair[0])))


def _duplicates(checks: Checks, samples: np.ndarray) -> dict[int, list[str]]:
    """Names of the duplicates of each sample that has some; those in the test with their folder."""
    data, wanted = checks.data, set(samples.tolist())
    found: dict[int, list[str]] = {}
    exact, near = (
        checks.within.those(which) for which in (checks.within.exact, ~checks.within.exact & _differ(checks))
    )
    shown = Pairs(*(np.concatenate(sides) for sides in zip(exact, near, strict=True)))  # exact ones first
    for one, other in [*zip(shown.one, shown.other, strict=True), *zip(shown.other, shown.one, strict=True)]:
        found.setdefault(int(one), []).append(str(data.pack.names[other]))
    for one, other in zip(checks.across.one, checks.across.other, strict=True):
        assert data.test
        found.setdefault(int(one), []).append(f"test/{data.test.names[other]}")
    return {one: list(dict.fromkeys(names))[:NUM_NAMED] for one, names in found.items() if one in wanted}


def _differ(checks):
    """The pairs in which a photo is suspect because its label is far from the other's."""
    far = checks.of_duplicates >= LEAST
    return far[checks.within.one] | far[checks.within.other]


def print_summary(checks: Checks, suspects: list[Suspect]):
    """Prints how many photos each check finds suspect, and how many are there twice."""
    within, across = checks.within, checks.across
    kinds = {"network": checks.of_network, "shape": checks.of_shape, "duplicates' labels": checks.of_duplicates}
    found = [f"{(scores >= LEAST).sum():,} by {kind}" for kind, scores in kinds.items() if np.isfinite(scores).any()]
    print(f"suspect      {', '.join(found) or 'nothing can be told'}; {len(suspects):,} are listed")
    near = len(np.unique(np.concatenate((within.one, within.other))))
    exact = within.those(within.exact)
    same = len(np.unique(np.concatenate((exact.one, exact.other))))
    print(f"duplicates   {near:,} photos of train have near-duplicates there, {same:,} the same pixels")
    if len(across.one):
        known = len(np.unique(across.other))
        print(
            f"             {known:,} photos of the test have near-duplicates in train, "
            f"{across.exact.sum():,} pairs with the same pixels"
        )


def draw_sheets(out: Path, suspects: list[Suspect], checks: Checks) -> list[Path]:
    """Writes pictures of the suspects with truth and prediction, ON_A_SHEET photos each."""
    pack, paths = checks.data.pack, []
    for earlier in out.glob("suspects_[0-9]*.jpg"):
        earlier.unlink()
    for first in range(0, len(suspects), ON_A_SHEET):
        some = suspects[first : first + ON_A_SHEET]
        samples = np.array([suspect.sample for suspect in some])
        captions = [f"{first + number}: {suspect.reason}" for number, suspect in enumerate(some, start=1)]
        title = f"Suspect labels {first + 1} to {first + len(some)}, by score"
        truth = pack.values[samples]
        points = checks.disagreement.predict(samples) if checks.disagreement else np.full_like(truth, np.nan)
        picture = gallery(pack, samples, points, truth, title=title, captions=captions)
        paths.append(out / f"suspects_{1 + first // ON_A_SHEET}.jpg")
        write_picture(paths[-1], picture)
    return paths


if __name__ == "__main__":
    run_script(main)
