"""The README's pictures: what they need is asked for, and the drawn faces have their points."""

import numpy as np
import pytest

from demo import pictures
from pipeline.data.drawing import GAP, POINTS, PREDICTION, TRUTH
from pipeline.errors import UserError
from pipeline.inference.submission import read_submission, write_submission
from pipeline.runs import Run


def test_a_run_that_has_predicted_no_test_photos_is_refused_with_the_command_that_does(tmp_path, monkeypatch):
    (tmp_path / "contest").mkdir()
    monkeypatch.setattr(pictures, "find_run", lambda folder, runs: Run(tmp_path))
    with pytest.raises(UserError, match=r"test.png .*predict\.py"):
        pictures.draw_predictions(tmp_path / "contest", tmp_path)
    (tmp_path / "contest/test_truth.csv").touch()
    with pytest.raises(UserError, match=r"submission.csv .*predict\.py"):
        pictures.draw_predictions(tmp_path / "contest", tmp_path)


def test_predictions_are_shown_beside_the_truth(contest, copy_run, monkeypatch):
    run = Run(copy_run())
    monkeypatch.setattr(pictures, "find_run", lambda folder, runs: run)
    names, truth = read_submission(contest / "test_truth.csv")
    write_submission(run.submission, names, truth + 9, decimals=2)
    found = pictures.draw_predictions(contest, run.folder.parent)
    for colour in (TRUTH, PREDICTION):
        near = (np.abs(found[40:].astype(int) - colour).max(axis=2) < 12).sum()
        assert near > 12 * 30, colour
    write_submission(run.submission, names[1:], truth[1:], decimals=2)
    with pytest.raises(UserError, match="another test"):
        pictures.draw_predictions(contest, run.folder.parent)


def test_each_drawn_face_is_above_itself_with_its_points():
    plain, pointed, *_ = np.vsplit(pictures.drawn_faces(), 2 * pictures.NUM_DRAWN // pictures.COLUMNS)
    changed = (plain != pointed).any(axis=2)
    faces = np.hsplit(changed, pictures.COLUMNS)
    assert all(0.005 < face.mean() < 0.2 for face in faces)
    assert not changed[-GAP:].any()
    assert np.abs(pointed[changed].astype(int) - POINTS).mean() < np.abs(plain[changed].astype(int) - POINTS).mean() / 2
