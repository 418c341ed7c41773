"""A submission takes the place of one that was made of the same, and of no other."""

from pipeline.inference.record import keep_earlier, note_leaderboard, read_record, write_record


def test_only_what_was_made_of_the_same_is_replaced(tmp_path):
    path = tmp_path / "submission.csv"
    one, other = {"views": [[]], "weights": (0.5, 0.5)}, {"views": [[]], "weights": (0.4, 0.6)}
    assert keep_earlier(path, one) is None
    path.write_text("first")
    write_record(path, one, expected=None)
    assert keep_earlier(path, one) is None
    kept = keep_earlier(path, other)
    assert kept.read_text() == "first"
    assert not path.exists()
    assert keep_earlier(kept, one) is None  # its record went along
    path.write_text("second, of an earlier version")
    again = keep_earlier(path, other)
    assert {file.read_text() for file in (kept, again)} == {"first", "second, of an earlier version"}


def test_a_table_that_was_scored_is_replaced_by_the_same_alone(tmp_path, capsys):
    """Another device gives other decimals of the same predictions; the score is of those that were submitted."""
    path, made_of = tmp_path / "submission.csv", {"views": [[]]}
    path.write_text("1.00")
    write_record(path, made_of, expected=None)
    note_leaderboard(path, 8.41)
    kept = keep_earlier(path, made_of)
    path.write_text("1.00")
    write_record(path, made_of, expected=None, kept=kept)
    assert capsys.readouterr().out == ""
    assert read_record(path)["leaderboard"] == 8.41
    assert sorted(file.name for file in tmp_path.iterdir()) == ["submission.csv", "submission.csv.json"]
    kept = keep_earlier(path, made_of)
    path.write_text("1.01")
    write_record(path, made_of, expected=None, kept=kept)
    assert f"it is now {kept}" in capsys.readouterr().out
    assert (kept.read_text(), read_record(kept)["leaderboard"]) == ("1.00", 8.41)
    assert "leaderboard" not in read_record(path)


def test_a_damaged_record_keeps_the_table(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("first")
    (tmp_path / "submission.csv.json").write_bytes(b"[" * 100_000)
    assert keep_earlier(path, {"a": 1}).read_text() == "first"
