"""The flip indices, the left/right partners of the points, found from the training points: right, or refused
with the reason.

A mirrored face needs its points renumbered: its left eye is where the right one was. The contest does not say
which points are partners, but their shapes do: mirror the mean shape, match it to itself, and test the result
on shapes that took no part. Wrong flip indices are worse than none, so each test can only refuse.

Left and right are the subject's own: the left hand of somebody seen from behind is on the left of the photo, and its
partner is still the right hand. If as many are seen from behind as from the front, shapes alone look as if nothing had
to be renumbered; flip indices without pairs are therefore refused.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA

from pipeline.data.shape_model import fit_shapes

MIN_SHAPES = 50
MIN_COMPLETE = 0.5  # share of complete shapes, from which on only these are looked at
MAX_SHAPES = 2000
NUM_STRETCHES = 20  # of a table
MIN_KNOWN = 3  # points of a shape that is not complete
MIN_SEEN = 25  # shapes of either half in which a point is known
MIN_TOGETHER = 30  # shapes in which two points are known, to judge from these alone whether the two are exchanged
EXPLAINED = 0.995  # share of the shapes' variance that their principal components hold
MAX_ROUNDS = 20
NUM_NEIGHBOURS = 4  # with which a point is exchanged, besides its partner
FAR, SAME_WAY = 0.2, 0.5  # two points of the axis so far apart lie the same way from one another, on the whole
HARMLESS = 0.05  # of the size of a shape: points that always lie closer together may be confused


@dataclass(frozen=True)
class Limits:
    """What flip indices are held to. The limits are tighter if points are missing and each test sees less.

    mean_residual: of the size of the mean shape, its distance to its mirror image; 0.05 on 3,545 real faces.
    offset: of that size, the distance of any point to its mirror image; 0.11 on real faces, 0.17 or more in bodies in
        which a joint has no partner.
    point_ratio: for any point, its median squared residual in mirrored shapes over that in shapes; 1.3 on real faces,
        3.9 on 64 drawn ones. If wrong ones exchange two neighbours of complete faces, 6.7 or more.
    percentile: of the shapes, whose likelihood the median mirrored one has to reach.
    lost: nats per point by which mirrored shapes are less likely; 0.08 on real faces, 0.2 or more in most wrong ones.
    certainty: standard errors by which exchanging two points makes mirrored shapes less likely.
    """

    mean_residual: float
    offset: float
    point_ratio: float
    percentile: float
    lost: float
    certainty: float


COMPLETE = Limits(mean_residual=0.2, offset=np.inf, point_ratio=5.0, percentile=5.0, lost=np.inf, certainty=0.0)
INCOMPLETE = Limits(mean_residual=0.1, offset=0.15, point_ratio=2.5, percentile=0.0, lost=0.15, certainty=4.0)


class NoSymmetry(Exception):
    """The points have no mirror symmetry that can be trusted; the text says why."""


def find_flip_indices(points: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(K,) int: the partner of each point under mirroring; a point on the axis is its own.

    points: (N, K, 2); the rows at `samples` are looked at; a missing point is NaN. Complete shapes are looked at, and
    if they are fewer than half of all, incomplete ones too, completed by what the others look like.

    The mean shape is mirrored and matched to itself. Faces that look more to one side than to the other bend that
    match, so it is then refined: each mirrored shape is matched to what the shapes' principal components expect of
    it. Points that always lie together may be confused, which does no harm.

    Raises NoSymmetry if the match does not settle, is no involution or pairs no points, if the mean shape is not
    symmetric, if points of the axis change places, or if mirrored shapes are not about as likely as shapes, or are as
    likely with two points exchanged.
    """
    if points.shape[1] == 1:
        raise NoSymmetry("a single point has no partner")
    shapes, known = _chosen(points, samples)
    limits = COMPLETE if known.all() else INCOMPLETE
    complete = _normalised(shapes if known.all() else fit_shapes(shapes, known).completed(shapes, known))
    mean = complete.mean(axis=0)
    distances = np.linalg.norm(_mirrored(mean)[:, None] - mean, axis=2)
    flip_indices = _refine(linear_sum_assignment(distances**2)[1], complete)
    if (wrong := flip_indices[flip_indices] != np.arange(len(mean))).any():
        raise NoSymmetry(f"points {np.flatnonzero(wrong)[:5].tolist()} match no partner that matches them")
    if (flip_indices == np.arange(len(mean))).all():
        raise NoSymmetry("no two points mirror each other")
    offsets = distances[np.arange(len(mean)), flip_indices]
    if (residual := np.linalg.norm(offsets) / np.linalg.norm(mean)) > limits.mean_residual:
        raise NoSymmetry(f"the mean shape is not symmetric: it misses its mirror image by {residual:.0%} of its size")
    if offsets.max() > limits.offset:
        raise NoSymmetry(f"point {offsets.argmax()} misses its mirror image by {offsets.max():.0%} of the shape's size")
    _check_axis(complete, known, flip_indices)
    _check_likelihood(shapes, known, flip_indices, limits)
    return flip_indices


