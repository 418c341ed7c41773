"""The page about a contest says what its photos and points are, and refers to nothing but files that are beside it."""

import csv
import io
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from pipeline.errors import run_script
from tools import inspect as tool

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a page refers to, the texts of its cells by table, and whether its elements are closed in their order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.refers: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.refers += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.refers += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def call(*flags):
    out, err = io.StringIO(), io.StringIO()
    arguments = mock.patch.object(sys, "argv", ["inspect", *map(str, flags)])
    few = mock.patch.multiple(tool, COLUMNS=4, ROWS=5)
    with arguments, few, redirect_stdout(out), redirect_stderr(err), suppress(SystemExit):
        run_script(tool.main)
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def page(contest, tmp_path_factory):
    """The folder of a page about a contest with a point missing, one outside, and a photo in train and test."""
    folder = tmp_path_factory.mktemp("inspect")
    root = shutil.copytree(contest, folder / "a <contest>")
    table = root / "train/landmarks.csv"
    rows = list(csv.reader(table.open(), delimiter="\t"))
    rows[1][1] = rows[1][2] = ""
    rows[1][3] = "-40"
    test = sorted((root / "test/images").iterdir())
    shutil.copy(root / "train/images" / rows[4][0], test[0])
    with table.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
    (folder / "data_sheets").mkdir()
    (folder / "data_sheets" / "train_999.jpg").touch()
    out, err = call("-d", root, "--out", folder, "--cache", folder / "cache", "--photos", "30", "--size", "64")
    assert (folder / "data.html").exists(), err
    return folder, out


def test_the_page_is_whole_and_needs_nothing_but_its_sheets(page):
    folder, _ = page
    text = (folder / "data.html").read_text()
    parsed = Page(re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
    files = [unquote(each) for each in parsed.refers if not each.startswith(("#", "data:"))]
    assert len(files) == len(set(files)) * 2  # each as a picture and as a link
    assert all((folder / each).is_file() for each in files)
    assert {Path(each).name for each in files} == {path.name for path in (folder / "data_sheets").iterdir()}
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "a &lt;contest&gt;" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_the_page_says_what_is_in_the_data(page):
    folder, out = page
    text = re.sub(r"<[^>]+>", "|", (folder / "data.html").read_text())
    text = re.sub(r"[|\s]*\|[|\s]*", "|", text)
    assert "|photos|80|12|" in text
    assert "|looked at for this page|30|12|" in text
    assert "some in 1.2% of the photos" in text  # missing: one of 80
    assert "outside most often|point 1, in 3.3% of the photos" in text  # one of 30
    assert "near-duplicates of photos of train" in text
    assert "found: 455 pairs of points" in text
    assert "80 photos with 971 points each to train on and 12 to predict" in out


def test_sheets_show_each_photo_without_and_with_its_points(page):
    folder, _ = page
    names = sorted(path.name for path in (folder / "data_sheets").iterdir())
    assert names == ["test_001.jpg", *(f"train_00{n}{kind}.jpg" for n in (1, 2) for kind in ("", "_points"))]
    plain, drawn = (cv2.imread(str(folder / "data_sheets" / f"train_001{kind}.jpg")) for kind in ("", "_points"))
    assert plain.shape == drawn.shape
    assert (np.abs(plain.astype(int) - drawn) > 60).mean() > 0.005


def test_a_contest_without_a_test_has_a_page(contest, tmp_path):
    root = tmp_path / "contest"
    shutil.copytree(contest / "train", root / "train")
    _, err = call("-d", root, "--out", tmp_path, "--cache", tmp_path / "cache", "--photos", "8", "--size", "64")
    text = (tmp_path / "data.html").read_text()
    assert "<th>test</th>" not in text, err
    assert "too few photos or groups" in text


def test_a_folder_that_holds_no_contest_is_refused_in_a_line(tmp_path):
    assert "train/landmarks.csv is missing" in call("-d", tmp_path, "--out", tmp_path)[1]
