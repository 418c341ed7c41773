"""Whatever stands in a submission or in labels, it is scored and merged as it stands there, or refused in a line."""

import csv
import io
import math
from contextlib import redirect_stdout

import numpy as np
import pytest

from pipeline.inference.submission import read_submission
from pipeline.metrics import score
from tests.fuzz.campaign import NUM_CASES, campaign, check_line, one_of, tried
from tests.fuzz.damage import remove, spoil_file
from tools import blend
from tools.blend import read_submissions
from tools.score import read_both

NAMES = [f"{index}.jpg" for index in range(12)]
NUM_POINTS = 4


@pytest.fixture
def tables(tmp_path):
    """Paths of a submission, of one with other rows, and of labels with a gap, each with its bytes."""
    rng = np.random.default_rng(0)
    found = {}
    for name in ("submission.csv", "other.csv", "truth.csv"):
        rows = [[photo, *(f"{value:.2f}" for value in rng.uniform(-9, 400, 2 * NUM_POINTS))] for photo in NAMES]
        if name == "truth.csv":
            rows[3][1] = rows[3][2] = ""
        header = ["file_name", *(f"Point_M{point}_{axis}" for point in range(NUM_POINTS) for axis in "XY")]
        lines = [",".join(row) for row in [header, *(rows if name != "other.csv" else rows[::-1])]]
        found[tmp_path / name] = "\n".join([*lines, ""]).encode()
    return found


def put(tables, *, spoiled=None, rng=None):
    for path, content in tables.items():
        remove(path)
        path.write_bytes(content)
        if path == spoiled:
            spoil_file(path, rng)


def as_it_stands(path):
    """Rows of numbers by name, read as the form is meant, by Python alone."""
    _, *rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
    return {row[0]: [float(cell.strip() or "nan") for cell in row[1:]] for row in rows if row}


def test_a_score_is_that_of_what_stands_there(tables):
    submission, _, truth = tables

    def check(rng):
        spoiled = one_of(rng, (submission, truth))
        put(tables, spoiled=spoiled, rng=rng)
        outcome = tried(lambda: score(*read_both(submission, truth)))
        if outcome.refused:
            check_line(outcome.refused, spoiled, "the prediction of point")
            return "refused"
        predicted, true = as_it_stands(submission), as_it_stands(truth)
        assert predicted.keys() == true.keys()
        squares = [
            (one - other) ** 2
            for name in true
            for one, other in zip(predicted[name], true[name], strict=True)
            if not math.isnan(other)
        ]
        assert outcome.result.mse == pytest.approx(sum(squares) / len(squares), rel=1e-6)
        return "scored"

    campaign("score", check, cases=range(3 * NUM_CASES))


def test_a_merge_is_that_of_what_stands_there(tables, tmp_path, monkeypatch):
    first, second, _ = tables
    output = tmp_path / "merged.csv"

    def check(rng):
        spoiled = one_of(rng, (first, second))
        put(tables, spoiled=spoiled, rng=rng)
        remove(output)
        flags = [first, second, "--output", output, "--weights", "3", "1", "--decimals", "6"]
        monkeypatch.setattr("sys.argv", ["blend", *map(str, flags)])
        with redirect_stdout(io.StringIO()):
            outcome = tried(blend.main)
        if outcome.refused:
            check_line(outcome.refused, spoiled)
            assert not output.exists()
            return "refused"
        one, other, found = as_it_stands(first), as_it_stands(second), as_it_stands(output)
        assert list(found) == list(one)
        for name, values in found.items():
            expected = (3 * np.array(one[name]) + np.array(other[name])) / 4
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-5)
        return "merged"

    campaign("blend", check)


ODD = ["nan", "inf", "-1", "-0", "0", "1e400", "1e308", "1e-320", "", "x", "9" * 400]


def test_flags_of_a_merge_are_taken_or_refused(tables, tmp_path, monkeypatch):
    put(tables)
    first, second, _ = tables
    points = read_submissions((first, second))[1]

    def check(rng):
        output = one_of(
            rng, (tmp_path / "merged.csv", first, tmp_path, tmp_path / "nowhere/x", "/dev/null", "/dev/full")
        )
        flag, count = one_of(rng, (("--weights", 2), ("--power", 1), ("--decimals", 1)))
        words = [flag, *(one_of(rng, ODD) for _ in range(count))] if rng.random() < 0.7 else []
        merge = ["--merge", one_of(rng, ("weighted", "median", "power", "rank"))]
        monkeypatch.setattr("sys.argv", ["blend", str(first), str(second), "--output", str(output), *words, *merge])
        with redirect_stdout(io.StringIO()):
            try:
                outcome = tried(blend.main)
            except SystemExit:  # of the parser
                return "refused by the parser"
        assert [path.read_bytes() for path in tables] == list(tables.values())
        if outcome.refused:
            check_line(outcome.refused, flag, "--output")
            return "refused"
        found = read_submission(tmp_path / "merged.csv")[1]
        assert (found >= points.min(axis=0) - 1).all()
        assert (found <= points.max(axis=0) + 1).all()
        return "merged"

    campaign("flags of blend", check)
