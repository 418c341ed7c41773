"""Merging is exact, forgets the order of views, and its weights are the best convex ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from pipeline.inference.merge import blend, convex_weights, error_covariance, merge, spread

seeds = st.integers(0, 10_000)


def random_views(seed, views=4, photos=3, points=5):
    rng = np.random.default_rng(seed)
    return rng.normal(100, 30, (views, photos, points, 2)), rng.uniform(0.1, 1, (views, points)), rng


@given(seeds, st.integers(1, 9))
def test_equal_views_give_the_single_prediction_to_the_bit(seed, views):
    points, _, rng = random_views(seed, views=1)
    weights = rng.uniform(0.1, 1, views)
    same = np.repeat(points, views, axis=0)
    np.testing.assert_array_equal(merge(same, weights), points[0])
    np.testing.assert_array_equal(spread(same, weights), np.zeros(points.shape[1:3]))


@given(seeds)
def test_the_order_of_views_changes_nothing(seed):
    points, weights, rng = random_views(seed)
    counts = rng.random(points.shape[:3]) < 0.8
    order = rng.permutation(len(points))
    for found in (merge, spread):
        one, other = found(points, weights, counts), found(points[order], weights[order], counts[order])
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


@given(seeds)
def test_the_merge_is_numpys_weighted_average_of_what_counts(seed):
    points, weights, rng = random_views(seed)
    counts = rng.random(points.shape[:3]) < 0.7
    found = merge(points, weights, counts)
    for photo, point in np.ndindex(*counts.shape[1:]):
        share = weights[:, point] * counts[:, photo, point]
        share = share if share.any() else weights[:, point]
        np.testing.assert_allclose(found[photo, point], np.average(points[:, photo, point], axis=0, weights=share))


@given(seeds, st.integers(2, 6))
def test_convex_weights_are_the_best_there_are(seed, views):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(views, views + 2))
    covariance = root @ root.T
    weights = convex_weights(covariance)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(), 1)
    best = minimize(
        lambda w: w @ covariance @ w,
        np.full(views, 1 / views),
        bounds=[(0, 1)] * views,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert weights @ covariance @ weights <= best.fun * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize("shrink", [0.0, 0.3, 1.0])
def test_independent_errors_are_weighted_by_their_precision_and_shrunk_towards_equal(shrink):
    weights = convex_weights(np.diag([1.0, 4.0]), shrink=shrink)
    expected = np.array([1 / ((1 - shrink) * v / 2.5 + shrink) for v in (1.0, 4.0)])
    np.testing.assert_allclose(weights, expected / expected.sum(), atol=1e-6)


def test_error_covariance_is_that_of_its_definition_and_forgets_missing_points():
    points, _, _ = random_views(0)
    errors = points - 100
    found = error_covariance(errors)
    expected = np.einsum("vbkx,wbkx->kvw", errors, errors) / (2 * errors.shape[1])
    np.testing.assert_allclose(found, expected)
    errors[:, 1, 2] = np.nan
    assert np.isfinite(error_covariance(errors)).all()
    np.testing.assert_allclose(error_covariance(errors)[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])


@given(seeds)
def test_other_means_are_what_their_names_say(seed):
    points, _, rng = random_views(seed)
    weights = rng.uniform(0.1, 1, len(points))
    np.testing.assert_array_equal(blend(points, weights, method="median"), np.median(points, axis=0))
    np.testing.assert_allclose(blend(points, weights, method="power", power=1.0), merge(points, weights))
    np.testing.assert_allclose(blend(-points, weights, method="power"), -blend(points, weights, method="power"))
    square = np.sqrt(np.average(points**2, axis=0, weights=weights))
    positive = (points > 0).all(axis=0)
    np.testing.assert_allclose(blend(points, weights, method="power", power=2.0)[positive], square[positive])
    mixed = points * np.array([1, -1, 1, 1])[:, None, None, None]
    np.testing.assert_allclose(blend(mixed, weights, method="power")[positive], merge(mixed, weights)[positive])
