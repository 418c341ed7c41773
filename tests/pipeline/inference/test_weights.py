"""Fitted weights find the better parts, leave out what brings nothing, and are judged where they were not fitted."""

import numpy as np
import pytest

from pipeline.data.split import split_into_folds
from pipeline.inference.ensemble import variances_of
from pipeline.inference.merge import error_covariance, merge
from pipeline.inference.uncertainty import calibrate, calibration_of_merge, mean_calibration
from pipeline.inference.weights import POINT_SHRINKS, _each_point, fit_weights


def errors_of(deviations, *, photos=300, points=6, common=1.0, seed=0):
    """(V, N, K, 2) errors with a part that all views share; deviations: (V,) or (V, K)."""
    rng = np.random.default_rng(seed)
    deviations = np.asarray(deviations, float).reshape(len(deviations), 1, -1, 1)
    shared = common * rng.normal(size=(1, photos, points, 2))
    return shared + deviations * rng.normal(size=(len(deviations), photos, points, 2))


def everything(errors):
    return np.ones(errors.shape[:3], bool)


def test_better_views_weigh_more_and_beat_equal_weights_on_other_photos():
    errors = errors_of([0.5, 1.0, 2.0])
    fit = fit_weights(errors, everything(errors), np.arange(300), prune=False)
    assert fit.kind == "a weight a part"
    assert fit.weights[0] > fit.weights[1] > fit.weights[2]
    fresh = errors_of([0.5, 1.0, 2.0], seed=1)
    fitted, equal = ((merge(fresh, weights) ** 2).mean() for weights in (fit.weights, np.ones(3)))
    assert fitted < equal
    # What is reported is what other photos show.
    assert (fit.out_of_fold["chosen"] ** 2).mean() == pytest.approx(fitted, rel=0.1)


def test_weights_of_points_are_taken_where_views_are_good_at_different_points():
    deviations = [[0.5, 0.5, 0.5, 3, 3, 3], [3, 3, 3, 0.5, 0.5, 0.5]]
    errors = errors_of(deviations, photos=400)
    fit = fit_weights(errors, everything(errors), np.arange(400), prune=True)
    assert fit.kind.startswith("a weight a part and point")
    assert (fit.weights[0, :3] > 0.7).all()
    assert (fit.weights[1, 3:] > 0.7).all()
    assert (fit.out_of_fold["chosen"] ** 2).mean() < 0.9 * (fit.out_of_fold["a weight a part"] ** 2).mean()


def test_equal_views_have_equal_weights_and_a_view_that_brings_nothing_is_left_out():
    errors = errors_of([1.0, 1.0, 1.0, 9.0])
    fit = fit_weights(errors, everything(errors), np.arange(300), prune=True)
    assert fit.kind.endswith("3 of 4")
    np.testing.assert_allclose(fit.weights, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.02)


@pytest.mark.parametrize(("value", "photos"), [(np.nan, 3), (np.inf, 3), (np.inf, slice(None))])
def test_errors_that_are_no_numbers_are_not_taken_for_missing_truth(value, photos):
    errors = errors_of([1.0, 1.0])
    errors[:, 5] = np.nan  # a photo whose truth is missing
    errors[0, photos, 2] = value
    with pytest.raises(AssertionError, match="only the truth"):
        fit_weights(errors, everything(errors), np.arange(300), prune=True)


def test_a_copy_of_a_view_is_left_out():
    errors = errors_of([1.0, 1.0])
    copied = np.concatenate((errors, errors[:1]))
    fit = fit_weights(copied, everything(copied), np.arange(300), prune=True)
    assert (fit.weights > 0).sum() == 2


def test_noise_is_not_mistaken_for_skill():
    """On pure noise a fit is judged about as good as equal weights, not better: it is judged on other photos."""
    out_of_fold = []
    for seed in range(10):
        errors = errors_of([1.0] * 6, photos=40, points=4, common=0.0, seed=seed)
        fit = fit_weights(errors, everything(errors), np.arange(40), prune=False)
        out_of_fold.append((fit.out_of_fold["chosen"] ** 2).mean() / (fit.out_of_fold["equal weights"] ** 2).mean())
    assert np.mean(out_of_fold) > 0.99


def test_of_copies_of_one_view_one_is_left():
    errors = np.repeat(errors_of([1.0]), 4, axis=0)
    fit = fit_weights(errors, everything(errors), np.arange(300), prune=True)
    assert sorted(fit.weights) == [0, 0, 0, 1]


def test_few_photos_choose_nothing_that_is_worse_on_other_photos():
    """Each step of a choice may look sure where few photos are held out; the choice as a whole has to be as well."""
    changes = []
    for seed in range(8):
        views = [1.0] * 8
        errors, fresh = errors_of(views, photos=75, points=4, common=2.0, seed=seed), errors_of(views, seed=100 + seed)
        fit = fit_weights(errors, everything(errors), np.arange(75), prune=True)
        changes.append((merge(fresh, fit.weights) ** 2).mean() / (merge(fresh, np.ones(8)) ** 2).mean() - 1)
    assert max(changes) < 1e-3


