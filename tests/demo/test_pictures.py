"""The README's pictures: what they need is asked for, and the drawn faces have their points."""

from types import SimpleNamespace

import numpy as np
import pytest

from demo import pictures
from pipeline.data.drawing import GAP, POINTS
from pipeline.errors import UserError


def test_a_run_that_has_predicted_no_test_photos_is_refused_with_the_command_that_does(tmp_path, monkeypatch):
    run = SimpleNamespace(picture=lambda name: tmp_path / f"{name}.png")
    monkeypatch.setattr(pictures, "find_run", lambda folder, runs: run)
    with pytest.raises(UserError, match=r"test.png .*predict\.py"):
        pictures.read_predictions(tmp_path)


def test_each_drawn_face_is_above_itself_with_its_points():
    plain, pointed, *_ = np.vsplit(pictures.drawn_faces(), 2 * pictures.NUM_DRAWN // pictures.COLUMNS)
    changed = (plain != pointed).any(axis=2)
    faces = np.hsplit(changed, pictures.COLUMNS)
    assert all(0.005 < face.mean() < 0.2 for face in faces)
    assert not changed[-GAP:].any()
    assert np.abs(pointed[changed].astype(int) - POINTS).mean() < np.abs(plain[changed].astype(int) - POINTS).mean() / 2
