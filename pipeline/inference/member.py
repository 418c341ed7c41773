"""A run that is ready to predict: its network, its views and their weights, fitted on what the run held out."""

import hashlib
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augment.geometry import scale_of
from models import LandmarkNet
from pipeline.data.dataset import TrainingData, load_training_data
from pipeline.data.pack import Pack, Squares
from pipeline.errors import UserError
from pipeline.files import check_regular, may_write, sealed, unsealed, write_text
from pipeline.inference.merge import merge, spread
from pipeline.inference.options import PredictOptions
from pipeline.inference.predict import predict_views
from pipeline.inference.tta import FixedView, parse_views, read_views
from pipeline.inference.uncertainty import Calibration, calibrate
from pipeline.inference.weights import fit_weights
from pipeline.metrics import score
from pipeline.networks import load_run_network
from pipeline.recipe import Recipe
from pipeline.runs import Run
from pipeline.runtime import Runtime, choose_precision

MAX_FITTED = 4000  # held-out photos are enough, and their points of all views fit into memory
MIN_FITTED = 20
MIN_GROUPS = 5
BY_HAND = "weights by hand"


@dataclass(frozen=True)
class Member:
    """A run's network in eval mode with its views and weights, (V,) or (V, K); `kind` says how the weights were had.

    not_fitted: why no weights could be fitted; empty where they were, or were not to be.
    """

    run: Run
    recipe: Recipe
    network: LandmarkNet
    checkpoint: str
    permutation: np.ndarray | None
    views: list[FixedView]
    weights: np.ndarray
    kind: str
    calibration: Calibration | None
    device: torch.device
    digest: str
    not_fitted: str = ""

    @property
    def used(self) -> np.ndarray:
        """(V,) bool: the views that have any weight; the others take no time."""
        return np.array([weights.any() for weights in self.weights])

    @property
    def predict_views(self):
        return partial(
            predict_views,
            self.network,
            runtime=Runtime(self.device, choose_precision(self.recipe.network.precision, self.device)),
        )

    def predict(
        self,
        pack: Pack | Squares,
        samples: np.ndarray,
        asked: np.ndarray | None = None,
        *,
        batch_size: int,
        description: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, L, 2) float32 merged points in pixels of the photos, and (N, L) float32 variances over the views.

        asked: (N, L) indices of the points that are wanted of each photo, in that order; without it all. No more than
        these is held.
        """
        num_points = len(self.network.mean_shape) if asked is None else asked.shape[1]
        points = np.empty((len(samples), num_points, 2), np.float32)
        variances = np.empty((len(samples), num_points), np.float32)
        views = [view for view, used in zip(self.views, self.used, strict=True) if used]
        weights = self.weights[self.used]
        blocks = self.predict_views(
            pack, samples, views, self.permutation, batch_size=batch_size, description=description
        )
        for block, found, counts in blocks:
            shares = weights
            if asked is not None:
                wanted = asked[None, block]
                found = np.take_along_axis(found, wanted[..., None], axis=2)
                counts = np.take_along_axis(counts, wanted, axis=2)
                shares = weights[:, asked[block]] if weights.ndim == 2 else weights
            points[block] = merge(found, shares, counts)
            variances[block] = spread(found, shares, counts) ** 2
        return points, variances


def load_member(run: Run, options: PredictOptions, device: torch.device) -> Member:
    """A run with the views of its recipe, or of a file, and the weights that these have by hand, else equal ones.

    The contest lies where the options say, or else where the run was trained on it.
    """
    own = run.recipe()
    where = replace(
        own.run,
        data=options.data or own.run.data,
        cache=options.cache or own.run.cache,
        skip_bad_photos=options.skip_bad_photos,
    )
    recipe, checkpoint, views = replace(own, run=where), options.checkpoint, options.views
    digest = _digest(run.best if checkpoint == "best" else run.last)
    network = load_run_network(run, checkpoint).to(device)
    permutation = run.partners(len(network.mean_shape))
    source = f"--views {views}" if views else "views"
    entries = read_views(views) if views else recipe.prediction.views
    parsed = parse_views(entries, size=recipe.photos.size, mirroring=permutation is not None, source=source)
    hand = np.array([view.weight for view in parsed])
    kind = "equal weights" if (hand == hand[0]).all() else BY_HAND
    return Member(run, recipe, network, checkpoint, permutation, parsed, hand / hand.sum(), kind, None, device, digest)


def weigh_views(member: Member, weights: str, *, batch_size: int) -> Member:
    """The member with its own weights: "equal" (or by hand), "fit", or "auto".

    "auto" takes the run's fitted weights; where there are none of these views and this checkpoint, it fits them, and
    where there is nothing to fit them on it takes equal ones and keeps the reason.
    """
    if weights == "equal" or (weights == "auto" and member.kind == BY_HAND):
        return member
    saved = None if weights == "fit" else _saved(member)
    if saved:
        return saved
    try:
        data, samples = held_out(member)
    except UserError as error:
        if weights == "fit":
            raise
        return replace(member, not_fitted=_reason(error))
    return fit_member(member, data, samples, batch_size=batch_size)


def why_not_calibrated(members: list[Member]) -> str:
    """Why deviations are not calibrated, and what calibrates them: found by trying, so that it works here and now."""
    reasons = []
    for member in members:
        reason = member.not_fitted
        if member.calibration is None and not reason:
            try:
                held_out(member)
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
    """Each reason once; with the runs that it holds for, where it does not for all."""
    lines = []
    for reason in dict.fromkeys(filter(None, reasons)):
        whose = [member.run.folder.name for member, own in zip(members, reasons, strict=True) if own == reason]
        lines.append(reason if len(whose) == len(members) else f"{reason} ({', '.join(whose)})")
    return lines


def _reason(error):
    return " ".join(line.strip() for line in str(error).splitlines()[:2])


def held_out(member: Member) -> tuple[TrainingData, np.ndarray]:
    """The data that a run was trained on, and the held-out photos that weights are fitted on: all, or MAX_FITTED.

    Raises UserError where the data are not there, not the same, or too few are held out.
    """
    place, own = member.recipe.run, member.run.recipe().run.data
    place = replace(place, data=own) if own.exists() else place  # --data may be a test alone
    data = load_training_data(replace(member.recipe, run=place, photos=member.run.photo_options()))
    member.run.check_data(data.pack.fingerprint, data.pack.folder)
    return data, enough(data, data.validation)


def enough(data: TrainingData, samples: np.ndarray) -> np.ndarray:
    """The samples, or MAX_FITTED of them. Raises UserError where they are too few, or of too few groups, to fit on."""
    num_groups = len(np.unique(data.groups[samples]))
    if len(samples) < MIN_FITTED or num_groups < MIN_GROUPS:
        raise UserError(
            f"{len(samples)} photos of {num_groups} groups were held out, at least {MIN_FITTED} of {MIN_GROUPS} groups "
            "are needed; a run with a lower --train-share holds out more"
        )
    if len(samples) > MAX_FITTED:
        samples = np.sort(np.random.default_rng(0).choice(samples, MAX_FITTED, replace=False))
    return samples


def fit_member(member: Member, data: TrainingData, samples: np.ndarray, *, batch_size: int) -> Member:
    """The member with weights fitted on the held-out `samples`; they are saved, and what they bring is said."""
    shape = len(member.views), len(samples), data.num_points
    points, counts = np.empty((*shape, 2), np.float32), np.empty(shape, bool)
    begun = time.perf_counter()
    for block, found, seen in member.predict_views(
        data.pack, samples, member.views, member.permutation, batch_size=batch_size, description="held-out photos"
    ):
        points[:, block], counts[:, block] = found, seen
    seconds = (time.perf_counter() - begun) / len(samples) / len(member.views)
    truth, groups = data.pack.values[samples].astype(np.float64), data.groups[samples]
    errors = points - truth
    fit = fit_weights(errors, counts, groups, prune=True)
    weights = fit.weights.round(5)  # as they are saved, so that the next prediction is the same
    calibration = calibrate(fit.out_of_fold["chosen"], spread(points, weights, counts), groups)
    fitted = replace(member, weights=weights, kind=fit.kind, calibration=calibration)
    rows = [
        score_row(view.name, errors[place] + truth, truth, groups, seconds) for place, view in enumerate(member.views)
    ]
    for kind, out_of_fold in fit.out_of_fold.items():
        num_views = fitted.used.sum() if kind == "chosen" else len(member.views)
        rows.append(score_row(kind, out_of_fold + truth, truth, groups, seconds * num_views))
    saved = {
        "checkpoint": member.digest,
        "views": [view.plain for view in member.views],
        "weights": weights.tolist(),
        "kind": fit.kind,
        "calibration": vars(calibration),
        "what it brought": rows,
        "equivariance": equivariance(member, data.pack, samples, points),
    }
    if may_write(member.run.folder):
        write_text(member.run.views, sealed(saved))
    else:
        print(f"weights     are not kept for next time: {member.run.folder} may not be written")
    print(f"\nrun         {member.run.folder}")
    print_scores(saved)
    return fitted


def equivariance(member: Member, pack: Pack, samples: np.ndarray, points: np.ndarray) -> list[dict[str, Any]]:
    """How far each view's points lie from those of the first view, mostly the photo as it is: a row a view, in pixels
    of the network's image.

    bias: mean (x, y). spread: standard deviation. confused: share of the left and right points that lie nearer to
    their partner's place than to their own. A flip that is wrong by a pixel has a bias of one.
    """
    scale = scale_of(pack.photo_to_image[samples])[:, None, None]
    plain = points[0]
    rows = []
    for view, found in zip(member.views, points, strict=True):
        difference = (found - plain) * scale
        row = {
            "view": view.name,
            "bias": [float(value) for value in difference.mean(axis=(0, 1)).round(4)],
            "spread": round(float(difference.std()), 4),
        }
        if member.permutation is not None:
            pairs = np.flatnonzero(member.permutation != np.arange(len(member.permutation)))
            own = np.linalg.norm(found[:, pairs] - plain[:, pairs], axis=2)
            other = np.linalg.norm(found[:, pairs] - plain[:, member.permutation[pairs]], axis=2)
            row["confused"] = round(float((other < own).mean()), 5)
        rows.append(row)
    return rows


def print_scores(saved: dict[str, Any]):
    rows = saved["what it brought"]
    print_rows("on held-out photos", rows)
    wide = max(len(row["part"]) for row in rows)
    print(f"\n{'against ' + rows[0]['part']:{wide}}   bias x   bias y   spread   left/right confused")
    for row in saved["equivariance"]:
        confused = f"{row['confused']:10.2%}" if "confused" in row else ""
        print(f"{row['view']:{wide}} {row['bias'][0]:8.3f} {row['bias'][1]:8.3f} {row['spread']:8.3f} {confused}")
    print()


def print_rows(title: str, rows: list[dict[str, Any]]):
    """A table of what parts score, and by how much each differs from the first."""
    wide = max(len(title), *(len(row["part"]) for row in rows))
    print(f"\n{title:{wide}}      MSE   change            95 %    NME %   ms/photo")
    for row in rows:
        change = row["mse"] / rows[0]["mse"] - 1
        interval = f"{row['low']:.2f} … {row['high']:.2f}"
        print(
            f"{row['part']:{wide}} {row['mse']:8.3f} {change:8.1%} {interval:>15} {row['nme']:8.3f} "
            f"{1000 * row['seconds']:10.2f}"
        )


def score_row(part: str, points: np.ndarray, truth: np.ndarray, groups: np.ndarray, seconds: float) -> dict[str, Any]:
    """What a part scores, and the seconds that a photo takes."""
    scores = score(points, truth, groups)
    return {"part": part, **{name: round(value, 4) for name, value in vars(scores).items()}, "seconds": seconds}


@dataclass(frozen=True)
class SavedWeights:
    """What is read of a run's views.json."""

    checkpoint: str
    views: list[Any]
    weights: list[float] | list[list[float]]
    kind: str
    calibration: Calibration


def _saved(member):
    """The member with the weights that were saved with its run, if they are of these views and this checkpoint."""
    if not member.run.views.exists():
        return None
    saved = unsealed(member.run.views, SavedWeights)
    if saved.views != [view.plain for view in member.views] or saved.checkpoint != member.digest:
        return None
    weights = checked_weights(member.run.views, saved.weights, len(member.views), len(member.network.mean_shape))
    return replace(member, weights=weights, kind=saved.kind, calibration=saved.calibration)


def checked_weights(path: Path, weights: list[Any], num_parts: int, num_points: int) -> np.ndarray:
    """(V,) or (V, K) convex weights from a file. Raises UserError where they are none."""
    found = np.array(weights, float)
    if found.shape not in ((num_parts,), (num_parts, num_points)) or not (
        (found >= 0).all() and np.allclose(found.sum(axis=0), 1, atol=1e-3)
    ):
        raise UserError(f"{path} is damaged: its weights are not shares of {num_parts} parts; delete it")
    return found


def _digest(path):
    """What tells a checkpoint from others of its run."""
    if not path.exists():
        raise UserError(f"{path} is missing; the run has not come so far")
    try:
        check_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