def test_missing_points_and_cropped_views_do_not_spoil_the_fit():
    errors = errors_of([0.5, 1.0, 2.0])
    spoilt, counts = errors.copy(), everything(errors)
    spoilt[:, :50, 2] = np.nan
    spoilt[1, 100:150, 3] = 1e4
    counts[1, 100:150, 3] = False
    clean = fit_weights(errors, everything(errors), np.arange(300), prune=False)
    fit = fit_weights(spoilt, counts, np.arange(300), prune=False)
    np.testing.assert_allclose(fit.weights, clean.weights, atol=0.05)


def test_a_point_that_is_never_known_is_merged_as_the_others_are():
    errors = errors_of([0.5, 1.0, 2.0])
    errors[:, :, 2] = np.nan
    for shrink in POINT_SHRINKS:
        weights = _each_point(error_covariance(errors, everything(errors)), np.arange(3), shrink=shrink)
        assert weights[0, 2] > 0.6, "as good views weigh more in the others"


def test_a_few_photos_where_everything_fails_do_not_decide():
    errors = errors_of([0.5, 1.0, 2.0])
    spoilt = errors.copy()
    spoilt[:, 7:10] += 50.0
    fit = fit_weights(spoilt, everything(spoilt), np.arange(300) // 10, prune=True)
    assert fit.weights[0] > fit.weights[1] > fit.weights[2]
    assert (fit.out_of_fold["chosen"] ** 2).mean() > 20  # but they are in what is reported


def test_weights_and_pruning_that_raise_the_error_as_it_is_are_not_taken():
    """A view that is better on most photos and saves nothing of those that have most of the error."""
    errors = errors_of([0.5, 1.0, 2.0])
    errors[0, 7:10] += 60.0
    errors[1:, 7:10] += 50.0
    fit = fit_weights(errors, everything(errors), np.arange(300) // 10, prune=True)
    assert fit.kind == "equal weights"
    np.testing.assert_allclose(fit.weights, 1 / 3)


def test_folds_keep_groups_whole_and_are_of_about_equal_size():
    groups = np.random.default_rng(0).integers(0, 40, 500)
    folds = split_into_folds(groups, 5)
    assert set(folds) == set(range(5))
    for group in range(40):
        assert len(set(folds[groups == group])) == 1
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()
    assert set(split_into_folds(np.array([0, 0, 1]), 5)) == {0, 1}


def test_the_spread_of_one_view_says_nothing():
    errors = np.random.default_rng(0).normal(0, 2, (50, 6, 2))
    found = calibrate(errors, np.zeros((50, 6)), np.arange(50))
    assert found.floor == pytest.approx((errors**2).mean())
    assert found.factor == 1


def test_what_runs_that_share_no_photo_merge_to_is_expected_to_err_as_much_as_it_does():
    """Five runs with an error that they share, an error of their own, and views that differ by a part of it."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 2, (400, 20, 2)), rng.normal(0, 1.5, (5, 400, 20, 2))
    spreads = rng.uniform(0.2, 0.6, (5, 400, 20))
    runs = [calibrate(shared + one, spread, np.arange(400)) for one, spread in zip(own, spreads, strict=True)]
    points = shared + own
    within, between = variances_of(points, spreads**2, np.full(5, 0.2))
    found = np.sqrt((points.mean(axis=0) ** 2).mean())
    of_runs = mean_calibration(runs)
    of_merge = calibration_of_merge(of_runs, within.mean(), between.mean())
    expected = np.sqrt((of_merge.deviation(within + between) ** 2).mean())
    assert expected == pytest.approx(found, rel=0.03)
    assert np.sqrt((of_runs.deviation(within + between) ** 2).mean()) > 1.1 * found


@pytest.mark.parametrize("most", [10_000, 6_000, 1_000])
def test_a_calibration_on_a_part_of_the_coordinates_has_as_much_of_x_as_of_y(most, monkeypatch):
    monkeypatch.setattr("pipeline.inference.uncertainty.MAX_FITTED", most)
    errors = np.random.default_rng(0).normal(size=(400, 15, 2)) * (1, 2)
    found = calibrate(errors, np.zeros((400, 15)), np.arange(400))
    assert found.floor == pytest.approx((1 + 4) / 2, rel=0.1)


def test_a_half_of_the_groups_without_a_label_is_judged_by_the_whole():
    errors = np.random.default_rng(0).normal(size=(4, 3, 2))
    errors[[1, 3]] = np.nan
    found = calibrate(errors, np.zeros((4, 3)), np.arange(4))
    assert found.floor == pytest.approx((errors[[0, 2]] ** 2).mean())
    assert found.table
    assert all(np.isfinite(list(row.values())).all() for row in found.table)


def test_uncertainty_is_that_of_the_errors():
    rng = np.random.default_rng(0)
    spreads = rng.uniform(0, 3, (400, 30))
    deviations = np.sqrt(0.5 + 2.0 * spreads**2)
    errors = rng.normal(size=(400, 30, 2)) * deviations[..., None]
    errors[3, 4] = np.nan
    found = calibrate(errors, spreads, np.arange(400))
    assert found.floor == pytest.approx(0.5, rel=0.1)
    assert found.factor == pytest.approx(2.0, rel=0.1)
    np.testing.assert_allclose(found.deviation(spreads**2), deviations, rtol=0.06)
    for row in found.table:
        assert row["found"] == pytest.approx(row["expected"], rel=0.1)
        assert row["within one"] == pytest.approx(0.683, abs=0.03)
        assert row["within two"] == pytest.approx(0.954, abs=0.02)
