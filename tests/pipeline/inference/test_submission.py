"""What is read back from a submission is what was predicted, in the order that was asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.blocks import ROWS
from pipeline.errors import UserError
from pipeline.inference.submission import read_submission, verify_submission, write_submission, write_uncertainty
from pipeline.metrics import score
from tools.score import read_both

names_of = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\t\0"), min_size=1, max_size=9),
    min_size=1,
    max_size=9,
    unique=True,
)


@given(names=names_of, length=st.integers(1, 6), decimals=st.integers(0, 4), seed=st.integers(0, 999))
def test_what_is_read_back_is_what_was_predicted(names, length, decimals, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "submission.csv"
    points = np.random.default_rng(seed).uniform(-50, 1500, (len(names), length, 2)).astype(np.float32)
    write_submission(path, names, points, decimals=decimals)
    verify_submission(path, names, points, decimals=decimals)
    found_names, found = read_submission(path)
    assert found_names == names
    assert np.abs(found - points).max() <= 0.5001 * 10.0**-decimals
    assert [entry.name for entry in path.parent.iterdir()] == ["submission.csv"]


@pytest.mark.parametrize("count", [ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 3])
def test_a_submission_of_many_rows_is_one_file_of_all_of_them(count, tmp_path):
    names, points = [f"{row}.jpg" for row in range(count)], np.arange(2.0 * count).reshape(count, 1, 2)
    write_submission(tmp_path / "s.csv", names, points, decimals=0)
    verify_submission(tmp_path / "s.csv", names, points, decimals=0)
    found_names, found = read_submission(tmp_path / "s.csv")
    assert found_names == names
    assert (found == points).all()
    points[-1, 0, 1] += 1
    with pytest.raises(AssertionError, match="other values"):
        verify_submission(tmp_path / "s.csv", names, points, decimals=0)


def test_the_form_is_the_contests(tmp_path):
    write_submission(
        tmp_path / "s.csv", ["a.jpg", "b.jpg"], np.array([[[1.6, -0.2], [2.49, 3]], [[4, 5], [6, 7]]]), decimals=0
    )
    assert (tmp_path / "s.csv").read_text() == (
        "file_name,Point_M0_X,Point_M0_Y,Point_M1_X,Point_M1_Y\na.jpg,2,0,2,3\nb.jpg,4,5,6,7\n"
    )


@pytest.mark.parametrize(("calibrated", "column"), [(True, "Point_M1_SD"), (False, "Point_M1_SPREAD")])
def test_deviations_say_in_their_header_whether_they_are_calibrated(calibrated, column, tmp_path):
    write_uncertainty(tmp_path / "u.csv", ["a", "b"], np.array([[1, 2], [3, np.nan]]), calibrated=calibrated)
    header, *rows = (tmp_path / "u.csv").read_text().splitlines()
    assert header.split(",")[2] == column
    assert rows == ["a,1.000,2.000", "b,3.000,"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_not_written_and_what_was_there_stays(value, tmp_path):
    names, points = [f"{row}.jpg" for row in range(ROWS + 5)], np.zeros((ROWS + 5, 2, 2))
    (tmp_path / "s.csv").write_text("earlier")
    points[ROWS + 2, 1, 0] = value
    with pytest.raises(UserError, match=f"point 1 of photo {ROWS + 2}.jpg"):
        write_submission(tmp_path / "s.csv", names, points, decimals=2)
    assert (tmp_path / "s.csv").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_values_are_rounded_and_never_cut_off():
    rng = np.random.default_rng(0)
    points = rng.uniform(-100, 400, (500, 30, 2))
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        write_submission(Path(folder) / "s.csv", [str(i) for i in range(500)], points, decimals=0)
        error = read_submission(Path(folder) / "s.csv")[1] - points
    assert abs(error.mean()) < 0.02  # cutting off would be -0.5 above zero
    assert np.mean(error**2) == pytest.approx(1 / 12, rel=0.05)


@pytest.mark.parametrize("spoil", ["order", "value", "row", "column"])
def test_a_submission_that_is_not_what_was_predicted_is_caught(tmp_path, spoil):
    names, points = ["a", "b", "c"], np.arange(12.0).reshape(3, 2, 2)
    wrong_names, wrong_points = list(names), points.copy()
    if spoil == "order":
        wrong_names = ["b", "a", "c"]
    elif spoil == "value":
        wrong_points[1, 1, 1] += 0.02
    elif spoil == "row":
        wrong_names, wrong_points = names[:2], points[:2]
    else:
        wrong_points = points[:, :1]
    write_submission(tmp_path / "s.csv", wrong_names, wrong_points, decimals=2)
    with pytest.raises(AssertionError, match=r"s\.csv"):
        verify_submission(tmp_path / "s.csv", names, points, decimals=2)


def test_the_score_is_that_of_the_contest_whatever_the_order_of_rows(tmp_path):
    truth = np.random.default_rng(1).uniform(0, 99, (5, 4, 2))
    names = list("abcde")
    write_submission(tmp_path / "truth.csv", names[::-1], truth[::-1], decimals=4)
    write_submission(tmp_path / "mine.csv", names, truth + 3, decimals=4)
    assert score(*read_both(tmp_path / "mine.csv", tmp_path / "truth.csv")).mse == pytest.approx(9, abs=1e-3)
    write_submission(tmp_path / "other.csv", names[:4], truth[:4], decimals=4)
    with pytest.raises(UserError, match="of the same photos"):
        read_both(tmp_path / "other.csv", tmp_path / "truth.csv")
    write_submission(tmp_path / "other.csv", [*names[:4], "images/e"], truth, decimals=4)
    with pytest.raises(UserError, match=r"other\.csv has no row of 'e', which .*truth\.csv has"):
        read_both(tmp_path / "other.csv", tmp_path / "truth.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,X,Y\na,1,two\n", "not a submission"),
        ("file_name,X,Y\na,1,2\nb,1,\n", "not a submission"),
        ("file_name,X,Y\na,1,2\nb,1,nan\n", "b has a value that is no number"),
        ("file_name,X,Y\na,1,2\na,1,3\n", "more than one row of a"),
        ("file_name,X\na,1\n", "x and y of each point"),
        ("file_name,X,Y\na,1,2\nb,1\n", r"bad\.csv .*line 3: 2 cells where the header has 3"),
        ("file_name,X,Y\na,1,2\n\nb,1,2,3\n", "line 4: 4 cells where the header has 3"),
        ("file_name,X,Y\na,1,2\nb\n", "line 3: 1 cells"),
        ("file_name,X,Y\na,1,1_0\nb,1,2\n", "line 2: a has a value that is no number"),
        ("file_name,X,Y\na,1,inf\nb,1,2\n", "line 2: a has a value that is no number"),
        ('file_name,X,Y\na,1,2\n"b,1,2\n', "unexpected end of data"),
        ("file_name,X,Y\n", "a header and no rows"),
        ("a,1,2\nb,1,2\n", "has no header, so its first photo would be lost"),
        ("", "x and y of each point"),
        ("file_name" + 400_000 * ",X" + "\na,1,2\n", "line 2: 3 cells where the header has 400001"),
        ("file_name" + 400_000 * ",X" + "\na" + 400_000 * ",1" + "\n", "has 200000 points on each of 1 photos"),
    ],
)
def test_what_is_no_submission_is_refused_and_not_scored(text, said, tmp_path):
    (tmp_path / "bad.csv").write_text(text)
    write_submission(tmp_path / "truth.csv", ["a", "b"], np.zeros((2, 1, 2)), decimals=0)
    with pytest.raises(UserError, match=said):
        read_both(tmp_path / "bad.csv", tmp_path / "truth.csv")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,X0,Y0,X1,Y1\na,1,1,2,2\nb,1,1\n", "line 3: 3 cells where the header has 5"),
        ("file_name,X0,Y0,X1,Y1\na,1,1,2,2\nb,1,1,2,\nc,1,1,2,2,\n", "line 4: 6 cells"),
        ("file_name,X0,Y0,X1,Y1\na,1,1,2,inf\n", "line 2: a has a value that is no number"),
        ("file_name,X0,Y0\na,,nan\n", "has no points"),
    ],
)
def test_labels_that_were_cut_have_no_missing_points_but_are_refused(text, said, tmp_path):
    (tmp_path / "truth.csv").write_text(text)
    write_submission(tmp_path / "mine.csv", ["a", "b"], np.zeros((2, 2, 2)), decimals=0)
    with pytest.raises(UserError, match=said):
        read_both(tmp_path / "mine.csv", tmp_path / "truth.csv")


def test_a_point_that_the_labels_lack_does_not_count(tmp_path):
    (tmp_path / "truth.csv").write_text("file_name,X0,Y0,X1,Y1\na,1,1,,\nb,1,1,nan,nan\nc,1,1,5,5\n")
    write_submission(tmp_path / "mine.csv", list("abc"), np.full((3, 2, 2), 3.0), decimals=0)
    assert score(*read_both(tmp_path / "mine.csv", tmp_path / "truth.csv")).mse == pytest.approx(4)
