"""The metric is the contest's, in pixels of the photos, and its interval is honest."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from sklearn.metrics import mean_squared_error

from augment import transform_points
from pipeline import metrics
from pipeline.blocks import blocks
from pipeline.errors import UserError
from pipeline.metrics import (
    check_predictions,
    errors_of_photos,
    mean_shape,
    mse_of_photos,
    normalised_mean_error,
    point_error_sums,
    score,
    to_photo_coordinates,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(0, 200, (40, 9, 2))
PREDICTED = TRUTH + RNG.normal(0, 3, TRUTH.shape)


def test_mse_is_the_mean_over_all_coordinates():
    found = score(PREDICTED, TRUTH)
    assert found.mse == pytest.approx(mean_squared_error(TRUTH.reshape(40, -1), PREDICTED.reshape(40, -1)))
    assert found.mse == pytest.approx(mse_of_photos(PREDICTED, TRUTH).mean())
    assert found.low < found.mse < found.high


@pytest.mark.parametrize("size", [1, 7, 39])
def test_scores_do_not_depend_on_how_many_photos_are_looked_at_at_a_time(size, monkeypatch):
    truth, predicted = TRUTH.copy(), PREDICTED.copy()
    truth[np.random.default_rng(1).random(truth.shape[:2]) < 0.3] = np.nan
    truth[7] = np.nan

    def measured():
        scores = score(predicted, truth, np.arange(40) // 3)
        return [*astuple(scores), *point_error_sums(predicted, truth), *errors_of_photos(predicted, truth)]

    at_once = measured()
    monkeypatch.setattr(metrics, "blocks", lambda count: blocks(count, size))
    for found, expected in zip(measured(), at_once, strict=True):
        np.testing.assert_allclose(found, expected)
    predicted[33, 4], truth[33, 4] = np.inf, 0
    with pytest.raises(UserError, match="point 4 of photo number 33"):
        measured()


def test_missing_points_do_not_count():
    truth = TRUTH.copy()
    truth[:, 0] = np.nan
    truth[3] = np.nan
    kept = np.delete(np.arange(40), 3)
    found = score(PREDICTED, truth)
    assert found.mse == pytest.approx(((PREDICTED - TRUTH)[kept, 1:] ** 2).mean())
    assert found.nme == pytest.approx(score(PREDICTED[kept, 1:], TRUTH[kept, 1:]).nme)


def test_nme_is_the_mean_distance_over_the_root_of_the_boxs_area():
    truth = np.array([[[0.0, 0.0], [40.0, 10.0]]])
    assert score(truth + (3, 4), truth).nme == pytest.approx(100 * 5 / 20)


def test_nme_has_a_size_for_points_on_one_line_and_none_for_a_single_point():
    """Two eyes at one height span a box without an area; against one pixel, an error of 5 would count as 500 %."""
    level = np.array([[[0.0, 7.0], [40.0, 7.0]]])
    assert score(level + (3, 4), level).nme == pytest.approx(100 * 5 / 10)
    alone = np.array([[[9.0, 9.0], [np.nan, np.nan]]])
    both = np.concatenate((level, alone))
    assert score(both + (3, 4), both).nme == pytest.approx(100 * 5 / 10)
    found = score(alone + (3, 4), alone)
    assert math.isnan(found.nme)
    assert "NME" not in str(found)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = score(rng.normal(0, 2, (60, 5, 2)), np.zeros((60, 5, 2)) + rng.normal(0, 0, (60, 5, 2)))
        covered += found.low <= 4 <= found.high
    assert 87 <= covered <= 100


def test_photos_without_a_label_leave_the_interval_as_it_is():
    """A resampling that held none but these had no mean, and the interval no ends."""
    truth = np.concatenate((TRUTH[:4], np.full((96, 9, 2), np.nan)))
    found, expected = (
        score(np.concatenate((PREDICTED[:4], np.zeros((96, 9, 2)))), truth),
        score(PREDICTED[:4], TRUTH[:4]),
    )
    assert (found.low, found.high) == (expected.low, expected.high)


def test_photos_of_a_group_are_not_independent():
    errors = np.repeat(RNG.uniform(0, 5, 20), 10)[:, None, None] * np.ones((200, 3, 2))
    alone = score(errors, np.zeros_like(errors))
    together = score(errors, np.zeros_like(errors), np.repeat(np.arange(20), 10))
    assert together.mse == alone.mse
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_mean_shape_is_the_mean_in_the_square_and_comes_home():
    photo_to_image = np.tile(np.eye(3), (40, 1, 1))
    photo_to_image[:, 0, 0] = photo_to_image[:, 1, 1] = RNG.uniform(0.3, 2, 40)
    photo_to_image[:, :2, 2] = RNG.uniform(-20, 20, (40, 2))
    shape = RNG.uniform(10, 50, (9, 2))
    photos = to_photo_coordinates(photo_to_image, shape)
    assert photos.shape == (40, 9, 2)
    np.testing.assert_allclose(transform_points(photo_to_image, photos), np.broadcast_to(shape, (40, 9, 2)))
    photos[5, 2] = np.nan
    np.testing.assert_allclose(mean_shape(photo_to_image, photos, np.arange(40)), shape)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("measure", [score, mse_of_photos, normalised_mean_error])
def test_a_prediction_that_is_no_number_is_an_error_with_the_photos_name(measure, value):
    """It was taken for a missing truth once: one photo 100 px off improved the score by being NaN."""
    names = np.array([f"{i}.jpg" for i in range(40)])
    predicted = PREDICTED.copy()
    predicted[[7, 12], 4, 1] = value
    with pytest.raises(UserError, match=r"point 4 of photo 7\.jpg .*2 of 40 photos"):
        measure(predicted, TRUTH, names=names)
    with pytest.raises(UserError, match="photo number 7"):
        measure(predicted, TRUTH)


def test_a_prediction_whose_truth_is_missing_may_be_anything():
    predicted, truth = PREDICTED.copy(), TRUTH.copy()
    truth[7, 4] = np.nan
    before = score(predicted, truth)
    predicted[7, 4] = np.nan
    assert score(predicted, truth) == before


def test_predictions_of_several_views_are_checked_at_once():
    predicted = np.stack([PREDICTED, PREDICTED])
    check_predictions(predicted, TRUTH)
    predicted[1, 30, 2, 0] = np.nan
    with pytest.raises(UserError, match=r"point 2 of photo number 30 .*1 of 40"):
        check_predictions(predicted, TRUTH)
