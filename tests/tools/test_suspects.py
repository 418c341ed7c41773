"""The photos whose losses stayed highest are listed and drawn; folds and labels alone give a list too, in which wrong
labels and duplicates are named; a run of an earlier version has a list."""

import csv
import io
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.data.dataset import load_training_data
from pipeline.errors import run_script
from pipeline.runs import Run
from tests.scripts import train
from tools import suspects as tool


def call(*flags):
    out, err = io.StringIO(), io.StringIO()
    arguments = mock.patch.object(sys, "argv", ["suspects", *map(str, flags)])
    few = mock.patch.object(tool, "ON_A_SHEET", 2)
    with arguments, few, redirect_stdout(out), redirect_stderr(err), suppress(SystemExit):
        run_script(tool.main)
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("earlier", [False, True])
def test_the_photos_whose_losses_stayed_highest_are_listed_and_drawn(copy_run, tmp_path, earlier):
    run = Run(copy_run())
    state = load_checkpoint(run.last)
    recipe = run.recipe()
    train = load_training_data(recipe).train
    losses = 1 + torch.arange(len(state["sample_errors"]), dtype=torch.float32)
    losses[train[-4:-1]] = torch.tensor([1e6, 1e7, 1e8])
    losses[train[-1]] = torch.nan  # was never trained on
    if earlier:
        state["sample_errors"] = losses
        del state["criterion"]["running_losses"]
    else:
        state["criterion"]["running_losses"] = losses
    save_checkpoint(run.last, state)
    out, err = call(run.folder, "--count", "3", "--out", tmp_path / "out")
    assert not err
    assert out.split()[-3:] == [
        str(tmp_path / "out" / name) for name in ("suspects.csv", "suspects_1.jpg", "suspects_2.jpg")
    ]
    rows = list(csv.DictReader((tmp_path / "out" / "suspects.csv").open()))
    names = load_training_data(recipe).pack.names
    assert [row["file_name"] for row in rows[:3]] == names[train[-4:-1][::-1]].tolist()
    assert float(rows[0]["score"]) > float(rows[2]["score"]) > 3.5
    assert {row["weight"] for row in rows} == {"1"}
    assert cv2.imread(str(tmp_path / "out" / "suspects_2.jpg")) is not None
    if earlier:
        return

    found = (tmp_path / "out" / "suspects.csv").read_text()
    edited = found.replace(",1,", ",0,", 1)
    (tmp_path / "out" / "suspects.csv").write_text(edited)
    for _ in range(2):  # the second finds the same, and moves nothing
        call(run.folder, "--count", "3", "--out", tmp_path / "out")
        lists = [path.read_text() for path in (tmp_path / "out").glob("suspects*.csv")]
        assert sorted(lists) == sorted([found, edited])


def test_a_run_without_losses_is_refused_in_a_line(copy_run):
    run = Run(copy_run())
    state = load_checkpoint(run.last)
    state["criterion"]["running_losses"] = torch.full_like(state["sample_errors"], torch.nan)
    save_checkpoint(run.last, state)
    assert "has not trained on any photo yet" in call(run.folder)[1]
    state["criterion"]["running_losses"] = torch.zeros(3)
    save_checkpoint(run.last, state)
    assert "does not fit this run" in call(run.folder)[1]
    shutil.rmtree(run.folder)
    assert str(run.folder) in call(run.folder)[1]


@pytest.fixture(scope="module")
def wrong(contest, tmp_path_factory):
    """A contest with a label that is exchanged, a copy with another label, a copy in the test, and its names."""
    root = shutil.copytree(contest, tmp_path_factory.mktemp("wrong") / "contest")
    table, images = root / "train/landmarks.csv", root / "train/images"
    header, *rows = table.read_text().strip().split("\n")
    names = [row.split("\t")[0] for row in rows]
    shape = np.array(rows[5].split("\t")[1:], float).reshape(-1, 2)
    few = shape.copy()
    few[:40] += 100
    rows[5] = "\t".join([names[5], *few.ravel().round().astype(int).astype(str)])
    moved = shape + 30
    rows.append("\t".join(["copy.jpg", *moved.ravel().round().astype(int).astype(str)]))
    shutil.copy(images / names[9], images / "copy.jpg")
    shutil.copy(images / names[12], sorted((root / "test/images").iterdir())[0])
    table.write_text("\n".join([header, *rows]) + "\n")
    return root, names


def rows_of(folder):
    return {row["file_name"]: row for row in csv.DictReader((folder / "suspects.csv").open())}


def test_labels_alone_tell_odd_shapes_and_duplicates(wrong, tmp_path):
    root, names = wrong
    out, err = call("-d", root, "--cache", tmp_path / "cache", "--out", tmp_path / "out", "--count", "4")
    assert "1 photos of the test have near-duplicates in train" in out, err
    rows = rows_of(tmp_path / "out")
    assert "few points are far off" in rows[names[5]]["reason"]
    assert rows["copy.jpg"]["reason"] == "another label than its duplicates"
    assert rows["copy.jpg"]["duplicate_of"] == names[9]
    assert rows[names[9]]["duplicate_of"] == "copy.jpg"
    assert rows[names[12]]["duplicate_of"].startswith("test/")
    assert float(rows[names[5]]["score"]) > float(rows[names[12]]["score"])


def test_folds_tell_of_all_photos_what_they_never_saw(wrong, tmp_path):
    root, names = wrong
    folder, _ = train(tmp_path, root, "-e", "1", "--steps-per-epoch", "1", "--folds", "2")
    out, err = call(folder, "--count", "100", "--out", tmp_path / "out")
    assert "by network" in out, err
    rows = rows_of(tmp_path / "out")
    assert rows.keys() == {*names, "copy.jpg"}
    assert all(float(row["rms_error_px"]) > 0 for row in rows.values())
    held_out = np.load(folder / "fold-1/held_out_points.npy")
    np.save(folder / "fold-1/held_out_points.npy", held_out[1:])
    assert "is of other photos than the fold held out" in call(folder)[1]
    (folder / "fold-1/held_out_points.npy").unlink()
    assert "fold-1 is not trained" in call(folder)[1]


def test_nothing_to_look_at_is_refused_in_a_line():
    assert "give the folder of a run or of folds, or --data PATH" in call()[1]


def test_a_photo_without_labels_has_no_error():
    assert np.isnan(tool._error(np.ones((2, 2)), np.full((2, 2), np.nan)))
    assert tool._error(np.ones((2, 2)), np.ones((2, 2))) == 0


def test_sheets_of_an_earlier_list_do_not_stay(wrong, tmp_path):
    root, _ = wrong
    for count, sheets in ((6, 3), (2, 1)):
        call("-d", root, "--cache", tmp_path / "cache", "--out", tmp_path / "out", "--count", count)
        assert len(list((tmp_path / "out").glob("*.jpg"))) == sheets
