"""How far labels lie from what a run, or folds, say of their photos.

A run has seen the labels that it was trained on, so of these its running losses count, which stay high where a label
contradicts the others. Of photos that it held out its predictions count, and of folds all do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pipeline.checkpoint import check_tensor, check_type, fitting, load_checkpoint
from pipeline.data.dataset import TrainingData
from pipeline.data.suspects import errors_in_sizes, robust_scores
from pipeline.errors import UserError
from pipeline.inference.predict import predict_points
from pipeline.networks import load_run_network
from pipeline.runs import Run
from pipeline.runtime import Runtime


@dataclass(frozen=True)
class Disagreement:
    """scores: (N,) of the photos of the pack, NaN where nothing is known. predict: (M, K, 2) points of the photos at M
    samples, in pixels of the photos, NaN where there is no prediction."""

    scores: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]


def of_run(run: Run, data: TrainingData, runtime: Runtime) -> Disagreement:
    """Of one run: the photos that it was trained on by their losses, those that it held out by its predictions.

    Raises UserError where the run has not trained on any photo, or its checkpoint is of other photos.
    """
    losses = read_losses(run, data)
    network = load_run_network(run, "best").to(runtime.device)
    predict = partial(predict_points, network, data.pack, runtime=runtime)
    found = predict(data.validation, description="held-out photos")
    scores = np.full(len(data.pack), np.nan)
    scores[data.train] = robust_scores(losses[data.train])
    scores[data.validation] = robust_scores(errors_in_sizes(found, data.pack.values[data.validation]))
    return Disagreement(scores, predict)


def of_folds(folds: list[Run], data: TrainingData) -> Disagreement:
    """Of folds: all photos by the predictions of the fold that held them out, ranked among those of the same fold.

    Raises UserError where a fold is not finished, or its predictions are of other photos.
    """
    row_of = {name: row for row, name in enumerate(data.pack.names.tolist())}
    points = np.full(data.pack.values.shape, np.nan, np.float32)
    scores = np.full(len(points), np.nan)
    for run in folds:
        if not run.held_out_points.exists():
            folder = run.folder.parent
            raise UserError(f"{run.folder} is not trained; finish the folds with hack_train.py --resume {folder}")
        samples = np.array([row_of[name] for name in run.held_out_names() if name in row_of], int)
        try:
            found = np.load(run.held_out_points, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{run.held_out_points} is damaged; take a copy of it as it was") from error
        if found.shape != (len(samples), *points.shape[1:]):
            raise UserError(f"{run.held_out_points} is of other photos than the fold held out; take a copy of it")
        points[samples] = found
        scores[samples] = robust_scores(errors_in_sizes(found, data.pack.values[samples]))
    return Disagreement(scores, lambda samples: points[samples])


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
