"""Weights of a prediction's parts, fitted on held-out photos, and judged on other photos than they were fitted on.

A part is a view, or a run. Everything is decided from the covariances of the parts' errors, which are summed once for
each of a few folds of the photos: a fit leaves one of them out and is judged by it. Shapes: V parts that are merged,
N photos, K points, F folds. `sums` (2, F, K, V, V) are of errors that are limited, which weights are fitted to, and of
errors as they are, which must not grow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.data.split import split_into_folds
from pipeline.inference.merge import convex_weights, error_covariance, merge

NUM_FOLDS = 5
MIN_GAIN = 1e-3  # of the error; a view that brings less is not worth its time
SHRINK = 0.1  # of the views' common weights
INFLUENCE = 0.95  # quantile of the photos' errors; larger errors count as this one
EQUAL, CHOSEN = "equal weights", "chosen"  # kinds of weights; the second is whichever pays
POINT_SHRINKS = (0.9, 0.7, 0.4, 0.15)  # of each point's covariance towards the points' common one


@dataclass(frozen=True)
class Fit:
    """What a fit found. weights: (V,) or (V, K), 0 for what was pruned. kind: where they come from.

    out_of_fold: for each kind of weights, the (N, K, 2) errors that it makes on photos that it was not fitted on.
    """

    weights: np.ndarray
    kind: str
    out_of_fold: dict[str, np.ndarray]


def fit_weights(errors: np.ndarray, counts: np.ndarray, groups: np.ndarray, *, prune: bool) -> Fit:
    """Fits weights to (V, N, K, 2) errors of held-out photos; `groups` (N,) are kept on one side of each fold.

    counts: (V, N, K) bool, where a part predicts a point. prune: leave out parts that are not worth their time.

    A few photos on which all parts fail make up most of the squared error and teach nothing, so no photo counts more
    than most do; the errors that are reported are not limited.
    """
    assert (np.isfinite(errors) | np.isnan(errors).all(axis=0)).all(), "only the truth may be missing, for all parts"
    fold_of = split_into_folds(groups, NUM_FOLDS)
    folds = [fold_of == fold for fold in range(fold_of.max() + 1)]
    limits = _limits(errors, counts)
    sums = np.array(
        [
            [error_covariance(some[:, chosen], counts[:, chosen]) * chosen.sum() for chosen in folds]
            for some in (errors * limits[:, None, None], errors)
        ]
    )
    choices = {kind: partial(_of_all_parts, kind=kind) for kind in KINDS} | {CHOSEN: partial(_choose, prune=prune)}
    out_of_fold = {name: np.empty(errors.shape[1:]) for name in choices}
    for fold, photos in enumerate(folds):
        for name, choose in choices.items():
            _, weights = choose(np.delete(sums, fold, axis=1))
            out_of_fold[name][photos] = merge(errors[:, photos], weights, counts[:, photos])
    kind, weights = choices[CHOSEN](sums)
    return Fit(weights, kind, out_of_fold)


def _limits(errors, counts):
    """(N,) factors that bring a photo's errors down to the usual size."""
    squares = np.where(counts[..., None] & np.isfinite(errors), errors, 0) ** 2
    known = np.maximum((counts & np.isfinite(errors).all(axis=-1)).sum(axis=(0, 2)), 1)
    sizes = np.sqrt(squares.sum(axis=(0, 2, 3)) / known)
    return np.minimum(1, np.quantile(sizes, INFLUENCE) / sizes.clip(min=1e-12))


def _equal(covariance, kept):
    weights = np.zeros(covariance.shape[-1])
    weights[kept] = 1 / len(kept)
    return weights


def _common(covariance, kept):
    """One weight per part."""
    weights = np.zeros(covariance.shape[-1])
    weights[kept] = convex_weights(_part(covariance, kept).sum(axis=0), shrink=SHRINK)
    return weights


def _each_point(covariance, kept, *, shrink):
    """One weight per part and point; a point's covariance is moved towards the common one, at its own size."""
    inner = _part(covariance, kept)
    size = np.trace(inner, axis1=1, axis2=2)[:, None, None].clip(min=1e-12)  # a point that is never known has none
    common = inner.sum(axis=0) / size.sum()
    weights = np.zeros((covariance.shape[-1], len(covariance)))
    mixed = (1 - shrink) * inner + shrink * size * common
    weights[kept] = convex_weights(mixed, shrink=SHRINK).T
    return weights