def _refine(flip_indices, shapes):
    """Matches mirrored shapes to what the principal components make of them, until the match stays as it is."""
    mirrored = _mirrored(shapes)
    components = PCA(EXPLAINED, svd_solver="full").fit(shapes.reshape(len(shapes), -1))
    for _ in range(MAX_ROUNDS):
        coordinates = components.transform(mirrored[:, flip_indices].reshape(len(shapes), -1))
        expected = components.inverse_transform(coordinates).reshape(shapes.shape)
        gain = np.tensordot(expected, mirrored, axes=([0, 2], [0, 2]))  # the squares do not depend on the match
        before, flip_indices = flip_indices, linear_sum_assignment(gain, maximize=True)[1]
        if (flip_indices == before).all():
            return flip_indices
    raise NoSymmetry(f"no match settles in {MAX_ROUNDS} rounds")


def _check_axis(shapes, known, flip_indices):
    """Checks that points that are their own partners keep their order along the axis.

    If as many are seen from behind as from the front, two hands lie left and right of the axis by turns, so that their
    means lie on it. What tells them from points of the axis is that the vector from one to the other turns round.
    """
    on_axis = np.flatnonzero(flip_indices == np.arange(len(flip_indices)))
    for index, i in enumerate(on_axis):
        apart = shapes[:, on_axis[index + 1 :]] - shapes[:, i, None]
        both = (known[:, on_axis[index + 1 :]] & known[:, i, None])[..., None]
        counts = both.sum(axis=0).clip(min=1)
        mean = np.linalg.norm((apart * both).sum(axis=0) / counts, axis=1)
        size = np.sqrt(((apart * both) ** 2).sum(axis=(0, 2)) / counts[:, 0])
        turning = (size > FAR) & (mean < SAME_WAY * size)
        if turning.any():
            j = on_axis[index + 1 + turning.argmax()]
            raise NoSymmetry(f"points {i} and {j} change places from shape to shape, so neither lies on the axis")


def _check_likelihood(shapes, known, flip_indices, limits):
    """Checks that mirrored shapes are about as likely as shapes, under a model of the other half of them."""
    middle = len(shapes) // 2
    model = fit_shapes(shapes[:middle], known[:middle])
    shapes, known = model.scaled(shapes[middle:], known[middle:]), known[middle:]
    mirrored, shown = _mirrored(shapes)[:, flip_indices], known[:, flip_indices]
    residuals = []
    for x, there in ((mirrored, shown), (shapes, known)):
        squared = ((x - model.expected(model.infer(x, there)[0])) ** 2).sum(axis=2)
        residuals.append(np.nanmedian(np.where(there, squared, np.nan), axis=0))
    ratio = residuals[0] / np.maximum(residuals[1], 1e-12)
    if ratio.max() > limits.point_ratio:
        raise NoSymmetry(
            f"point {ratio.argmax()} is not where it is expected in mirrored shapes (ratio {ratio.max():.1f})"
        )
    usual, found = model.log_likelihood(shapes, known), model.log_likelihood(mirrored, shown)
    lost = (usual - found).mean() / known.sum(axis=1).mean()
    if lost > limits.lost or np.median(found) < np.percentile(usual, limits.percentile):
        raise NoSymmetry(f"mirrored shapes are less likely than shapes (by {lost:.1f} nats a point)")
    _check_exchanges(model, mirrored, shown, flip_indices, limits)


