"""Shapes are odd by what they are, wherever and however large they are, and though many are odd alike."""

import numpy as np
import pytest

from pipeline.data.odd_shapes import MIN_KNOWN, fit_usual_shapes, shape_distances, shape_reason

NUM_SHAPES, NUM_POINTS = 400, 20
PARTNERS = np.arange(NUM_POINTS).reshape(-1, 2)[:, ::-1].ravel()


@pytest.fixture(scope="module")
def shapes():
    """Symmetric shapes that differ in two ways, in position and in size; some points are missing."""
    rng = np.random.default_rng(0)
    half = rng.uniform((5, -50), (50, 50), (NUM_POINTS // 2, 2))
    mean = np.stack((half, half * (-1, 1)), axis=1).reshape(-1, 2)
    ways = 6 * rng.normal(size=(2, NUM_POINTS, 2))
    drawn = mean + np.tensordot(rng.normal(size=(NUM_SHAPES, 2)), ways, axes=1)
    drawn += 0.5 * rng.normal(size=drawn.shape)
    shapes = rng.uniform(0.5, 3, (NUM_SHAPES, 1, 1)) * drawn + rng.uniform(0, 300, (NUM_SHAPES, 1, 2))
    shapes[rng.random(shapes.shape[:2]) < 0.02] = np.nan
    return shapes.astype(np.float32)


def changed(shapes, rows, change):
    shapes = shapes.copy()
    shapes[rows] = change(shapes[rows])
    return shapes


def distances(shapes):
    return shape_distances(fit_usual_shapes(shapes, np.arange(len(shapes))), shapes)


def test_exchanged_sides_are_odd_though_one_in_fifty_is(shapes):
    """As a factor of a model of all shapes they would be usual ones."""
    rows = np.arange(0, NUM_SHAPES, 50)
    wrong = changed(shapes, rows, lambda some: some[:, PARTNERS])
    found = distances(wrong)
    assert set(np.argsort(-found)[: len(rows)]) == set(rows)
    model = fit_usual_shapes(wrong, np.arange(NUM_SHAPES))
    options = {"explained": 0.25, "few": 0.1}
    assert shape_reason(model, wrong[50], PARTNERS, **options) == "left and right are exchanged"
    assert shape_reason(model, wrong[50], None, **options) == ""
    assert shape_reason(model, wrong[51], PARTNERS, **options) == ""


def test_points_that_are_far_off_are_named(shapes):
    wrong = shapes.copy()
    wrong[7, [3, 11]] = np.nan_to_num(wrong[7, [3, 11]]) + 150
    found = distances(wrong)
    assert found.argmax() == 7
    model = fit_usual_shapes(wrong, np.arange(NUM_SHAPES))
    assert shape_reason(model, wrong[7], PARTNERS, explained=0.25, few=0.2) == "few points are far off: 3, 11"


def test_position_and_size_are_not_odd(shapes):
    model = fit_usual_shapes(shapes, np.arange(NUM_SHAPES))
    moved = 5 * shapes + (1000, -300)
    np.testing.assert_allclose(shape_distances(model, moved), shape_distances(model, shapes), rtol=1e-2, atol=1e-4)


def test_shapes_of_too_few_points_are_not_judged(shapes):
    wrong = shapes.copy()
    wrong[3, MIN_KNOWN - 1 :] = np.nan
    wrong[4] = np.nan
    found = distances(wrong)
    assert np.isnan(found[[3, 4]]).all()
    assert np.isfinite(np.delete(found, [3, 4])).all()
    model = fit_usual_shapes(wrong, np.arange(NUM_SHAPES))
    assert shape_reason(model, wrong[4], PARTNERS, explained=0.25, few=0.1) == ""
    assert fit_usual_shapes(wrong[:10], np.arange(10)) is None
    wrong[:, 5] = np.nan
    assert fit_usual_shapes(wrong, np.arange(NUM_SHAPES)) is None
