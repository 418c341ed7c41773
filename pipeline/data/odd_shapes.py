"""Shapes that are far from what shapes look like, and what would bring them near: by labels alone, with no network."""

import numpy as np

from pipeline.blocks import blocks
from pipeline.data.shape_model import ShapeModel, fit_shapes

NUM_FITTED = 4000  # shapes
TRIMMED = 0.1  # share of these that are farthest, and left out of the model
NUM_ROUNDS = 3
MIN_KNOWN = 5  # points of a shape
BLOCK = 1000
STEPS = 10  # in which far points are left out


def fit_usual_shapes(points: np.ndarray, samples: np.ndarray) -> ShapeModel | None:
    """A model of the (N, K, 2) shapes at `samples`, without those that are farthest from it; None if there are too few
    of MIN_KNOWN points to make one.

    It is fitted in rounds, each to the shapes nearest to the model before, as in Rousseeuw and Van Driessen, A fast
    algorithm for the minimum covariance determinant estimator, 1999; the first is the median shape.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(samples)[:NUM_FITTED])
    shapes = np.asarray(points[chosen], np.float64)
    known = np.asarray(np.isfinite(shapes).all(axis=2))
    enough = known.sum(axis=1) >= MIN_KNOWN
    shapes, known = np.nan_to_num(shapes[enough]), known[enough]
    if len(shapes) < 3 * MIN_KNOWN or (known.sum(axis=0) < MIN_KNOWN).any():
        return None
    model = _median_shape(shapes, known)
    for _ in range(NUM_ROUNDS):
        far = _mean(misfits(model, shapes, known), known)
        usual = far <= np.quantile(far, 1 - TRIMMED)
        if (known[usual].sum(axis=0) < MIN_KNOWN).any():
            return None
        model = fit_shapes(shapes[usual], known[usual])
    return model


def _median_shape(shapes, known):
    """A model without factors, of the median of shapes that are centred and of one size: what is odd in many of them
    does not influence it, while it would be a factor of a model of all."""
    plain = ShapeModel(np.zeros(shapes.shape[1:]), np.zeros((*shapes.shape[1:], 0)), noise=0.5)
    scaled = np.where(known[..., None], plain.scaled(shapes, known), np.nan)
    return ShapeModel(np.nanmedian(scaled, axis=0), plain.loadings, noise=0.01)


def misfits(model: ShapeModel, shapes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N, K) squared distances of the known points from what the model makes of them, in sizes of a shape."""
    scaled = model.scaled(shapes, known)
    expected = model.expected(model.infer(scaled, known)[0])
    return np.where(known, ((scaled - expected) ** 2).sum(axis=2), 0)


def shape_distances(model: ShapeModel, points: np.ndarray) -> np.ndarray:
    """(N,) root mean squared distance of each shape from what the model makes of it, in sizes of a shape; NaN where
    fewer than MIN_KNOWN of its points are known."""
    found = np.full(len(points), np.nan)
    for block in blocks(len(points), BLOCK):
        shapes = np.asarray(points[block], np.float64)
        known = np.asarray(np.isfinite(shapes).all(axis=2))
        enough = known.sum(axis=1) >= MIN_KNOWN
        if enough.any():
            squares = misfits(model, np.nan_to_num(shapes[enough]), known[enough])
            found[block][enough] = np.sqrt(_mean(squares, known[enough]))
    return found


def shape_reason(
    model: ShapeModel, shape: np.ndarray, flip_indices: np.ndarray | None, *, explained: float, few: float
) -> str:
    """In a few words, the repair that leaves at most the share `explained` of the squared distance of a (K, 2) shape:
    exchanging its sides, or leaving out at most the share `few` of its points. Empty if neither does."""
    known = np.asarray(np.isfinite(shape).all(axis=1))
    if known.sum() < MIN_KNOWN:
        return ""
    shapes = np.nan_to_num(shape.astype(np.float64))[None]
    squares = misfits(model, shapes, known[None])[0]
    most = explained * squares.sum()
    if flip_indices is not None:
        exchanged = misfits(model, shapes[:, flip_indices], known[None, flip_indices])
        if exchanged.sum() <= most:
            return "left and right are exchanged"
    far = _far_points(model, shapes, known, max(1, int(few * known.sum())), most=most)
    return f"few points are far off: {', '.join(map(str, far))}" if far else ""


def _far_points(model, shapes, known, count, *, most):
    """The numbers of at most `count` points without which the squared distance is at most `most`; none where there are
    no such. A few are left out at a time, since those that are far off draw the others after them."""
    kept, at_a_time = known.copy(), max(1, count // STEPS)
    while known.sum() - kept.sum() + at_a_time <= count and kept.sum() - at_a_time >= MIN_KNOWN:
        squares = misfits(model, shapes, kept[None])[0]
        kept[np.argsort(-squares, kind="stable")[:at_a_time]] = False
        if misfits(model, shapes, kept[None]).sum() <= most:
            return np.flatnonzero(known & ~kept).tolist()
    return []


def _mean(squares, known):
    return squares.sum(axis=1) / known.sum(axis=1)