def _check_exchanges(model, mirrored, known, flip_indices, limits):
    """Checks that mirrored shapes become less likely when any two points that lie apart are exchanged.

    It finds what the other tests cannot see, such as the legs of animals seen from the side: any two pass for a pair.
    """
    factors, covariance = model.infer(mirrored, known)
    misfit = mirrored - model.expected(factors)
    for i, j in _exchanges(model.completed(mirrored, known), flip_indices):
        both, either = known[:, i] & known[:, j], known[:, i] | known[:, j]
        if both.sum() >= MIN_TOGETHER:  # then everything that changes is a quadratic form in the two points
            apart = mirrored[both, j] - mirrored[both, i]
            along = apart @ (model.axes[i] - model.axes[j])
            worse = 2 * (apart * (apart + misfit[both, i] - misfit[both, j])).sum(axis=1)
            spread = covariance if known.all() else covariance[both]
            worse = worse - ((along[:, None] @ spread)[:, 0] * along).sum(axis=1)
        else:
            order = np.arange(len(flip_indices))
            order[[i, j]] = j, i
            worse = model.log_likelihood(mirrored[either], known[either])
            worse = worse - model.log_likelihood(mirrored[either][:, order], known[either][:, order])
        certainty = worse.mean() / max(worse.std(), 1e-12) * np.sqrt(len(worse))
        if certainty < limits.certainty:
            raise NoSymmetry(f"mirrored shapes do not tell points {i} and {j} apart ({certainty:.1f} standard errors)")


def _exchanges(shapes, flip_indices):
    """Pairs of points to exchange: partners, and those that lie closest together but not always in one spot."""
    flat = shapes.transpose(1, 0, 2).reshape(len(flip_indices), -1)
    squares = (flat**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0) / len(shapes))
    near = np.argsort(distances, axis=1)[:, : 1 + NUM_NEIGHBOURS]
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(near) for j in (flip_indices[i], *row)}
    return sorted(pair for pair in pairs if pair[0] != pair[1] and distances[pair] > HARMLESS)


def _chosen(points, samples):
    """At most MAX_SHAPES shapes of all parts of the table, and (N, K) bool: which points of them are known.

    They are complete, or, if those are too few, as complete as there are. They are in the order of the table, in which
    frames of one film lie together, so that the two halves show different people. If photos of one source, which have
    points that others lack, lie together too, the halves take alternate stretches of the table. Raises NoSymmetry if
    there are too few shapes.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(samples)[: 2 * MAX_SHAPES])
    shapes = np.asarray(points[chosen], np.float64)
    known = np.asarray(np.isfinite(shapes).all(axis=2))
    enough = np.asarray(known.all(axis=1))
    if enough.sum() < max(MIN_SHAPES, MIN_COMPLETE * len(shapes)):
        enough = known.sum(axis=1) >= min(MIN_KNOWN, known.shape[1])
    usable = np.flatnonzero(enough)
    usable = usable[np.linspace(0, len(usable) - 1, min(len(usable), MAX_SHAPES)).round().astype(int)]
    if _times_seen(known[usable]).min() < MIN_SEEN:
        stretches = np.array_split(usable, NUM_STRETCHES)
        usable = np.concatenate((*stretches[::2], *stretches[1::2]))
    shapes, known = shapes[usable], known[usable]
    if len(shapes) < MIN_SHAPES:
        raise NoSymmetry(f"{len(shapes)} photos have {MIN_KNOWN} points or more; {MIN_SHAPES} are needed to tell")
    if (seen := _times_seen(known)).min() < MIN_SEEN:
        count = known[:, seen.argmin()].sum()
        raise NoSymmetry(f"point {seen.argmin()} is known in {count} of {len(shapes):,} photos, too few to tell")
    return shapes, known


def _times_seen(known):
    """(K,) in how many shapes each point is known, in that half of them in which these are fewer."""
    middle = len(known) // 2
    return np.minimum(known[:middle].sum(axis=0), known[middle:].sum(axis=0))


def _normalised(shapes):
    """Centred and scaled to a root mean square of 1."""
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    return shapes / np.sqrt((shapes**2).sum(axis=2).mean(axis=1)).clip(min=1e-9)[:, None, None]


def _mirrored(shapes):
    return shapes * (-1.0, 1.0)
