"""Reading the contest's files: what is there comes out, and every fault is named with its file, row and fix."""

import json
import os
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import rows
from pipeline.data.cells import _parse_at_once, _parse_one_by_one
from pipeline.data.contest import (
    GROUPS,
    LANDMARKS,
    count_points,
    find_contest,
    read_groups,
    read_landmarks,
    read_test_points,
)
from pipeline.errors import Faults, UserError

cells = st.one_of(
    st.integers(-1500, 5000).map(str),
    st.floats(-1e4, 1e4, width=32).map(repr),
    st.sampled_from(["", "nan", "NaN", " 7 ", "-3.5e1"]),
)


def table(path, rows, header="file_name\tA\tB\tC\tD", end="\n"):
    path.write_bytes(end.join([header, *rows, ""]).encode("utf-8", "surrogateescape"))
    return path


def read(path):
    faults = Faults()
    return read_landmarks(path, faults), faults.lines


@given(
    rows=st.lists(st.lists(cells, min_size=4, max_size=4), min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"])
)
def test_every_number_comes_out_as_it_was_written(rows, end, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "landmarks.csv"
    table(path, [f"{i}.jpg\t" + "\t".join(row) for i, row in enumerate(rows)], end=end)
    found, faults = read(path)
    expected = np.array([[np.nan if cell.strip() == "" else float(cell) for cell in row] for row in rows], np.float32)
    assert faults == []
    assert found.names == [f"{i}.jpg" for i in range(len(rows))]
    np.testing.assert_array_equal(found.values, expected.reshape(-1, 2, 2))


def test_header_names_and_a_byte_order_mark_do_not_matter(tmp_path):
    path = table(tmp_path / "landmarks.csv", ["a.jpg\t-22\t1308\t3\t4"], header="\ufeffnames\tx\tx\tx\tx")
    found, faults = read(path)
    assert faults == []
    np.testing.assert_array_equal(found.values, [[[-22, 1308], [3, 4]]])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("b.jpg\t1\t2\t3", "line 3: 3 numbers where the header has 4"),
        ("b.jpg\t1\t2\t3\t4\t5", "line 3: 5 numbers where the header has 4"),
        ("b.jpg\t1\ttwo\t3\t4", "line 3, column 3: 'two' is not a number"),
        ("b.jpg\t1\t2\t3\tinf", "line 3, column 5: 'inf' is not a number"),
        ("b.jpg\t1\t2_0\t3\t4", "line 3, column 3: '2_0' is not a number"),
        ("b.jpg\t1\t2\t3\t1000000000", "line 3, column 5: 1000000000 is no position"),
        ("b.jpg\t1\t2\t\t-1e9", "line 3, column 5: -1e9 is no position"),
        ("b.jpg\t1 2\t\t3\t4", "line 3, column 2: '1 2' is not a number"),
        ("a.jpg\t1\t2\t3\t4", "line 3: 'a.jpg' stands in line 2 already"),
        ("\t1\t2\t3\t4", "line 3: '' is not the name of a photo"),
        ("../b.jpg\t1\t2\t3\t4", "line 3: '../b.jpg' is not the name of a photo"),
        ("/b.jpg\t1\t2\t3\t4", "line 3: '/b.jpg' is not the name of a photo"),
        ("b\0.jpg\t1\t2\t3\t4", "line 3: 'b\\x00.jpg' is not the name of a photo"),
        ("b\r.jpg\t1\t2\t3\t4", "line 3: 'b\\r.jpg' is not the name of a photo"),
        ("b\udcff.jpg\t1\t2\t3\t4", "line 3: 'b\ufffd.jpg' is not the name of a photo"),
        ("b" * 5000 + "\t1\t2\t3\t4", "line 3: 'bbbb"),
        ("b.jpg\t1\t2\t-9223372036854775808\t4", "line 3, column 4: -9223372036854775808 is no position"),
        ("b.jpg\t1\t\t3\r4\t5", "line 3, column 4: '3\\r4' is not a number"),
        ("b.jpg\t1\t\t3\f4\t5", "line 3, column 4: '3\\x0c4' is not a number"),
        ("b.jpg\t1\t2\tnan(1)\t4", "line 3, column 4: 'nan(1)' is not a number"),
    ],
)
def test_a_row_with_a_fault_is_named_and_left_out(tmp_path, row, named):
    path = table(tmp_path / "landmarks.csv", ["a.jpg\t1\t2\t3\t4", row, "c.jpg\t5\t6\t7\t8"])
    found, faults = read(path)
    assert len(faults) == 1
    assert f"{path} {named}" in faults[0]
    assert found.names == ["a.jpg", "c.jpg"]
    assert found.values[1, 1, 1] == 8


