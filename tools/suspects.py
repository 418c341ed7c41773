"""Training photos whose labels may be wrong: `python -m tools.suspects RUN`.

Networks learn labels that agree with others before those that do not, so the losses of wrong labels stay high over the
epochs (Arpit et al., ICML 2017). The photos are ranked by the running mean of their losses, which a run keeps for each;
`suspects.csv` lists the first of them, and `suspects_1.jpg` … show truth and prediction. A hard photo looks the same
from afar, so look at each before you take it out.
"""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from tyro.conf import Positional, arg

from pipeline.checkpoint import check_tensor, check_type, fitting, load_checkpoint
from pipeline.cli import parse_flags
from pipeline.data.dataset import TrainingData, load_training_data
from pipeline.data.drawing import gallery, write_picture
from pipeline.errors import UserError, run_script
from pipeline.files import check_folder, write_text
from pipeline.inference.predict import predict_points
from pipeline.metrics import photo_errors
from pipeline.networks import load_run_network
from pipeline.runs import Run, find_run
from pipeline.runtime import Runtime

ON_A_SHEET = 24  # photos
EXPLAINED = 0.25  # of the squared error, which a reason leaves at most
FEW = 0.1  # of the points


@dataclass(frozen=True)
class Options:
    run: Positional[Path]
    """The run, whose training photos are looked at."""
    count: Annotated[int, Interval(ge=1, le=10_000)] = 48
    """How many photos to list."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """The folder to write to; without it the run's."""
    data: Annotated[Path | None, arg(aliases=["-d"], metavar="PATH")] = None
    """Where the contest lies now, if it was moved."""
    cache: Annotated[Path | None, arg(metavar="PATH")] = None
    """Where decoded photos are kept; without it where the run kept them."""
    gpu: bool = False
    """Predict on the GPU."""


@dataclass(frozen=True)
class Suspect:
    """sample: its place in the pack. loss: how often the median photo's. error: root mean square, in pixels of the
    photo. reason: what would explain most of the error, or nothing."""

    sample: int
    loss: float
    error: float
    reason: str


def find_suspects(
    losses: np.ndarray, truth: np.ndarray, points: np.ndarray, samples: np.ndarray, flip_indices: np.ndarray | None
) -> list[Suspect]:
    """The photos at `samples` with (M, K, 2) truth and predicted points, in their order.

    losses: (N,) of all photos of the pack, NaN where they are not known.
    """
    median = float(np.nanmedian(losses))
    errors = np.sqrt(photo_errors(points, truth))
    return [
        Suspect(int(sample), float(losses[sample]) / median, float(error), reason_of(found, true, flip_indices))
        for sample, error, found, true in zip(samples, errors, points, truth, strict=True)
    ]


def reason_of(points: np.ndarray, truth: np.ndarray, flip_indices: np.ndarray | None) -> str:
    """What leaves at most a quarter of the squared error of (K, 2) points when it is mended, in a few words; nothing
    where none does."""
    squares = np.nansum((points - truth) ** 2, axis=1)
    known = np.isfinite(truth).all(axis=1)
    most = EXPLAINED * squares.sum()
    if known.sum() < 2 or not most:
        return ""
    if flip_indices is not None and np.nansum((points[flip_indices] - truth) ** 2) <= most:
        return "left and right are exchanged"
    worst = np.sort(squares)[::-1]
    few = max(1, int(FEW * known.sum()))
    if worst[few:].sum() <= most:
        far = np.argsort(-squares, kind="stable")[:few]
        return f"few points are far off: {', '.join(map(str, sorted(far.tolist())))}"
    found, true = points[known], truth[known]
    right, down = (round(value) for value in (true - found).mean(axis=0))
    around, wanted = found - found.mean(axis=0), true - true.mean(axis=0)
    if ((around - wanted) ** 2).sum() <= most:
        return f"all points are shifted by ({right}, {down})"
    scale = (around * wanted).sum() / max((around**2).sum(), 1e-9)
    if ((scale * around - wanted) ** 2).sum() <= most:
        return f"all points are scaled by {scale:.2f} and shifted by ({right}, {down})"
    return ""


def read_losses(run: Run, data: TrainingData) -> np.ndarray:
    """(N,) running losses of the photos of the pack, or their last errors where the run is of an earlier version.

    Raises UserError where the run has not trained on any photo, or its checkpoint is of other photos.
    """
    state = load_checkpoint(run.last, "sample_errors")
    with fitting(run.last):
        criterion = state.get("criterion", {})
        check_type(criterion, dict, "criterion")
        losses = criterion.get("running_losses", state["sample_errors"])
        check_tensor(losses, torch.zeros(len(data.pack)), "the losses of photos", gaps=True)
    if losses[data.train].isnan().all():
        raise UserError(f"{run.folder} has not trained on any photo yet; train it, or give another run")
    return losses.numpy()


def main():
    options = parse_flags(Options, __doc__)
    run = find_run(options.run, options.run)
    out = options.out or run.folder
    check_folder("--out", out)
    runtime = Runtime.choose(gpu=options.gpu)
    own = run.recipe()
    where = replace(own.run, data=options.data or own.run.data, cache=options.cache or own.run.cache)
    data = load_training_data(replace(own, run=where, photos=run.photo_options()))
    run.check_data(data.pack.fingerprint, data.pack.folder)
    losses = read_losses(run, data)
    order = data.train[np.argsort(-np.nan_to_num(losses[data.train], nan=-np.inf), kind="stable")]
    samples = order[np.isfinite(losses[order])][: options.count]
    network = load_run_network(run, "best").to(runtime.device)
    points = predict_points(network, data.pack, samples, runtime=runtime, description="suspects")
    suspects = find_suspects(losses, data.pack.values[samples], points, samples, data.flip_indices)
    out.mkdir(parents=True, exist_ok=True)
    for path in (write_table(out / "suspects.csv", suspects, data), *draw_sheets(out, suspects, points, data)):
        print(path)


def write_table(path: Path, suspects: list[Suspect], data: TrainingData) -> Path:
    """Writes a row for each suspect, the worst first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_name", "loss_over_median", "rms_error_px", "reason"])
    for suspect in suspects:
        name = data.pack.names[suspect.sample]
        writer.writerow([name, f"{suspect.loss:.2f}", f"{suspect.error:.2f}", suspect.reason])
    write_text(path, text.getvalue())
    return path


def draw_sheets(out: Path, suspects: list[Suspect], points: np.ndarray, data: TrainingData) -> list[Path]:
    """Pictures of the suspects with truth and prediction, some two dozen each."""
    paths = []
    for first in range(0, len(suspects), ON_A_SHEET):
        some = suspects[first : first + ON_A_SHEET]
        samples = np.array([suspect.sample for suspect in some])
        captions = [
            f"{first + number}: {suspect.reason or f'RMS {suspect.error:.1f} px'}"
            for number, suspect in enumerate(some, start=1)
        ]
        title = f"Suspect labels {first + 1} to {first + len(some)}, by loss"
        truth = data.pack.values[samples]
        picture = gallery(data.pack, samples, points[first : first + len(some)], truth, title=title, captions=captions)
        paths.append(out / f"suspects_{1 + first // ON_A_SHEET}.jpg")
        write_picture(paths[-1], picture)
    return paths


if __name__ == "__main__":
    run_script(main)