Kind = Callable[[np.ndarray, np.ndarray], np.ndarray]
KINDS: dict[str, Kind] = {  # simplest first
    EQUAL: _equal,
    "a weight a part": _common,
    **{
        f"a weight a part and point, shrunk by {shrink}": partial(_each_point, shrink=shrink)
        for shrink in POINT_SHRINKS
    },
}


Choice = Callable[[np.ndarray], tuple[str, np.ndarray]]


def _choose(sums, *, prune):
    """The weights that pay, of the parts that are worth their time, if that surely costs less than MIN_GAIN against
    equal weights of all: each step may look sure and the whole still be wrong, so the whole is judged, on folds that
    had no part in it.
    """
    equal = partial(_of_all_parts, kind=EQUAL)
    choices: list[Choice] = [_pruned_choice, _choice] if prune else [_choice]
    errors = _judged(sums, equal)
    better = (choice for choice in choices if _sure_gain(errors, _judged(sums, choice)) > -MIN_GAIN)
    return next(better, equal)(sums)


def _judged(sums, choose: Choice):
    """(2, F) sums of squared errors of each fold under what is chosen on the others."""
    return _errors(sums, [choose(np.delete(sums, fold, axis=1))[1] for fold in range(sums.shape[1])])


def _of_all_parts(sums, *, kind):
    return kind, KINDS[kind](sums[0].sum(axis=0), np.arange(sums.shape[-1]))


def _choice(sums):
    """The weights of all parts, of the kind that surely does better than simpler ones."""
    return _of_all_parts(sums, kind=_best_kind(sums))


def _pruned_choice(sums):
    """The same, for the parts that are worth their time."""
    kind, num_parts = _best_kind(sums), sums.shape[-1]
    kept = _pruned(sums, KINDS[kind])
    said = f"{kind}, {len(kept)} of {num_parts}" if len(kept) < num_parts else kind
    return said, KINDS[kind](sums[0].sum(axis=0), kept)


def _best_kind(sums):
    everything = np.arange(sums.shape[-1])
    best, errors = EQUAL, _cross_fitted_errors(sums, everything, _equal)
    for kind, fit in KINDS.items():
        other = _cross_fitted_errors(sums, everything, fit)
        if _sure_gain(errors, other) > MIN_GAIN:
            best, errors = kind, other
    return best


def _pruned(sums, kind: Kind):
    """The parts that are worth their time: the least useful is left out if that surely costs less than MIN_GAIN."""
    kept = np.arange(sums.shape[-1])
    whole = _cross_fitted_errors(sums, kept, kind)
    while len(kept) > 1:
        fewer = [np.delete(kept, index) for index in range(len(kept))]
        gains = [_sure_gain(whole, _cross_fitted_errors(sums, some, kind)) for some in fewer]
        if max(gains) < -MIN_GAIN:
            break
        kept = fewer[int(np.argmax(gains))]
    return kept


def _sure_gain(errors, other):
    """By what share (2, F) errors surely fall to others: that of the limited ones minus its standard error over the
    folds, or that of the errors as they are, whichever is less.
    """
    limited, as_they_are = errors - other
    doubt = np.sqrt(len(limited) * limited.var(ddof=1)) if len(limited) > 1 else 0.0
    return min((limited.sum() - doubt) / errors[0].sum(), as_they_are.sum() / errors[1].sum())


def _cross_fitted_errors(sums, kept, kind: Kind):
    """(2, F) sums of squared errors of each fold, under weights that the other folds gave."""
    total = sums[0].sum(axis=0)
    return _errors(sums, [kind(total - fold, kept) for fold in sums[0]])


def _errors(sums, weights_of_folds):
    """(2, F) sums of squared errors of each fold under its own weights."""
    errors = []
    for fold, weights in zip(sums.swapaxes(0, 1), weights_of_folds, strict=True):
        shares = _by_point(weights, fold.shape[1])
        errors.append(np.einsum("vk,ekvw,wk->e", shares, fold, shares, optimize=True))
    return np.array(errors).T


def _by_point(weights, num_points):
    return np.broadcast_to(weights.reshape(len(weights), -1), (len(weights), num_points))


def _part(covariance, kept):
    return covariance[:, kept[:, None], kept]
