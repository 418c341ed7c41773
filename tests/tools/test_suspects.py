"""Labels that are wrong come first, with the reason; a run of an earlier version has a list too."""

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
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.data.dataset import load_training_data
from pipeline.errors import run_script
from pipeline.runs import Run
from tools import suspects as tool
from tools.suspects import find_suspects, reason_of

PARTNERS = np.array([1, 0, 3, 2, 4, *range(5, 30)])
SHAPE = np.random.default_rng(0).uniform(0, 100, (30, 2))


def test_the_reason_is_what_explains_most_of_the_error():
    near = SHAPE + np.random.default_rng(1).normal(size=SHAPE.shape)
    pairs = np.arange(30).reshape(15, 2)[:, ::-1].ravel()
    assert reason_of(near, SHAPE[pairs], pairs) == "left and right are exchanged"
    assert reason_of(near, SHAPE[pairs], None) == ""
    assert reason_of(near, SHAPE + (20, -7), PARTNERS).startswith("all points are shifted by (20, -")
    middle = SHAPE.mean(axis=0)
    assert reason_of(near, middle + 3 * (SHAPE - middle), PARTNERS).startswith("all points are scaled by 2.98 and")
    two_off = SHAPE.copy()
    two_off[[3, 17]] += 60
    two_off[5] = np.nan
    assert reason_of(near, two_off, PARTNERS) == "few points are far off: 3, 17"
    rng = np.random.default_rng(2)
    assert reason_of(near, rng.permutation(SHAPE), PARTNERS) == ""


@given(st.integers(0, 10**6))
def test_there_is_no_reason_without_points_or_error(seed):
    points = np.random.default_rng(seed).uniform(0, 100, (6, 2))
    assert reason_of(points, points, np.arange(6)) == ""
    assert reason_of(points, np.full((6, 2), np.nan), np.arange(6)) == ""


def test_losses_are_told_in_those_of_the_median_photo():
    losses = np.array([np.nan, 1.0, 2.0, 8.0])
    truth = np.stack([SHAPE, SHAPE])
    found = find_suspects(losses, truth, truth + (3, 4), np.array([3, 1]), None)
    assert [(one.sample, one.loss) for one in found] == [(3, 4.0), (1, 0.5)]
    assert [one.error for one in found] == pytest.approx([12.5**0.5] * 2)


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
    losses = torch.arange(len(state["sample_errors"]), dtype=torch.float32)
    losses[train[-1]] = torch.nan  # was never trained on
    if earlier:
        state["sample_errors"] = losses
        del state["criterion"]["running_losses"]
    else:
        state["criterion"]["running_losses"] = losses
    save_checkpoint(run.last, state)
    out, err = call(run.folder, "--count", "3", "--out", tmp_path / "out")
    assert not err or "Error" not in err
    assert out.split()[-3:] == [
        str(tmp_path / "out" / name) for name in ("suspects.csv", "suspects_1.jpg", "suspects_2.jpg")
    ]
    rows = list(csv.DictReader((tmp_path / "out" / "suspects.csv").open()))
    names = load_training_data(recipe).pack.names
    assert [row["file_name"] for row in rows] == names[train[-4:-1][::-1]].tolist()
    assert float(rows[0]["loss_over_median"]) > 1
    assert cv2.imread(str(tmp_path / "out" / "suspects_2.jpg")) is not None


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
