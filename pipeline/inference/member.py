"""A run that is ready to predict: its network, its views and their weights, fitted on the photos that it held out."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint import checkpoint_digest
from pipeline.data.dataset import TrainingData
from pipeline.data.pack import Pack, Squares
from pipeline.errors import UserError
from pipeline.inference.equivariance import equivariance, print_equivariance
from pipeline.inference.fitted_weights import (
    FittedWeights,
    Parts,
    SavedWeights,
    fit_and_judge,
    load_weights,
    print_scores,
    save_weights,
)
from pipeline.inference.held_out import held_out
from pipeline.inference.locator import Locator, load_locator
from pipeline.inference.merge import merge, total_variance
from pipeline.inference.onnx_network import Predictor, check_installed, through_onnx
from pipeline.inference.options import PredictOptions
from pipeline.inference.predict import predict_views
from pipeline.inference.tta import FixedView, parse_views, read_views
from pipeline.inference.uncertainty import Calibration
from pipeline.inference.weights import EQUAL
from pipeline.metrics import Scores
from pipeline.networks import load_run_network
from pipeline.ranks import current_ranks
from pipeline.recipe import Recipe
from pipeline.runs import Run
from pipeline.runtime import Runtime, choose_precision

BY_HAND = "weights by hand"


@dataclass(frozen=True)
class Member:
    """A run's network in eval mode with its views and weights, (V,) or (V, K); `kind` says where the weights come from.

    not_fitted: why no weights could be fitted; empty if they were, or were not meant to be. expected: the score on
    photos that neither network nor weights have seen, if weights were fitted. locator: what finds where to look, if the
    run has one.
    """

    run: Run
    recipe: Recipe
    network: Predictor
    checkpoint: str
    flip_indices: np.ndarray | None
    views: list[FixedView]
    weights: np.ndarray
    kind: str
    calibration: Calibration | None
    runtime: Runtime
    digest: str
    not_fitted: str = ""
    expected: Scores | None = None
    locator: Locator | None = None

    @property
    def used(self) -> np.ndarray:
        """(V,) bool: the views that have any weight; the others take no time."""
        return np.array([weights.any() for weights in self.weights])

    @property
    def predict_views(self):
        return partial(predict_views, self.network, runtime=self.runtime)

    def predict(
        self,
        pack: Pack | Squares,
        samples: np.ndarray,
        asked: np.ndarray | None = None,
        *,
        batch_size: int,
        description: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, L, 2) float32 merged points in pixels of the photos, and (N, L) float32 variances of their coordinates
        over the views, including those that the network itself predicts.

        asked: (N, L) indices of the points that are wanted of each photo, in that order; by default all. Only these are
        held in memory.
        """
        num_points = len(self.network.mean_shape) if asked is None else asked.shape[1]
        points = np.empty((len(samples), num_points, 2), np.float32)
        variances = np.empty((len(samples), num_points), np.float32)
        views = [view for view, used in zip(self.views, self.used, strict=True) if used]
        weights = self.weights[self.used]
        blocks = self.predict_views(
            pack, samples, views, self.flip_indices, batch_size=batch_size, description=description
        )
        for block, found, counts, network_variances in blocks:
            shares = weights
            if asked is not None:
                wanted = asked[None, block]
                found = np.take_along_axis(found, wanted[..., None], axis=2)
                counts, network_variances = (
                    np.take_along_axis(array, wanted, axis=2) for array in (counts, network_variances)
                )
                shares = weights[:, asked[block]] if weights.ndim == 2 else weights
            points[block] = merge(found, shares, counts)
            variances[block] = total_variance(found, network_variances, shares, counts)
        return points, variances

    def predict_together(
        self,
        pack: Pack,
        samples: np.ndarray,
        asked: np.ndarray | None = None,
        *,
        batch_size: int,
        description: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `predict`, each rank for a part of the photos; to be called by all. Parts are whole batches, so that no
        bit depends on how many ranks there are."""
        ranks = self.runtime.ranks
        part = ranks.part(len(samples), unit=batch_size)
        own = None if asked is None else asked[part]
        points, variances = self.predict(pack, samples[part], own, batch_size=batch_size, description=description)
        return ranks.gather_arrays(points, part, len(samples)), ranks.gather_arrays(variances, part, len(samples))


def load_member(run: Run, options: PredictOptions, device: torch.device) -> Member:
    """A run with the views of its recipe, or of a file, and their weights: those given by hand, or else equal ones.

    The contest is where the options say, or else where the run was trained on it.
    """
    own = run.recipe()
    where = replace(
        own.run.moved(options.data, options.cache),
        skip_bad_photos=options.skip_bad_photos,
        check_photos=options.check_photos,
    )
    recipe, checkpoint, views = replace(own, run=where), options.checkpoint, options.views
    digest = checkpoint_digest(run.best if checkpoint == "best" else run.last)
    network = _load_predictor(run, recipe, options, device, digest)
    flip_indices = run.read_flip_indices(len(network.mean_shape))
    source = f"--views {views}" if views else "views"
    entries = read_views(views) if views else recipe.prediction.views
    parsed = parse_views(entries, size=recipe.photos.size, mirroring=flip_indices is not None, source=source)
    hand = np.array([view.weight for view in parsed])
    kind = EQUAL if (hand == hand[0]).all() else BY_HAND
    runtime = Runtime(device, choose_precision(own.network.precision, device), current_ranks())
    locator = load_locator(run.locator, recipe.run, runtime) if recipe.photos.locates else None
    return Member(
        run,
        recipe,
        network,
        checkpoint,
        flip_indices,
        parsed,
        hand / hand.sum(),
        kind,
        None,
        runtime,
        digest,
        locator=locator,
    )


def _load_predictor(run, recipe, options, device, digest) -> Predictor:
    network = load_run_network(run, options.checkpoint).to(device)
    if options.backend == "torch":
        return network
    check_installed()
    key = digest, f"{recipe.network} {recipe.loss} {recipe.photos}"
    return through_onnx(network, size=recipe.photos.size, cache=recipe.run.cache, key=key)


def weigh_views(member: Member, weights: str, *, batch_size: int) -> Member:
    """The member with its own weights: "equal" (or by hand), "fit", or "auto".

    "auto" takes the run's fitted weights; if there are none for these views and this checkpoint, it fits them, and if
    there is nothing to fit them on, it takes equal ones and keeps the reason.
    """
    if weights == "equal" or (weights == "auto" and member.kind == BY_HAND):
        return member
    fitted = None if weights == "fit" else _saved(member)
    if fitted:
        return _with_weights(member, fitted)
    try:
        data, samples = member.runtime.ranks.in_turn(lambda: held_out(member.run, member.recipe))
    except UserError as error:
        if weights == "fit":
            raise
        return replace(member, not_fitted=_reason(error))
    return _with_weights(member, _fitted(member, data, samples, batch_size=batch_size))


def _with_weights(member: Member, fitted: FittedWeights) -> Member:
    return replace(
        member,
        weights=fitted.weights,
        kind=fitted.kind,
        calibration=fitted.calibration,
        expected=fitted.expected,
    )


@dataclass(frozen=True)
class SavedViews(SavedWeights):
    """What is read from a run's views.json."""

    checkpoint: str
    views: list[Any]


def _key_of(member):
    """What the weights of a member's views belong to."""
    return {"checkpoint": member.digest, "views": [view.plain for view in member.views]}


def _saved(member):
    """The weights that were saved with a member's run, if they are of these views and this checkpoint."""
    return load_weights(
        member.run.views,
        SavedViews,
        of=_key_of(member),
        num_parts=len(member.views),
        num_points=len(member.network.mean_shape),
    )


def _fitted(member: Member, data: TrainingData, samples: np.ndarray, *, batch_size: int) -> FittedWeights:
    """Weights fitted on the held-out `samples`; they are saved, and what they gain is printed."""
    parts, network_variances = _predict_held_out(member, data, samples, batch_size=batch_size)
    fitted, scores = fit_and_judge(
        parts,
        prune=True,
        spread_of=lambda weights: np.sqrt(total_variance(parts.points, network_variances, weights, parts.counts)),
    )
    views = equivariance(parts.names, parts.points, data.pack.photo_to_image[samples], member.flip_indices)
    if member.runtime.is_main:
        save_weights(member.run.views, fitted, of=_key_of(member), about={"scores": scores, "equivariance": views})
    print(f"\nrun         {member.run.folder}")
    print_scores("on held-out photos", scores)
    print_equivariance(views, wide=max(len(row["part"]) for row in scores))
    return fitted


def _predict_held_out(member, data, samples, *, batch_size):
    """What each view finds in the photos at `samples`, and the (V, N, K) variances that the network predicts; each rank
    looks at a part of them."""
    ranks = member.runtime.ranks
    part = ranks.part(len(samples), unit=batch_size)
    own = samples[part]
    shape = len(member.views), len(own), data.num_points
    points, counts, network_variances = (
        np.empty((*shape, 2), np.float32),
        np.empty(shape, bool),
        np.empty(shape, np.float32),
    )
    begun = time.perf_counter()
    for found in member.predict_views(
        data.pack, own, member.views, member.flip_indices, batch_size=batch_size, description="held-out photos"
    ):
        points[:, found.block], counts[:, found.block], network_variances[:, found.block] = found[1:]
    seconds = (time.perf_counter() - begun) / max(len(own), 1) / len(member.views)
    points, counts, network_variances = (
        np.ascontiguousarray(ranks.gather_arrays(array.swapaxes(0, 1), part, len(samples)).swapaxes(0, 1))
        for array in (points, counts, network_variances)
    )
    parts = Parts(
        names=[view.name for view in member.views],
        points=points,
        counts=counts,
        seconds=np.full(len(member.views), seconds),
        truth=data.pack.values[samples].astype(np.float64),
        groups=data.groups[samples],
    )
    return parts, network_variances


def why_not_calibrated(members: list[Member]) -> str:
    """Why deviations are not calibrated, and what calibrates them: found by trying, so that it works here and now."""
    reasons = []
    for member in members:
        reason = member.not_fitted
        if member.calibration is None and not reason:
            try:
                held_out(member.run, member.recipe)
            except UserError as error:
                reason = _reason(error)
        reasons.append(reason)
    if any(reasons):
        return f"they cannot be: {'; '.join(by_reason(members, reasons))}"
    return "no weights were fitted; --weights fit fits them, and calibrates"


def print_not_fitted(members: list[Member]):
    for line in by_reason(members, [member.not_fitted for member in members]):
        print(f"weights     equal, since none can be fitted: {line}")


def by_reason(members: list[Member], reasons: list[str]) -> list[str]:
    """Each reason once, with the runs that it holds for if it does not hold for all."""
    lines = []
    for reason in dict.fromkeys(filter(None, reasons)):
        whose = [member.run.folder.name for member, own in zip(members, reasons, strict=True) if own == reason]
        lines.append(reason if len(whose) == len(members) else f"{reason} ({', '.join(whose)})")
    return lines


def _reason(error):
    return " ".join(line.strip() for line in str(error).splitlines()[:2])
