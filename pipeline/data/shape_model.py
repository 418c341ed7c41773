"""What shapes look like, learnt from shapes with missing points: probabilistic PCA.

A shape is a mean shape, plus a few factors times their loadings, plus noise, with a position and a scale of its own.
The position is two more factors of nearly any size, so a shape of which only an arm is known is not centred on that
arm. The scale is that at which its known points spread as the model expects of just these points. So neither depends on
which points are known, unlike the centre and size of the known points. For complete shapes they are centre and size.

Tipping and Bishop, Probabilistic principal component analysis, 1999; with missing values: Ilin and Raiko, Practical
approaches to principal component analysis in the presence of missing values, 2010. Place and scale: Gower, Generalized
Procrustes analysis, 1975.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

EXPLAINED = 0.995  # share of the variance of complete shapes that their factors hold
MAX_FACTORS = 20  # of incomplete ones
MAX_ROUNDS = 50
SETTLED = 1e-3  # relative change of the noise in a round
MIN_NOISE = 1e-6
ANYWHERE = 100.0  # standard deviation of the position, in sizes of a shape


@dataclass(frozen=True)
class ShapeModel:
    """How shapes of root mean square 1 look: mean (K, 2), loadings (K, 2, Q), and the variance of the noise."""

    mean: np.ndarray
    loadings: np.ndarray
    noise: float

    @property
    def axes(self) -> np.ndarray:
        """(K, 2, P): the loadings and those of the position, P = Q + 2."""
        position = np.broadcast_to(ANYWHERE * np.eye(2), (len(self.mean), 2, 2))
        return np.concatenate((self.loadings, position), axis=2)

    @cached_property
    def _products(self):
        """(K, P P) products of the axes with one another."""
        axes = self.axes
        return np.einsum("kcp,kcq->kpq", axes, axes).reshape(len(axes), -1)

    def scaled(self, shapes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The shapes (N, K, 2), scaled so that their known points spread as the model expects, and centred on them."""
        num_known, weights = known.sum(axis=1), known.astype(float)
        shapes = np.where(known[..., None], shapes, 0)
        shapes = np.where(known[..., None], shapes - (shapes.sum(axis=1) / num_known[:, None])[:, None], 0)
        parts = np.concatenate((self.mean[..., None], self.loadings), axis=2)
        centers = weights @ parts.reshape(len(parts), -1)
        expected = weights @ (parts**2).sum(axis=(1, 2)) - (centers**2).sum(axis=1) / num_known
        expected = expected + 2 * self.noise * (num_known - 1)
        return shapes * np.sqrt(expected / (shapes**2).sum(axis=(1, 2)).clip(min=1e-12))[:, None, None]

    def infer(self, scaled: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, P) expected factors of each shape given its known points, and (N, P, P) covariances over the noise.

        If all points are known, the covariances are all the same: (1, P, P).
        """
        axes = self.axes
        count = axes.shape[2]
        weights = known[:1] if known.all() else known
        precision = (weights.astype(float) @ self._products).reshape(-1, count, count) + self.noise * np.eye(count)
        offset = np.where(known[..., None], scaled - self.mean, 0)
        covariance = np.linalg.inv(precision)
        return (covariance @ np.tensordot(offset, axes, axes=2)[..., None])[..., 0], covariance

    def expected(self, factors: np.ndarray) -> np.ndarray:
        """(N, K, 2) the shapes that factors (N, P) make, at their position."""
        return self.mean + np.tensordot(factors, self.axes, axes=(1, 2))

    def completed(self, shapes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """(N, K, 2) shapes, scaled, with the expectation of each point that is unknown."""
        scaled = self.scaled(shapes, known)
        return np.where(known[..., None], scaled, self.expected(self.infer(scaled, known)[0]))

    def log_likelihood(self, scaled: np.ndarray, known: np.ndarray) -> np.ndarray:
        """(N,) of the known points of scaled shapes, in nats, up to a constant for each known point."""
        factors, covariance = self.infer(scaled, known)
        offset = np.where(known[..., None], scaled - self.mean, 0)
        explained = (factors * np.tensordot(offset, self.axes, axes=2)).sum(axis=1)
        misfit = ((offset**2).sum(axis=(1, 2)) - explained) / self.noise
        dimensions = 2 * known.sum(axis=1) - self.loadings.shape[2] - 2
        return -0.5 * (misfit - np.linalg.slogdet(covariance)[1] + dimensions * np.log(self.noise))


def fit_shapes(shapes: np.ndarray, known: np.ndarray) -> ShapeModel:
    """The model of shapes (N, K, 2), with any values where not known: (N, K) bool; at least two of each are known."""
    sizes = ShapeModel(np.zeros(shapes.shape[1:]), np.zeros((*shapes.shape[1:], 0)), noise=0.5).scaled(shapes, known)
    model = _of_complete(sizes, known)
    if known.all():
        return model
    for _ in range(MAX_ROUNDS):
        scaled = model.scaled(shapes, known)
        before, model = model, _maximised(scaled, known, *model.infer(scaled, known), noise=model.noise)
        if abs(model.noise - before.noise) < SETTLED * before.noise:
            break
    return model


def _of_complete(shapes, known):
    """The most likely model if everything is known, in closed form; if not, one to start from."""
    mean = shapes.sum(axis=0) / known.sum(axis=0)[:, None]
    offset = np.where(known[..., None], shapes - mean, 0).reshape(len(shapes), -1)
    variances, axes = _components(offset)
    deviations = np.sqrt(variances)
    count = max(1, min(len(mean) // 2, MAX_FACTORS))
    if known.all():
        count = int(np.searchsorted(np.cumsum(deviations**2), EXPLAINED * (deviations**2).sum())) + 1
    noise = max((deviations[count:] ** 2).sum() / max(2 * len(mean) - 2 - count, 1), MIN_NOISE)
    loadings = axes[:, :count] * np.sqrt(np.maximum(deviations[:count] ** 2 - noise, 0))
    return _sized(mean, loadings.reshape(*mean.shape, -1), noise)


def _components(offset):
    """The variances of (N, D) centred rows along their principal components, descending, and these components, as
    columns: as many as the smaller of N and D. It takes a quarter of the time of svd if D is 1,942 coordinates."""
    few = len(offset) < offset.shape[1]
    rows = offset.T if few else offset
    variances, axes = np.linalg.eigh(rows.T @ rows / len(offset))
    variances, axes = variances[::-1].clip(min=0), axes[:, ::-1]
    if few:  # they follow from those of the products of rows with one another
        axes = rows @ axes
        axes /= np.linalg.norm(axes, axis=0).clip(min=1e-12)
    return variances, axes


def _maximised(shapes, known, factors, covariance, *, noise):
    """The model under which scaled shapes with these factors are most likely."""
    num_shapes, num_points, _ = shapes.shape
    weights, covariance = known.astype(float), noise * covariance
    count = factors.shape[1] - 2
    ones = np.concatenate((factors[:, :-2], np.ones((num_shapes, 1))), axis=1)  # the mean is one more loading
    moments = np.einsum("np,nq->npq", ones, ones)
    moments[:, :count, :count] += covariance[:, :count, :count]
    normal = (weights.T @ moments.reshape(num_shapes, -1)).reshape(num_points, count + 1, count + 1)
    normal += np.diag([1e-2] * count + [0])  # keeps loadings small for points that are rarely known
    solved = np.empty((num_points, 2, count + 1))
    for axis in (0, 1):
        position = ANYWHERE * ones * factors[:, count + axis, None]
        position[:, :count] += ANYWHERE * covariance[:, :count, count + axis]
        right = shapes[..., axis].T @ ones - weights.T @ position
        solved[:, axis] = np.linalg.solve(normal, right[..., None])[..., 0]
    model = ShapeModel(solved[..., -1], solved[..., :-1], noise=0.0)
    products = np.einsum("kcp,kcq->kpq", model.axes, model.axes).reshape(num_points, -1)
    unsure = ((weights.T @ covariance.reshape(num_shapes, -1)) * products).sum()
    residual = (shapes - model.expected(factors))[known]
    noise = ((residual**2).sum() + unsure) / (2 * known.sum() - 2 * num_shapes)
    return _sized(model.mean, model.loadings, max(noise, MIN_NOISE))


def _sized(mean, loadings, noise):
    mean, loadings = mean - mean.mean(axis=0), loadings - loadings.mean(axis=0)
    squares = (mean**2).sum() + (loadings**2).sum() + 2 * noise * (len(mean) - 1)  # centred, the noise too
    size = np.sqrt(squares / len(mean))
    return ShapeModel(mean / size, loadings / size, noise / size**2)
