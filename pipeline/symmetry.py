"""The left/right permutation of the points, found from the training points: right, or refused with the reason.

A mirrored face needs its points renumbered: its left eye is where the right one was. The contest does not say
which points are partners, but their shapes do: mirror the mean shape, match it to itself, and test the result
on shapes that took no part. A wrong permutation is worse than none, so each test can only refuse.
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA

from pipeline.errors import UserError

MIN_SHAPES = 50
MAX_SHAPES = 2000
EXPLAINED = 0.995  # share of the shapes' variance that their principal components hold
MAX_ROUNDS = 20

# Of right permutations the first two were at most 0.05 and 1.3 on 3,545 real faces, 0.05 and 3.9 on 64 drawn ones. Of
# wrong ones that exchange two neighbours the second was 6.7 or more; off by one along the outline, 1,900.
MAX_MEAN_RESIDUAL = 0.2  # of the size of the mean shape: its distance to its mirror image
MAX_POINT_RATIO = 5.0  # of any point: its median squared residual in mirrored shapes over that in shapes
MIN_PERCENTILE = 5.0  # the median mirrored shape is at least as likely as this percentile of the shapes


class NoSymmetry(Exception):
    """The points have no mirror symmetry that can be trusted; the text says why."""


def find_permutation(points: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(K,) int: the partner of each point under mirroring; a point on the axis is its own.

    points: (N, K, 2), of which the rows at `samples` are looked at.

    The mean shape is mirrored and matched to itself. Faces that look more to one side than to the other bend that
    match, so it is then refined: each mirrored shape is matched to what the shapes' principal components expect of
    it. Points that always lie together may be taken for each other, which does no harm.

    Raises NoSymmetry where the match does not settle or is no involution, where the mean shape is not symmetric, or
    where mirrored shapes are not about as likely as shapes.
    """
    shapes = _normalised(points, samples)
    mean = shapes.mean(axis=0)
    distances = np.linalg.norm(_mirrored(mean)[:, None] - mean, axis=2)
    permutation = _refine(linear_sum_assignment(distances**2)[1], shapes)
    if (wrong := permutation[permutation] != np.arange(len(mean))).any():
        raise NoSymmetry(f"points {np.flatnonzero(wrong)[:5].tolist()} match no partner that matches them")
    residual = np.linalg.norm(distances[np.arange(len(mean)), permutation]) / np.linalg.norm(mean)
    if residual > MAX_MEAN_RESIDUAL:
        raise NoSymmetry(f"the mean shape is not symmetric: it misses its mirror image by {residual:.0%} of its size")
    _check_likelihood(shapes, permutation)
    return permutation


def _refine(permutation, shapes):
    """Matches mirrored shapes to what the principal components make of them, until the match stays as it is."""
    mirrored = _mirrored(shapes)
    components = PCA(EXPLAINED, svd_solver="full").fit(shapes.reshape(len(shapes), -1))
    for _ in range(MAX_ROUNDS):
        coordinates = components.transform(mirrored[:, permutation].reshape(len(shapes), -1))
        expected = components.inverse_transform(coordinates).reshape(shapes.shape)
        gain = np.tensordot(expected, mirrored, axes=([0, 2], [0, 2]))  # the squares do not depend on the match
        before, permutation = permutation, linear_sum_assignment(gain, maximize=True)[1]
        if (permutation == before).all():
            return permutation
    raise NoSymmetry(f"no match settles in {MAX_ROUNDS} rounds")


def _check_likelihood(shapes, permutation):
    """Whether mirrored shapes are about as likely as shapes, under principal components of the other half of them."""
    num_points, middle = len(permutation), len(shapes) // 2
    known, new = (half.reshape(len(half), -1) for half in (shapes[:middle], shapes[middle:]))
    mirrored = _mirrored(shapes[middle:])[:, permutation].reshape(new.shape)
    components = PCA(EXPLAINED, svd_solver="full").fit(known)
    residuals = [
        np.median(
            ((x - components.inverse_transform(components.transform(x))) ** 2).reshape(-1, num_points, 2).sum(2), axis=0
        )
        for x in (mirrored, new)
    ]
    ratio = residuals[0] / np.maximum(residuals[1], 1e-12)
    if ratio.max() > MAX_POINT_RATIO:
        raise NoSymmetry(
            f"point {ratio.argmax()} is not where it is expected in mirrored shapes (ratio {ratio.max():.1f})"
        )
    usual = np.percentile(components.score_samples(new), MIN_PERCENTILE)
    if (found := np.median(components.score_samples(mirrored))) < usual:
        raise NoSymmetry(f"mirrored shapes are less likely than shapes (log-likelihood {found:.0f}, usual {usual:.0f})")


def _normalised(points, samples):
    """Complete shapes, at most MAX_SHAPES, in the order of the table, centred and scaled to a root mean square of 1."""
    chosen = np.random.default_rng(0).permutation(samples)[: 2 * MAX_SHAPES]
    shapes = np.asarray(points[np.sort(chosen)], np.float64)
    shapes = shapes[np.isfinite(shapes).all(axis=(1, 2))][:MAX_SHAPES]
    if len(shapes) < MIN_SHAPES:
        raise NoSymmetry(f"{len(shapes)} photos have all their points; {MIN_SHAPES} are needed to tell")
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    return shapes / np.sqrt((shapes**2).sum(axis=2).mean(axis=1)).clip(min=1e-9)[:, None, None]


def _mirrored(shapes):
    return shapes * (-1.0, 1.0)


def read_permutation(path: Path, num_points: int) -> np.ndarray:
    """A permutation that a user gives: a JSON list with the partner of each point.

    Raises UserError where it is not one, or not an involution.
    """
    try:
        permutation = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"--permutation {path}: {error}; it takes a JSON list with the partner of each point"
        ) from error
    if not isinstance(permutation, list) or sorted(map(str, permutation)) != sorted(map(str, range(num_points))):
        raise UserError(f"--permutation {path}: not a list that names each of the points 0..{num_points - 1} once")
    permutation = np.array(permutation, int)
    if (wrong := permutation[permutation] != np.arange(num_points)).any():
        point = wrong.argmax()
        partner = permutation[point]
        raise UserError(f"--permutation {path}: {point} has partner {partner}, whose partner is {permutation[partner]}")
    return permutation
