"""Shapes are learnt from their known points only, without a bias by which points these are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from pipeline.data import shape_model
from pipeline.data.shape_model import ShapeModel, fit_shapes


def made(count, seed=0, num_points=12):
    """(count, K, 2) shapes of three factors, each with its own position and scale; what they are without these."""
    rng = np.random.default_rng(seed)
    mean, loadings = rng.normal(0, 1, (num_points, 2)), rng.normal(0, 0.2, (num_points, 2, 3))
    shapes = mean + np.tensordot(rng.normal(size=(count, 3)), loadings, axes=(1, 2))
    shapes += rng.normal(0, 0.01, shapes.shape)
    shapes -= shapes.mean(axis=1, keepdims=True)
    shapes /= np.sqrt((shapes**2).sum(axis=(1, 2), keepdims=True) / num_points)
    return shapes * rng.uniform(20, 90, (count, 1, 1)) + rng.uniform(0, 200, (count, 1, 2)), shapes


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_missing_points_are_completed_to_where_they_were(share):
    seen, shapes = made(600)
    known = np.random.default_rng(1).random(seen.shape[:2]) >= share
    known[:, :5] = True
    completed = fit_shapes(seen, known).completed(np.where(known[..., None], seen, np.nan), known)
    completed -= completed.mean(axis=1, keepdims=True)
    completed /= np.sqrt((completed**2).sum(axis=(1, 2), keepdims=True) / seen.shape[1])
    off = np.linalg.norm(completed - shapes, axis=2)
    assert np.median(off[~known]) < 0.05
    assert np.median(np.linalg.norm(shapes - shapes.mean(axis=0), axis=2)[~known]) > 0.2


def test_the_mean_shape_does_not_depend_on_which_points_are_known():
    """Known points to the left as often as to the right, never together: their centers are far apart."""
    seen, shapes = made(2000, seed=2)
    left = shapes.mean(axis=0)[:, 0] < np.median(shapes.mean(axis=0)[:, 0])
    known = np.where(np.random.default_rng(3).random(len(seen))[:, None] < 0.5, left, ~left)
    known[:, :4] = True
    model = fit_shapes(seen, known)
    assert np.linalg.norm(model.mean - shapes.mean(axis=0), axis=1).max() < 0.1


@given(st.integers(0, 10_000))
def test_the_likelihood_is_that_of_the_normal_distribution_of_the_known_points(seed):
    rng = np.random.default_rng(seed)
    model = ShapeModel(rng.normal(0, 1, (5, 2)), rng.normal(0, 0.3, (5, 2, 2)), noise=0.01)
    shapes, known = rng.normal(0, 1, (3, 5, 2)), rng.random((3, 5)) < 0.7
    known[:, :2] = True
    axes = model.axes.reshape(10, -1)
    covariance = axes @ axes.T + model.noise * np.eye(10)
    for found, shape, there in zip(
        model.log_likelihood(shapes, known), shapes, np.repeat(known, 2, axis=1), strict=True
    ):
        normal = multivariate_normal(model.mean.ravel()[there], covariance[np.ix_(there, there)])
        expected = normal.logpdf(shape.ravel()[there]) + there.sum() / 2 * np.log(2 * np.pi)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)


def test_place_and_scale_of_complete_shapes_are_their_center_and_size():
    seen, shapes = made(200, seed=4)
    known = np.ones(seen.shape[:2], bool)
    np.testing.assert_allclose(fit_shapes(seen, known).scaled(seen, known), shapes, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_components_are_those_of_svd_be_there_more_shapes_than_coordinates_or_fewer(count):
    rows = np.random.default_rng(7).normal(size=(count, 40)) * np.linspace(3, 1, 40)
    rows -= rows.mean(axis=0)
    variances, axes = shape_model._components(rows)
    _, deviations, expected = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(variances, deviations**2 / count, atol=1e-9)
    there = variances > 1e-9  # along the others rows have no extent, and nothing is told
    np.testing.assert_allclose(np.abs((axes.T * expected).sum(axis=1))[there], 1, rtol=1e-9)


def test_fitting_makes_what_is_known_more_likely(monkeypatch):
    seen, _ = made(300, seed=5)
    known = np.random.default_rng(6).random(seen.shape[:2]) > 0.4
    likelihoods = []
    for rounds in (0, 1, 5, 25):
        monkeypatch.setattr(shape_model, "MAX_ROUNDS", rounds)
        model = fit_shapes(seen, known)
        likelihoods.append(model.log_likelihood(model.scaled(seen, known), known).mean())
    assert likelihoods == sorted(likelihoods)
