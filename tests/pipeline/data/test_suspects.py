"""Labels that are wrong come first, with the reason, whatever unit a check measures in."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.sample_weights import read_sample_weights
from pipeline.data.suspects import (
    LEAST,
    Suspect,
    duplicate_scores,
    errors_in_sizes,
    rank,
    reason_of,
    robust_scores,
    suspects_table,
)

PARTNERS = np.array([1, 0, 3, 2, 4, *range(5, 30)])
SHAPE = np.random.default_rng(0).uniform(0, 100, (30, 2))


def test_the_reason_is_what_explains_most_of_the_error():
    near = SHAPE + np.random.default_rng(1).normal(size=SHAPE.shape)
    pairs = np.arange(30).reshape(15, 2)[:, ::-1].ravel()
    assert reason_of(near, SHAPE[pairs], pairs) == "left and right are exchanged"
    assert reason_of(near, SHAPE[pairs], None) == ""
    assert reason_of(near, SHAPE + (20, -7), PARTNERS).startswith("all points are shifted by (20, -")
    middle = SHAPE.mean(axis=0)
    assert reason_of(near, middle + 3 * (SHAPE - middle), PARTNERS).startswith("all points are scaled by 2.98 and")
    two_off = SHAPE.copy()
    two_off[[3, 17]] += 60
    two_off[5] = np.nan
    assert reason_of(near, two_off, PARTNERS) == "few points are far off: 3, 17"
    rng = np.random.default_rng(2)
    assert reason_of(near, rng.permutation(SHAPE), PARTNERS) == ""


@given(st.integers(0, 10**6))
def test_there_is_no_reason_without_points_or_error(seed):
    points = np.random.default_rng(seed).uniform(0, 100, (6, 2))
    assert reason_of(points, points, np.arange(6)) == ""
    assert reason_of(points, np.full((6, 2), np.nan), np.arange(6)) == ""


@given(st.floats(1e-3, 1e3))
def test_scores_depend_on_no_unit_and_far_values_move_the_others_little(unit):
    values = np.exp(np.random.default_rng(0).normal(size=500))
    scores = robust_scores(values)
    assert scores.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(robust_scores(unit * values), scores, atol=1e-6)
    far = robust_scores(np.concatenate((values, np.full(20, 1e6))))
    assert np.abs(far[:500] - scores).max() < 0.3
    assert far[500:].min() > LEAST


def test_what_is_not_known_has_no_score():
    values = np.append(np.exp(np.random.default_rng(0).normal(size=50)), np.nan)
    assert np.isnan(robust_scores(values)).tolist() == [False] * 50 + [True]
    assert np.isnan(robust_scores(values[-10:])).all()  # too few for a median
    likelihoods = np.random.default_rng(0).normal(size=50)
    assert np.argmax(robust_scores(likelihoods)) == likelihoods.argmax()


def test_labels_of_the_same_pixels_are_held_tighter_than_those_of_a_film():
    near = np.append(np.exp(np.random.default_rng(0).normal(np.log(0.1), 0.4, 60)), [np.nan, np.nan, np.nan])
    exact = np.append(np.full(60, np.nan), [0.0, 0.1, np.nan])
    scores = duplicate_scores(exact, near)
    assert (scores[:60] < LEAST).all()
    assert scores[60] == 0
    assert scores[61] > LEAST
    assert np.isnan(scores[62])


def test_the_list_has_the_suspects_first_what_is_to_be_listed_and_as_many_as_asked():
    nan = np.nan
    scores = np.array([[0.1, 9.0, nan, nan, 1.0, nan], [2.0, nan, 5.0, nan, 0.0, nan]])
    assert rank(scores, listed=np.array([3]), count=1).tolist() == [1, 2, 3]
    assert rank(scores, listed=np.array([], int), count=3).tolist() == [1, 2, 0]
    assert rank(scores, listed=np.array([], int), count=10).tolist() == [1, 2, 0, 4]


def test_errors_in_sizes_are_those_of_the_prediction():
    points = np.stack([SHAPE, SHAPE, SHAPE])
    centred = SHAPE - SHAPE.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=1).mean())
    truth = points + np.array([[3, 4], [0, 0], [np.nan, np.nan]])[:, None]
    found = errors_in_sizes(points, truth)
    assert found[:2].tolist() == [pytest.approx(5 / size), 0]
    assert np.isnan(found[2])


def test_the_table_goes_back_into_training_once_it_is_edited(tmp_path):
    names = np.array(["a.jpg", "b, c.jpg", "d.jpg"])
    suspects = [Suspect(1, 9.5, ["x", "y"], 3.25, ["a.jpg"]), Suspect(0, float("nan"), [])]
    text = suspects_table(suspects, names)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0] == {
        "file_name": "b, c.jpg", "weight": "1", "score": "9.50", "reason": "x; y", "rms_error_px": "3.25",
        "duplicate_of": "a.jpg",
    }  # fmt: skip
    assert rows[1]["score"] == rows[1]["rms_error_px"] == ""
    (tmp_path / "s.csv").write_text(text)
    assert read_sample_weights(tmp_path / "s.csv", names) is None  # nothing is left out by itself
    (tmp_path / "s.csv").write_text(text.replace('"b, c.jpg",1', '"b, c.jpg",0'))
    assert read_sample_weights(tmp_path / "s.csv", names).tolist() == [1, 0, 1]
