"""How far labels lie from what a run, or folds, predict for their photos.

A run has seen the labels that it was trained on, so for these its running losses count too, which stay high if a label
contradicts the others. For photos that it held out, its predictions count; with folds, these are all photos.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pipeline.blocks import blocks
from pipeline.checkpoint import check_tensor, check_type, fitting, load_checkpoint
from pipeline.data.dataset import TrainingData
from pipeline.data.suspects import errors_in_sizes, reason_of, robust_scores
from pipeline.errors import UserError
from pipeline.inference.predict import predict_points
from pipeline.networks import load_run_network
from pipeline.progress import progress
from pipeline.runs import Run
from pipeline.runtime import Runtime

ONE_MISTAKE = 1.75  # factor of the score of an error that one mistake explains


@dataclass(frozen=True)
class Disagreement:
    """scores: (N,) of the photos of the pack, NaN where nothing is known. predict: gives (M, K, 2) points of the photos
    at M samples, in pixels of the photos, NaN where there is no prediction."""

    scores: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]


def of_run(run: Run, data: TrainingData, runtime: Runtime) -> Disagreement:
    """Of one run: held-out photos are scored by its predictions, training photos by the higher score of its losses and
    its predictions, which a long training makes good even if the label is wrong.

    Raises UserError if the run has not trained on any photo, or its checkpoint is of other photos.
    """
    losses = read_losses(run, data)
    network = load_run_network(run, "best").to(runtime.device)
    predict = partial(predict_points, network, data.pack, runtime=runtime)
    scores = np.full(len(data.pack), np.nan)
    for samples, name in ((data.train, "training photos"), (data.validation, "held-out photos")):
        scores[samples] = scores_of(predict, samples, data, description=name)
    scores[data.train] = np.fmax(scores[data.train], robust_scores(losses[data.train]))
    return Disagreement(scores, predict)


def of_folds(folds: list[Run], data: TrainingData) -> Disagreement:
    """Of folds: all photos are scored by the predictions of the fold that held them out, and ranked within that fold.

    Raises UserError if a fold is not finished, or its predictions are of other photos.
    """
    row_of = {name: row for row, name in enumerate(data.pack.names.tolist())}
    fold_of, place = np.full(len(data.pack), -1), np.zeros(len(data.pack), int)
    kept = []
    for number, run in enumerate(folds):
        samples = np.array([row_of[name] for name in run.held_out_names() if name in row_of], int)
        fold_of[samples], place[samples] = number, np.arange(len(samples))
        kept.append(_kept_points(run, (len(samples), *data.pack.values.shape[1:])))

    def predict(samples: np.ndarray) -> np.ndarray:
        points = np.full((len(samples), *data.pack.values.shape[1:]), np.nan, np.float32)
        for number, found in enumerate(kept):
            own = fold_of[samples] == number
            points[own] = found[place[samples[own]]]
        return points

    scores = np.full(len(data.pack), np.nan)
    for number in range(len(folds)):
        samples = np.flatnonzero(fold_of == number)
        scores[samples] = scores_of(predict, samples, data, description=None)
    return Disagreement(scores, predict)


def _kept_points(run, shape):
    """What a fold predicts for the photos that it held out, memory-mapped."""
    if not run.held_out_points.exists():
        folder = run.folder.parent
        raise UserError(f"{run.folder} is not trained; finish the folds with hack_train.py --resume {folder}")
    try:
        found = np.load(run.held_out_points, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{run.held_out_points} is damaged; take a copy of it as it was") from error
    if found.shape != shape:
        raise UserError(f"{run.held_out_points} is of other photos than the fold held out; take a copy of it")
    return found


def scores_of(
    predict: Callable[[np.ndarray], np.ndarray], samples: np.ndarray, data: TrainingData, *, description: str | None
) -> np.ndarray:
    """(M,) scores of the photos at `samples` among themselves. An error that one mistake explains, such as a shift,
    counts more against a label than one that is spread over the points. Points are predicted block by block, since all
    of them may not fit into memory."""
    errors, explained = np.empty(len(samples)), np.zeros(len(samples), bool)
    with progress(len(samples), description, unit="photo") as bar:
        for block in blocks(len(samples)):
            truth, points = data.pack.values[samples[block]], predict(samples[block])
            errors[block] = errors_in_sizes(points, truth)
            pairs = zip(points, truth, strict=True)
            explained[block] = [bool(reason_of(found, true, data.flip_indices)) for found, true in pairs]
            bar.update(len(truth))
    scores = robust_scores(errors)
    return np.where(explained & (scores > 0), ONE_MISTAKE * scores, scores)


def read_losses(run: Run, data: TrainingData) -> np.ndarray:
    """(N,) running losses of the photos of the pack, or their last errors if the run is of an earlier version.

    Raises UserError if the run has not trained on any photo, or its checkpoint is of other photos.
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
