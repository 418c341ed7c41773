"""What the leaderboard would say: mean squared error per coordinate in pixels of the original photos.

Shapes: N photos, K points. Predictions and truth are (N, K, 2), and looked at a block of photos at a time, since there
may be many. A coordinate that is NaN in the truth is missing and does not count. A prediction that is not finite where
the truth is known is an error, never a missing point: dropping it would improve the score of what is broken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from augment import transform_points
from pipeline.blocks import blocks
from pipeline.errors import UserError


class PhotoErrors(NamedTuple):
    """(N,) sums of squared errors over the coordinates whose truth is known, numbers of these, and mean distances in
    percent of the root of the area of the box around the true points, NaN where no point is known."""

    sums: np.ndarray
    counts: np.ndarray
    normalised: np.ndarray

    @classmethod
    def together(cls, parts: Sequence["PhotoErrors"]) -> "PhotoErrors":
        """Those of the photos of several parts, one after the other."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Scores:
    """mse: squared pixels per coordinate, with the ends of its 95 % bootstrap interval. nme: percent, NaN if no photo
    has two points."""

    mse: float
    low: float
    high: float
    nme: float

    def __str__(self) -> str:
        nme = "" if math.isnan(self.nme) else f", NME {self.nme:.2f} %"
        return f"MSE {self.mse:.3f} px² ({self.low:.3f} … {self.high:.3f}){nme}"


def check_predictions(predicted: np.ndarray, truth: np.ndarray, names: Sequence[str] | None = None):
    """Raises UserError where a prediction is not finite although its truth is known, with the first photo's name.

    predicted: (N, K, 2), or more of them as (..., N, K, 2). names: (N,) of the photos; without them their indices are
    said.
    """
    photos = np.zeros(predicted.shape[-3], bool)
    for block in blocks(len(photos)):
        bad = ~np.isfinite(predicted[..., block, :, :]) & ~np.isnan(truth[block])
        photos[block] = bad.any(axis=(-1, -2)).reshape(-1, bad.shape[-3]).any(axis=0)
    if not photos.any():
        return
    first = int(photos.argmax())
    *_, point, _ = np.argwhere(~np.isfinite(predicted[..., first, :, :]) & ~np.isnan(truth[first]))[0]
    photo = f"number {first}" if names is None else names[first]
    raise UserError(
        f"the prediction of point {point} of photo {photo} is not a finite number"
        f" (so for {photos.sum():,} of {len(photos):,} photos); a score would not count it, so there is none"
    )


def squared_error_sums(
    predicted: np.ndarray, truth: np.ndarray, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) sums of squared errors over the coordinates whose truth is known, and (N,) numbers of these.

    Raises UserError as `check_predictions` does.
    """
    check_predictions(predicted, truth, names)
    sums, counts = np.empty(len(truth), np.result_type(predicted, truth)), np.empty(len(truth), np.int64)
    for block in blocks(len(truth)):
        squares, known = _squares(predicted[block], truth[block])
        sums[block], counts[block] = squares.sum(axis=(1, 2)), known.sum(axis=(1, 2))
    return sums, counts


def mse_of_photos(predicted: np.ndarray, truth: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """(N,) mean squared error of each photo; 0 where all of its truth is missing."""
    sums, counts = squared_error_sums(predicted, truth, names)
    return sums / np.maximum(counts, 1)


def tail(errors: np.ndarray) -> str | None:
    """In words, what the worst hundredth of N photos has of the sum of their (N,) errors; of fewer than a hundred, the
    worst one. None where there is no error."""
    known = np.sort(errors[np.isfinite(errors)])[::-1]
    if not known.sum() > 0:
        return None
    share = f"{100 * known[: max(1, len(known) // 100)].sum() / known.sum():.0f} % of the error"
    return f"the worst photo has {share}" if len(known) < 100 else f"the worst 1 % of the photos have {share}"


def point_error_sums(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) sums of squared errors of each point over N photos, and (K,) numbers of the coordinates that are known."""
    sums, counts = np.zeros(truth.shape[1]), np.zeros(truth.shape[1], np.int64)
    for block in blocks(len(truth)):
        squares, known = _squares(predicted[block], truth[block])
        sums += squares.sum(axis=(0, 2), dtype=np.float64)
        counts += known.sum(axis=(0, 2))
    return sums, counts


def _squares(predicted, truth):
    """Squared errors, 0 where the truth is missing, and where it is known."""
    known = ~np.isnan(truth)
    return np.where(known, predicted - truth, 0) ** 2, known