NASTY = st.one_of(
    st.text("0123456789+-.eE_ \r\f\v\0naifNIxX()１", max_size=6),
    st.integers(-(2**64), 2**64).map(str),
    st.sampled_from(
        ["-9223372036854775808", "9223372036854775807", "1e999", "-nan", "nan(1)", "1\r2", "3\f4", "0x10", "1_0"]
    ),
    st.floats().map(repr),
    st.just(""),
)


@given(st.lists(st.one_of(cells, NASTY), min_size=2, max_size=6))
@settings(max_examples=1000)
def test_what_is_parsed_at_once_is_what_is_parsed_cell_by_cell(row):
    text = "\t".join(row).encode()
    if (found := _parse_at_once(text, len(row))) is not None:
        np.testing.assert_array_equal(found, _parse_one_by_one(text))


@given(st.lists(st.lists(st.one_of(cells, NASTY), min_size=2, max_size=2), min_size=1, max_size=6))
@settings(max_examples=1000)
def test_what_is_parsed_in_whole_arrays_is_what_is_parsed_cell_by_cell(table):
    lines = ["a.jpg\t" + "\t".join(row) for row in table]
    found = rows.parse_rows(rows.Lines(("\n".join(lines) + "\n").encode(), 0, len(lines)), 2)
    for index in np.flatnonzero(found.plain) if found else []:
        expected = np.array(_parse_one_by_one("\t".join(table[index]).encode()), np.float32)
        np.testing.assert_array_equal(found.numbers[index], expected)
        pointed = any("." in cell for cell in table[index])
        assert not pointed or (np.signbit(found.numbers[index]) == np.signbit(expected))[~np.isnan(expected)].all()


def test_plain_rows_are_parsed_at_once():
    """Or else the two above would compare nothing."""
    assert _parse_at_once(b"1\t-2\t3.5", 3) is not None
    assert rows.parse_rows(rows.Lines(b"a.jpg\t1\t-2.5\nb.jpg\t3\t4\n", 0, 2), 2).plain.all()


