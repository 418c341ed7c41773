"""Merging predictions of the same points by several views: convex weights, and how they are fitted.

Shapes: V views, B photos, K points. Source of the fit: Bates and Granger, "The Combination of Forecasts", 1969: the
convex combination with the least expected squared error under the covariance of the errors.
"""

import numpy as np
from scipy.optimize import nnls


def merge(points: np.ndarray, weights: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """(B, K, 2) weighted mean of (V, B, K, 2) points.

    weights: (V,), (V, K) or (V, B, K), at least 0; only their proportions matter. counts: (V, B, K) bool, where a view
    predicts a point; a point that no view predicts is merged as if all did. Equal predictions are returned to the bit.
    """
    shares = _shares(points, weights, counts)
    return points[0] + (shares[..., None] * (points - points[0])).sum(axis=0)


def spread(points: np.ndarray, weights: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """(B, K) standard deviation, per axis, of (V, B, K, 2) points about their weighted mean."""
    shares = _shares(points, weights, counts)
    variance = (shares[..., None] * (points - merge(points, weights, counts)) ** 2).sum(axis=0)
    return np.sqrt(variance.mean(axis=-1))


def total_variance(
    points: np.ndarray, variances: np.ndarray, weights: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """(B, K) variance of a coordinate under a mixture of the views: the mean of their own (V, B, K) variances, and the
    variance of their (V, B, K, 2) points (the law of total variance)."""
    own = (_shares(points, weights, counts) * variances).sum(axis=0)
    return own + spread(points, weights, counts) ** 2


def error_covariance(errors: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """(K, V, V) second moments of (V, B, K, 2) errors over photos and axes; missing points (NaN) are left out.

    If a view says nothing about a point, it takes the mean error of those that do, as a merge would.
    """
    errors = np.asarray(errors, np.float64)
    if counts is not None:
        errors = np.where(counts[..., None], errors, merge(errors, np.ones(len(errors)), counts))
    errors = np.nan_to_num(errors)
    flat = errors.transpose(2, 0, 1, 3).reshape(errors.shape[2], len(errors), -1)
    return flat @ flat.swapaxes(1, 2) / flat.shape[2]


def convex_weights(covariance: np.ndarray, *, shrink: float = 0.0) -> np.ndarray:
    """(..., V) weights >= 0 with sum 1 and the least w' C w for (..., V, V) covariances.

    shrink: from 0 to 1, how far the covariance is moved towards one under which equal weights are best.
    """
    flat = covariance.reshape(-1, *covariance.shape[-2:])
    size = flat.shape[-1]
    typical = np.trace(flat, axis1=1, axis2=2)[:, None, None] / size
    shrunk = (1 - shrink) * flat / np.where(typical > 0, typical, 1) + (shrink + 1e-9) * np.eye(size)
    found, sure = _without_negatives(shrunk)
    for row in np.flatnonzero(~sure):
        # The least |L' w|^2 with sum(w) = 1 is, up to its scale, the least |L' w|^2 + (sum(w) - 1)^2.
        root = np.vstack((np.linalg.cholesky(shrunk[row]).T, np.ones(size)))
        solution = nnls(root, np.append(np.zeros(size), 1.0))[0]
        found[row] = solution / solution.sum()
    return found.reshape(covariance.shape[:-1])


def _without_negatives(covariance):
    """(M, V) weights for many (M, V, V) covariances at once, leaving out negative ones until there are none; and (M,)
    whether that was right: no weight that is 0 would lower the error by growing (Kuhn and Tucker's condition).
    """
    size = covariance.shape[-1]
    kept = np.ones(covariance.shape[:-1], bool)
    while True:
        inner = np.where(kept[:, :, None] & kept[:, None], covariance, np.eye(size))
        weights = np.linalg.solve(inner, kept[..., None].astype(np.float64))[..., 0]
        negative = kept & (weights <= 0)
        if not negative.any():
            break
        kept &= ~negative
    weights /= weights.sum(axis=1, keepdims=True)
    slopes = (covariance @ weights[..., None])[..., 0]
    level = (slopes * weights).sum(axis=1, keepdims=True)
    return weights, (slopes > level * (1 - 1e-9)).all(axis=1)


def blend(points: np.ndarray, weights: np.ndarray, *, method: str, power: float = 2.0) -> np.ndarray:
    """(B, K, 2) merge of (V, B, K, 2) points: "weighted" mean, "median", or "power" mean.

    The power mean of the coordinates that all have one sign is (mean of |x|^power)^(1/power) with that sign; where
    signs differ it is the weighted mean.
    """
    if method == "median":
        return np.median(points, axis=0)
    mean = merge(points, weights)
    if method == "power":
        one_sign = (np.sign(points) == np.sign(points[0])).all(axis=0) & (points[0] != 0)
        sizes = np.where(one_sign, np.abs(points), 1.0)
        largest = sizes.max(axis=0)  # a large power of what is above 1 would overflow
        raised = (_shares(points, weights, None)[..., None] * (sizes / largest) ** power).sum(axis=0) ** (1 / power)
        return np.where(one_sign, np.sign(points[0]) * largest * raised, mean)
    return mean


def _shares(points, weights, counts):
    weights = np.asarray(weights, np.float64)
    shares = weights.reshape(len(weights), *[1] * (3 - weights.ndim), *weights.shape[1:])
    shares = np.broadcast_to(shares, points.shape[:3])
    if counts is not None:
        counted = shares * counts
        shares = np.where((counted > 0).any(axis=0), counted, shares)
    return shares / shares.sum(axis=0)