def point_errors(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) root of the mean squared error of each point over N photos, NaN for one that is known in none of them, and
    (K,) numbers of the coordinates that are known."""
    sums, counts = point_error_sums(predicted, truth)
    return np.sqrt(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)), counts


def score(
    predicted: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> Scores:
    """The scores of predictions. The interval resamples whole groups where they are given, since photos of a group
    are not independent. Raises UserError as `check_predictions` does."""
    return scores_of(errors_of_photos(predicted, truth, names), groups)


def errors_of_photos(predicted: np.ndarray, truth: np.ndarray, names: Sequence[str] | None = None) -> PhotoErrors:
    """What each photo has of a score. Raises UserError as `check_predictions` does."""
    sums, counts = squared_error_sums(predicted, truth, names)
    normalised = np.full(len(truth), np.nan)
    for block in blocks(len(truth)):
        some = np.isfinite(truth[block]).all(axis=2).any(axis=1)
        own = truth[block][some]
        sides = np.nanmax(own, axis=1) - np.nanmin(own, axis=1)
        distances = np.nanmean(np.linalg.norm(predicted[block][some] - own, axis=2), axis=1)
        normalised[block][some] = 100 * distances / _sizes(sides)
    return PhotoErrors(sums, counts, normalised)


def _sizes(sides):
    """(N,) the roots of the areas of boxes with (N, 2) sides. A box counts as no thinner than a sixteenth of its
    length: points on one line have a size, though their box has no area. A single point has none, which is NaN."""
    sizes = np.maximum(np.sqrt(sides.prod(axis=1)), sides.max(axis=1) / 4)
    return np.where(sizes > 0, sizes, np.nan)


def scores_of(errors: PhotoErrors, groups: np.ndarray | None = None) -> Scores:
    """The scores of photos, of which groups are resampled as a whole where they are given."""
    sums, counts, normalised = errors
    low, high = ratio_interval(sums, counts, np.arange(len(sums)) if groups is None else groups)
    return Scores(float(sums.sum() / counts.sum()), low, high, _mean_of_known(normalised))


def normalised_mean_error(predicted: np.ndarray, truth: np.ndarray, names: Sequence[str] | None = None) -> float:
    """Percent: mean distance over the root of the area of the box around the true points, averaged over photos. Photos
    with a single known point do not count, since it has no size."""
    return _mean_of_known(errors_of_photos(predicted, truth, names).normalised)


def _mean_of_known(numbers):
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if len(known) else float("nan")


def mean_shape(photo_to_image: np.ndarray, points: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(K, 2) mean of the points of `samples` in pixels of the ROI, block by block since there may be many."""
    sums = np.zeros(points.shape[1:])
    counts = np.zeros(points.shape[1:], int)
    for block in blocks(len(samples)):
        moved = transform_points(photo_to_image[samples[block]], points[samples[block]])
        sums += np.nansum(moved, axis=0)
        counts += np.isfinite(moved).sum(axis=0)
    return sums / np.maximum(counts, 1)


def to_photo_coordinates(photo_to_image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, K, 2) points in pixels of the photos, from points in pixels of the ROI."""
    return transform_points(np.linalg.inv(photo_to_image), points)


def check_finite(points: np.ndarray, names: Sequence[str] | np.ndarray):
    """Raises UserError, naming the first of N photos, where predicted (..., N, K, 2) points are no float32 numbers."""
    bad = ~(np.abs(points) <= np.finfo(np.float32).max)
    if bad.any():
        wrong = bad.any(axis=-1).reshape(-1, *bad.shape[-3:-1]).any(axis=0)
        photos = wrong.any(axis=1)
        first = int(photos.argmax())
        raise UserError(
            f"the prediction of point {wrong[first].argmax()} of photo {names[first]} is not a finite number, and "
            f"{photos.sum()} of {len(names)} photos have such points; the network's weights have diverged, or overflow "
            "in half precision: take another checkpoint or run"
        )


def ratio_interval(
    sums: np.ndarray, counts: np.ndarray, groups: np.ndarray, *, num_resamples: int = 1000
) -> tuple[float, float]:
    """The 95 % interval of Σ sums / Σ counts over resamplings of whole groups (percentile bootstrap, Efron 1979); NaN
    where there are fewer than two groups that count."""
    index = np.unique(groups, return_inverse=True)[1]
    some = np.bincount(index, counts) > 0
    totals = np.bincount(index, sums)[some], np.bincount(index, counts)[some]
    if len(totals[0]) < 2:
        return float("nan"), float("nan")
    result = bootstrap(
        totals,
        lambda s, c, axis: s.sum(axis) / c.sum(axis),
        paired=True,
        n_resamples=num_resamples,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