@given(rows_given=st.lists(st.lists(cells, min_size=4, max_size=4), min_size=1, max_size=30), size=st.integers(1, 90))
def test_blocks_of_any_size_are_read_alike(rows_given, size, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "landmarks.csv"
    table(path, [f"{i}.jpg\t" + "\t".join(row) for i, row in enumerate(rows_given)])
    whole, _ = read(path)
    with mock.patch.object(rows, "BLOCK", size):
        found, faults = read(path)
    assert faults == []
    assert found.names == whole.names
    np.testing.assert_array_equal(found.values, whole.values)


def test_rows_with_faults_in_many_blocks_are_told_in_order_and_leave_no_gap(tmp_path, monkeypatch):
    """Also where threads are done in another order, and where lines are empty."""
    monkeypatch.setattr(rows, "BLOCK", 40)
    lines = [f"{i}.jpg\t{i}\t{'x' if i % 7 == 3 else i}\t3\t4" if i % 5 else "" for i in range(300)]
    found, faults = read(table(tmp_path / "landmarks.csv", lines))
    kept = [i for i in range(300) if i % 5 and i % 7 != 3]
    assert found.names == [f"{i}.jpg" for i in kept]
    np.testing.assert_array_equal(found.values[:, 0], np.array([kept, kept]).T)
    assert [int(line.split("line ")[1].split(",")[0]) - 2 for line in faults] == [
        i for i in range(300) if i % 5 and i % 7 == 3
    ]


def test_plain_numbers_are_parsed_in_whole_arrays(tmp_path, monkeypatch):
    """Whole numbers and decimals as programs write them need no look at each row, which is many times as slow."""
    monkeypatch.setattr("pipeline.data.contest.parse_row", lambda *_: pytest.fail("a row was looked at"))
    path = table(tmp_path / "landmarks.csv", ["a.jpg\t-22\t\t3.25\t99999", "b.jpg\t-0.5\t126.78901234\t7.\t.5"])
    assert read(path)[1] == []


def test_the_numbers_lie_in_a_file_that_leaves_nothing_behind(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = read_landmarks(table(tmp_path / "landmarks.csv", ["a.jpg\t1\t2\t3\t4"]), Faults(), scratch=scratch)
    assert isinstance(found.values, np.memmap)
    assert not list(scratch.iterdir())
    np.testing.assert_array_equal(found.values, [[[1, 2], [3, 4]]])


def test_faults_of_one_kind_are_one_line_with_their_number_and_first_places(tmp_path):
    path = table(tmp_path / "landmarks.csv", [f"{i}.jpg\t1\t2\t{'x' * (i % 9 + 1)}\t4" for i in range(500)] + ["z\t1"])
    faults = Faults()
    read_landmarks(path, faults)
    for _ in range(2):
        faults.add("images/a.jpg is cut short at 10 bytes", where="a.jpg", kind="is cut short at 10 bytes")
    with pytest.raises(UserError, match=r"503 faults in the data") as error:
        faults.refuse()
    _, many, one, *two = str(error.value).splitlines()
    assert many.startswith(f"  500 such as {path} line 2, column 4: 'x' is not a number")
    assert many.endswith("(the next: line 3, line 4, line 5)")
    assert one.strip() == f"{path} line 502: 1 numbers where the header has 4"
    assert two == ["  images/a.jpg is cut short at 10 bytes"] * 2


def test_what_no_table_can_be_read_from_is_a_fault(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "utf-16").write_text("file_name\tx\ty\na.jpg\t1\t2\n", encoding="utf-16")
    for name in ("nowhere", "folder", "pipe", "/dev/zero", "loop", "utf-16"):
        faults = Faults()
        assert read_landmarks(tmp_path / name, faults).names == []
        assert read_test_points(tmp_path / name, faults, num_points=9).names == []
        assert len(read_groups(tmp_path / name, [], faults)) == 0
        assert len(faults.lines) == 3
        assert all(name in line for line in faults.lines)
    assert count_points(tmp_path / "pipe") == count_points(tmp_path / "nowhere") == 0


def test_a_header_of_many_columns_takes_no_more_memory_than_the_file(tmp_path, monkeypatch):
    """Rows are counted before they are read; of these 10,000 none has a tenth of the columns."""
    path = table(tmp_path / "landmarks.csv", ["a\t1\t2"] * 10_000, header="name" + "\tx" * 40_000)
    made = []
    monkeypatch.setattr(
        "pipeline.data.contest.np.empty", lambda shape, dtype: made.append(shape) or np.zeros(shape, dtype)
    )
    found, faults = read(path)
    assert len(found.names) == 0
    assert len(faults) >= 10_000
    assert max(map(np.prod, made)) <= path.stat().st_size


@pytest.mark.parametrize("header", ["file_name", "file_name\tA", "file_name\tA\tB\tC", "file_name,A,B"])
def test_a_header_without_pairs_of_columns_is_a_fault(tmp_path, header):
    _, faults = read(table(tmp_path / "landmarks.csv", ["a.jpg\t1"], header=header))
    assert "line 1" in faults[0]


@pytest.mark.parametrize("name", ["a.jpg", "folder/b.PNG"])
def test_a_table_without_a_header_loses_no_photo_unnoticed(tmp_path, name):
    _, faults = read(table(tmp_path / "landmarks.csv", ["c.jpg\t1\t2"], header=f"{name}\t3\t4"))
    (tmp_path / "test_points.csv").write_text(f"{name}\t[1, 2]\nc.jpg\t[1, 2]\n")
    of_test = Faults()
    read_test_points(tmp_path / "test_points.csv", of_test, num_points=68)
    for lines in (faults, of_test.lines):
        assert f"line 1 is the row of {name}" in lines[0]


def test_a_table_without_photos_is_a_fault(tmp_path):
    assert "no photos" in read(table(tmp_path / "landmarks.csv", []))[1][0]


def read_asked(tmp_path, rows):
    path = tmp_path / "test_points.csv"
    path.write_text("\n".join(["file_name\tpoint_index_list", *rows]) + "\n")
    faults = Faults()
    return read_test_points(path, faults, num_points=68), faults.lines


@given(
    lists=st.integers(1, 40).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 67), min_size=n, max_size=n), min_size=1, max_size=9)
    )
)
def test_index_lists_keep_their_order(lists, tmp_path_factory):
    found, faults = read_asked(
        tmp_path_factory.mktemp("t"), [f"{i}.jpg\t{json.dumps(row)}" for i, row in enumerate(lists)]
    )
    assert faults == []
    np.testing.assert_array_equal(found.values, lists)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1, 2, 68]", "index 68 is not one of the 68 points 0..67"),
        ("[1, 2, -1]", "index -1"),
        ("[1, 2]", "2 indices, but 3 in the rows above"),
        ("[]", "not a list of point indices"),
        ("[1, 2, true]", "not a list of point indices"),
        ("[1, 2, 3.0]", "not a list of point indices"),
        ("__import__('os').abort()", "not a list of point indices"),
        ("", "not a list of point indices"),
        ("[" * 100_000 + "]" * 100_000, "not a list of point indices"),
        (f"[1, 2, {'9' * 4000}]", "index 999"),
        (f"[1, 2, {'9' * 5000}]", "not a list of point indices"),
    ],
)
def test_a_list_with_a_fault_is_named(tmp_path, text, named):
    _, faults = read_asked(tmp_path, ["a.jpg\t[5, 4, 3]", f"b.jpg\t{text}"])
    assert len(faults) == 1
    assert "line 3" in faults[0]
    assert named in faults[0]
    assert len(faults[0]) < 300


