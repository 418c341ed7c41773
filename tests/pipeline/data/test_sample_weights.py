"""Weights of photos are read as they were written, or refused in a line that names the row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.sample_weights import describe_weights, read_sample_weights, relative_weights, weights_table
from pipeline.errors import UserError

NAMES = np.array(["a.jpg", "b, c.jpg", 'd"e.jpg', "f.jpg"])


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "w.csv").write_text(text)
        return tmp_path / "w.csv"

    return write


@given(weights=st.lists(st.floats(0, 1e6), min_size=4, max_size=4))
def test_what_is_written_is_read_to_the_bit(weights, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "weights.csv"
    path.write_text(weights_table(NAMES, np.array(weights)))
    found = read_sample_weights(path, NAMES)
    assert (np.ones(4) if found is None else found).tolist() == weights


def test_other_columns_and_photos_that_are_not_named_change_nothing(table):
    path = table('\ufefffile_name,score,weight,reason\nf.jpg,3,0,"x, y"\n\n"b, c.jpg",1,1.5,\n')
    assert read_sample_weights(path, NAMES).tolist() == [1, 1.5, 1, 0]
    assert read_sample_weights(table("file_name,weight\na.jpg,1\n"), NAMES) is None
    assert read_sample_weights(table("file_name,weight\n"), NAMES) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("file_name,weight\na.jpg,1\nz.jpg,0\n", "line 3: 'z.jpg' is not in train/landmarks.csv"),
        ("file_name,weight\na.jpg,-1\n", "line 2: '-1' is no weight"),
        ("file_name,weight\na.jpg,nan\n", "line 2: 'nan' is no weight"),
        ("file_name,weight\na.jpg,inf\n", "line 2: 'inf' is no weight"),
        ("file_name,weight\na.jpg,1_0\n", "line 2: '1_0' is no weight"),
        ("file_name,weight\na.jpg,\n", "line 2: '' is no weight"),
        ("file_name,weight\na.jpg,0\na.jpg,0\n", "line 3: a.jpg has a weight already"),
        ("file_name,weight\na.jpg\n", "line 2: 1 columns where the header has 2"),
        ("file_name\tweight\na.jpg\t0\n", "line 1: its columns are"),
        ("file_name,weight,weight\n", "line 1: its columns are"),
        ('file_name,weight\n"a.jpg,0\n', "unexpected end of data"),
        ("", "line 1: its columns are"),
    ],
)
def test_what_is_no_table_of_weights_is_refused_with_its_line(table, text, named):
    path = table(text)
    with pytest.raises(UserError) as refused:
        read_sample_weights(path, NAMES)
    assert named in str(refused.value)
    assert f"--sample-weights {path}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_sample_weights(tmp_path / "no.csv", NAMES)
    with pytest.raises(UserError, match="it is a folder"):
        read_sample_weights(tmp_path, NAMES)
    (tmp_path / "w.csv").write_bytes(b"file_name,weight\n\xff,0\n")
    with pytest.raises(UserError, match="not in UTF-8"):
        read_sample_weights(tmp_path / "w.csv", NAMES)


def test_photos_that_are_left_out_for_other_reasons_may_be_named(table):
    path = table("file_name,weight\nbroken.jpg,0\na.jpg,2\n")
    assert read_sample_weights(path, NAMES, others=["broken.jpg"]).tolist() == [2, 1, 1, 1]
    assert read_sample_weights(path, NAMES, others=None).tolist() == [2, 1, 1, 1]


def test_weights_count_relative_to_those_that_are_trained_on():
    weights = np.array([0, 0.5, 0.5, 9])
    assert relative_weights(weights, np.array([1, 2])).tolist() == [0, 1, 1, 18]
    assert describe_weights(weights, np.array([3])) == "1 left out, 2 below 1"
    assert describe_weights(weights, np.array([0, 1, 2])) == "1 above 1"
    assert describe_weights(np.array([1.0, 0.0]), np.array([1])) == "all 1 in training"
