"""Regions are what a chain of neighbours connects, whatever the points are of; a file names them, or is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.regions import (
    MOST,
    OF_REGION,
    describe_regions,
    find_regions,
    read_regions,
    region_errors,
    regions_of,
    regions_text,
)
from pipeline.errors import UserError
from pipeline.metrics import point_error_sums, score


def curve(count, *, centre, radius, turn=2 * np.pi):
    angles = turn * np.arange(count) / count
    return np.array(centre) + radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)


def test_edges_that_lie_apart_are_regions_whatever_their_size_and_spacing():
    jaw = curve(17, centre=(0, 0), radius=100, turn=np.pi)
    eyes = [curve(6, centre=(x, -50), radius=8) for x in (-40, 40)]
    line = np.stack((np.zeros(9), np.linspace(-40, 30, 9)), axis=1)
    shape = np.concatenate((jaw, *eyes, line))
    assert list(find_regions(shape)) == ["0-16", "17-22", "23-28", "29-37"]
    order = np.random.default_rng(0).permutation(len(shape))
    found = {frozenset(order[points].tolist()) for points in find_regions(shape[order]).values()}
    assert found == {frozenset(points.tolist()) for points in find_regions(shape).values()}
    assert list(find_regions(3 * shape[:, ::-1] - 7)) == list(find_regions(shape))


@given(st.integers(1, 200), st.integers(0, 10**6))
def test_each_point_is_in_one_region(count, seed):
    shape = np.random.default_rng(seed).normal(size=(count, 2)).round(1)  # some lie on one another
    regions = find_regions(shape)
    assert sorted(np.concatenate(list(regions.values())).tolist()) == list(range(count))
    assert len(regions) <= MOST
    assert all(len(points) >= min(3, count) for points in regions.values())


def test_errors_of_regions_add_up_to_the_score():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(20, 9, 2))
    truth[rng.random(truth.shape[:2]) < 0.2] = np.nan
    truth[:, 8] = np.nan
    predicted = rng.normal(size=truth.shape)
    regions = {"a": np.array([0, 3]), "b": np.array([1, 2, 4, 5, 6, 7]), "none": np.array([8])}
    sums, counts = point_error_sums(predicted, truth)
    errors = region_errors(sums, counts, regions)
    shares = [counts[points].sum() / counts.sum() for points in regions.values()]
    assert np.dot(np.nan_to_num(list(errors.values())), shares) == pytest.approx(score(predicted, truth).mse)
    assert np.isnan(errors["none"])
    assert errors["a"] == pytest.approx(score(predicted[:, [0, 3]], truth[:, [0, 3]]).mse)


def test_regions_are_read_as_they_were_written(tmp_path):
    found = find_regions(np.random.default_rng(0).normal(size=(60, 2)))
    (tmp_path / "r.json").write_text(regions_text(found))
    again = regions_of(tmp_path / "r.json", np.zeros((60, 2)))
    assert {name: points.tolist() for name, points in again.items()} == {
        name: points.tolist() for name, points in found.items()
    }


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([], "it names no regions"),
        ({}, "it names no regions"),
        ({"": [0]}, "'' is no name"),
        ({"a\nb": [0]}, "is no name"),
        ({"jaw": []}, "jaw has no list of points"),
        ({"jaw": 3}, "jaw has no list of points"),
        ({"jaw": [0, 5]}, "jaw names '5'; points are numbers from 0 to 4"),
        ({"jaw": [True]}, "jaw names 'True'"),
        ({"jaw": [1, 1]}, "jaw names a point twice"),
    ],
)
def test_what_names_no_regions_is_refused_in_a_line(tmp_path, content, named):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        read_regions(path, 5)
    assert named in str(refused.value)
    assert str(refused.value).startswith(f"--regions {path}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_no_json_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_regions(tmp_path / "r.json", 5)
    (tmp_path / "r.json").write_text("{" * 5)
    with pytest.raises(UserError, match="it takes a JSON object"):
        read_regions(tmp_path / "r.json", 5)


def test_of_many_regions_the_worst_and_the_best_are_said():
    errors = {"a": 2.0, "b": 5.0, "unlabelled": float("nan"), "c": 1.0, "d": 4.0}
    row = {f"{OF_REGION}{name}": error for name, error in errors.items()}
    assert describe_regions(row) == "b 5.0, d 4.0, a 2.0, c 1.0"
    assert describe_regions(row, shown=3) == "b 5.0, d 4.0 … c 1.0"