def test_groups_are_numbers_by_photo_and_gaps_are_faults(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("file_name\tgroup\na.jpg\tx\nb.jpg\ty\nc.jpg\tx\nc.jpg\ty\n")
    faults = Faults()
    groups = read_groups(path, ["c.jpg", "b.jpg", "a.jpg", "d.jpg"], faults)
    assert groups[0] == groups[2] != groups[1]
    assert len(faults.lines) == 2
    assert "line 5: 'c.jpg' is in a second group" in faults.lines[0]
    assert "d.jpg" in faults.lines[1]


def test_the_contest_is_found_where_it_is_or_one_level_below(tmp_path):
    with pytest.raises(UserError, match=r"landmarks\.csv is missing"):
        find_contest(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        find_contest(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a folder that can be read"):  # pathlib raises what it cannot look at
        find_contest(tmp_path / ("x" * 300))
    (tmp_path / "contest01_data/train").mkdir(parents=True)
    table(tmp_path / "contest01_data" / LANDMARKS, [])
    assert find_contest(tmp_path) == tmp_path / "contest01_data" == find_contest(tmp_path / "contest01_data")
    (tmp_path / "other/train").mkdir(parents=True)
    table(tmp_path / "other" / LANDMARKS, [])
    with pytest.raises(UserError, match="several contests"):
        find_contest(tmp_path)


def test_the_names_of_the_files_are_the_contests():
    assert (LANDMARKS, GROUPS) == ("train/landmarks.csv", "train/groups.csv")
