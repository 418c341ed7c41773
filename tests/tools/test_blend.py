"""Finished submissions are merged photo by photo, whatever the order of their rows, or refused."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.inference.merge import blend
from pipeline.inference.record import read_record, write_record
from pipeline.inference.submission import read_submission, write_submission
from tools import blend as module
from tools.blend import read_submissions, truncated

NAMES = [f"{number}.jpg" for number in range(40)]


@pytest.fixture
def submissions(tmp_path):
    """Three submissions of the same truth with errors of their own, rows in different orders."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 200, (40, 6, 2))
    points = truth + rng.normal(0, 1.5, (3, *truth.shape))
    for number, one in enumerate(points):
        order = rng.permutation(40)
        write_submission(tmp_path / f"{number}.csv", [NAMES[row] for row in order], one[order], decimals=4)
    return tuple(tmp_path / f"{number}.csv" for number in range(3)), points


def merged_by(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["blend", *map(str, arguments)])
    module.main()


@pytest.mark.parametrize(
    ("flags", "weights", "method"),
    [
        ([], [1, 1, 1], "weighted"),
        (["--weights", "3", "1", "0"], [3, 1, 0], "weighted"),
        (["--merge", "median"], [1, 1, 1], "median"),
        (["--merge", "power", "--power", "3"], [1, 1, 1], "power"),
        (["--merge", "rank"], [3, 2, 1], "weighted"),
    ],
)
def test_rows_are_merged_by_their_names(submissions, tmp_path, monkeypatch, flags, weights, method):
    paths, points = submissions
    merged_by(monkeypatch, *paths, "--output", tmp_path / "merged.csv", *flags, "--decimals", "3")
    names, found = read_submission(tmp_path / "merged.csv")
    expected = blend(points, np.array(weights, float), method=method, power=3.0)
    np.testing.assert_allclose(found[[names.index(name) for name in NAMES]], expected, atol=6e-4)


@pytest.mark.parametrize(
    ("flags", "mse"), [([], 5.0), (["--weights", "3", "1", "0"], 3.5), (["--merge", "median"], None)]
)
def test_of_a_mean_no_more_is_expected_than_of_its_parts_on_average(submissions, tmp_path, monkeypatch, flags, mse):
    paths, points = submissions
    for path, known in zip(paths, (3.0, 5.0, 7.0), strict=True):
        write_record(path, {}, expected={"mse": known, "low": known - 1, "high": known + 1, "of": "photos"})
    merged_by(monkeypatch, *paths, "--output", tmp_path / "merged.csv", *flags)
    found = read_record(tmp_path / "merged.csv")["expected"]
    assert found is None if mse is None else (found["mse"], found["low"], found["is_bound"]) == (mse, None, True)

    write_submission(paths[1], NAMES, points[1] + 1, decimals=4)  # another file than was noted
    merged_by(monkeypatch, *paths, "--output", tmp_path / "merged.csv", *flags)
    assert read_record(tmp_path / "merged.csv")["expected"] is None


def test_one_that_was_cut_to_integers_is_found_and_one_that_was_rounded_is_not(
    submissions, tmp_path, monkeypatch, capsys
):
    paths, points = submissions
    assert not truncated(points).any()
    assert not truncated(np.stack([points[0], points[1], np.rint(points[2])])).any()
    assert truncated(np.stack([points[0], np.floor(points[1]), points[2]])).tolist() == [False, True, False]
    floors = np.floor(points)
    assert truncated(np.stack([points[0], floors[1], floors[2]])).tolist() == [False, True, True]
    assert truncated(np.stack([points[0], floors[1], np.rint(points[2])])).tolist() == [False, True, False]
    assert not truncated(floors).any()  # nothing to see it by
    for number in (0, 2):
        write_submission(tmp_path / f"whole{number}.csv", NAMES, floors[number], decimals=0)
    merged_by(monkeypatch, *sorted(tmp_path.glob("whole*.csv")), "--output", tmp_path / "merged.csv")
    assert "cannot be told" in capsys.readouterr().out
    write_submission(paths[1], NAMES, np.floor(points[1]), decimals=0)
    merged_by(monkeypatch, *paths, "--output", tmp_path / "merged.csv")
    assert "1.csv was cut off" in capsys.readouterr().out


def test_submissions_of_other_photos_or_numbers_of_points_are_refused(submissions, tmp_path):
    paths, points = submissions
    write_submission(tmp_path / "fewer.csv", NAMES[:-1], points[0][:-1], decimals=2)
    write_submission(tmp_path / "narrow.csv", NAMES, points[0][:, :5], decimals=2)
    for other in ("fewer.csv", "narrow.csv"):
        with pytest.raises(UserError, match=other):
            read_submissions((paths[0], tmp_path / other))
    with pytest.raises(UserError, match="at least two"):
        read_submissions(paths[:1])


def test_weights_that_a_merge_does_not_use_are_refused(submissions, monkeypatch):
    for method in ("median", "rank"):
        with pytest.raises(UserError, match=f"--merge {method} has no use"):
            merged_by(monkeypatch, *submissions[0], "--merge", method, "--weights", "1", "2", "3")


@pytest.mark.parametrize("weights", [["1", "2"], ["1", "-1", "1"], ["0", "0", "0"], ["nan", "1", "1"]])
def test_weights_that_make_no_sense_are_refused(submissions, monkeypatch, weights):
    with pytest.raises(UserError, match="--weights"):
        merged_by(monkeypatch, *submissions[0], "--weights", *weights)
