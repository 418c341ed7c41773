"""The ledger holds what was expected of each submission and what the leaderboard said of that very file."""

import json
import sys
from unittest import mock

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.inference.record import expected_of_mean, keep_earlier, read_record, write_record
from pipeline.inference.submission import write_submission
from tests.scripts import call
from tools import ledger
from tools.ledger import agreement, find_entries

MADE_OF = {"runs": [{"run": "a", "views": [[], []]}], "weights": [1.0], "decimals": 2}


def submission(path, *, value=1.0, expected=None):
    write_submission(path, ["a.jpg"], np.full((1, 2, 2), value), decimals=2)
    made_of = MADE_OF | {"weights": [value]}
    write_record(path, made_of, expected=expected and {"mse": expected, "low": expected - 1, "high": expected + 1})
    return path, made_of


def run(*arguments):
    with mock.patch.object(sys, "argv", ["ledger", *map(str, arguments)]):
        ledger.main()


def test_scores_are_noted_shown_and_compared(tmp_path, capsys):
    paths = [submission(tmp_path / f"{i}.csv", value=i, expected=10.0 + i)[0] for i in range(4)]
    for path, said in zip(paths, (10.5, 11.25, 14.75, 13.5), strict=True):
        run("score", path, said)
    capsys.readouterr()
    run("--runs", tmp_path)
    out = capsys.readouterr().out
    assert all(f"{path}" in out for path in paths)
    assert "+0.500" in out
    assert "9.00 … 11.00" in out
    # differences of 0.5, 0.25, 2.75 and 0.5, and two neighbours that change places
    assert "+1.000 ± 1.173 px²" in out
    assert "within the interval 3 of 4 times" in out
    assert "rank correlation 0.80" in out


def test_what_is_expected_of_folds_and_blends_is_a_bound_and_not_compared(tmp_path, capsys):
    path, made_of = submission(tmp_path / "blend.csv", value=2)
    write_record(path, made_of, expected=expected_of_mean([{"mse": 8.0}, {"mse": 10.0}], [1, 1], of="each alone"))
    run("score", path, 5)
    run("--runs", tmp_path)
    out = capsys.readouterr().out
    assert "≤ 9.000" in out
    assert "upper bound; no other submission has both" in out
    run("score", submission(tmp_path / "run.csv", expected=10.0)[0], 10.5)
    run("--runs", tmp_path)
    assert "1 of both: the leaderboard is +0.500 px² from what was expected" in capsys.readouterr().out


def test_bounds_that_earlier_versions_noted_with_an_interval_are_bounds(tmp_path):
    path, made_of = submission(tmp_path / "folds.csv")
    write_record(path, made_of, expected={"mse": 9.0, "low": 8.0, "high": 10.0, "of": "each run alone: the mean"})
    assert find_entries([path])[0].is_bound


def test_what_the_leaderboard_said_stays_with_the_table_it_was_said_of(tmp_path):
    path, made_of = submission(tmp_path / "s.csv", expected=5.0)
    assert keep_earlier(path, made_of) is None  # notes are not what it was made of
    run("score", path, 6.5)
    submission(path, expected=5.0)
    assert read_record(path)["leaderboard"] == 6.5
    write_submission(path, ["b.jpg"], np.ones((1, 2, 2)), decimals=2)  # of other photos
    write_record(path, made_of, expected=None)
    assert "leaderboard" not in read_record(path)
    submission(path, expected=5.0)
    path.write_text(path.read_text() + "c.jpg,1,2,3,4\n")
    (entry,) = find_entries([path])
    assert (entry.is_same, entry.expected) == (False, 5)
    run("score", path, 8)  # of the table as it is now: of what it was before, nothing is expected of it
    (entry,) = find_entries([path])
    assert (entry.is_same, entry.expected, entry.leaderboard) == (True, None, 8)


def test_a_submission_of_other_makers_can_be_noted_and_nothing_else(tmp_path, capsys):
    path = tmp_path / "blend.csv"
    write_submission(path, ["a.jpg"], np.ones((1, 2, 2)), decimals=2)
    run("score", path, "7")
    assert find_entries([path])[0].leaderboard == 7
    assert "no submission has both" in agreement(find_entries([path]))
    (tmp_path / "notes.csv").write_text("nothing")
    for arguments in (("score", tmp_path / "notes.csv", "7"), ("score", path, "-1"), ("--runs", tmp_path / "nowhere")):
        with pytest.raises(UserError):
            run(*arguments)
    (tmp_path / "blend.csv.json").write_text("[1")
    assert find_entries([path]) == []


def test_a_file_that_is_named_and_cannot_be_shown_is_not_passed_over(tmp_path, capsys):
    submission(tmp_path / "s.csv", expected=5.0)
    write_submission(tmp_path / "friend.csv", ["a.jpg"], np.ones((1, 2, 2)), decimals=2)
    run(tmp_path / "friend.csv", "--runs", tmp_path)
    assert f"left out    {tmp_path / 'friend.csv'} has no record" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"typo\.csv is not there"):
        run(tmp_path / "typo.csv", "--runs", tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        {"runs": 3, "submissions": "x"},
        {"runs": [1, None, {"views": {}}], "expected": [1]},
        {"expected": {"mse": 10**400, "low": True, "high": "x"}, "leaderboard": float("inf"), "decimals": "two"},
        {"expected": {"mse": float("nan")}, "leaderboard": []},
    ],
)
def test_what_a_record_should_not_hold_is_not_shown_and_hides_no_submission(tmp_path, record, capsys):
    path, _ = submission(tmp_path / "s.csv", expected=5.0)
    path.with_name("s.csv.json").write_text(json.dumps(record))
    run("--runs", tmp_path)
    assert f"{path}" in (out := capsys.readouterr().out)
    assert "inf" not in out
    assert "nan" not in out
    (entry,) = find_entries([path])
    assert (entry.expected, entry.low, entry.high, entry.leaderboard) == (None,) * 4


def test_predict_notes_what_it_expects_and_a_second_prediction_keeps_the_first(copy_run, tmp_path):
    folder = copy_run()
    (tmp_path / "views.json").write_text('[[], [{"MirrorAugmenter": {"probability": 1}}]]')
    flags = ["--run", folder, "--views", tmp_path / "views.json"]
    with mock.patch("pipeline.inference.held_out.MIN_FITTED", 5):
        status, out, err = call("predict.py", tmp_path, *flags)
    assert status == 0, err
    expected = read_record(folder / "submission.csv")["expected"]
    (chosen,) = [line.split() for line in out.splitlines() if line.startswith("chosen")]
    assert expected["mse"] == pytest.approx(float(chosen[1]), abs=1e-3)
    assert expected["low"] < expected["mse"] < expected["high"]
    status, out, err = call("predict.py", tmp_path, *flags, "--decimals", "0", "--weights", "equal")
    assert status == 0, err
    assert "earlier" in out
    entries = find_entries(folder.glob("*.csv"))
    assert sorted(entry.decimals for entry in entries) == [0, 2]
    assert entries[0].expected == expected["mse"]
    assert entries[1].low is None
