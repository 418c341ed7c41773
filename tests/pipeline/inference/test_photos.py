"""Photos outside a contest: each that is one is predicted, all else is named, and nothing is waited for."""

import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import predict
from pipeline.data.photos import read_photo
from pipeline.errors import UserError
from pipeline.inference import photos as single
from pipeline.inference.photos import predict_photos
from pipeline.inference.submission import read_submission
from pipeline.recipe import PhotoOptions, Recipe


def ensemble_of(points):
    """Runs that find the same points in every photo."""
    recipe = Recipe(photos=PhotoOptions(size=48, roi=(0.0, 0.0, 1.0)))
    members = [SimpleNamespace(recipe=recipe, locator=None)]
    return SimpleNamespace(
        members=members, predict_all=lambda packs, samples: np.tile(points, (samples.shape[1], 1, 1))
    )


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with two photos and much that is called so."""
    folder = tmp_path / "photos"
    (folder / "folder.jpg").mkdir(parents=True)
    for name in ("a.jpg", "b.png"):
        cv2.imwrite(str(folder / name), np.full((20, 30, 3), 99, np.uint8))
    os.mkfifo(folder / "pipe.jpg")
    (folder / "nowhere.jpg").symlink_to("gone")
    (folder / "round.jpg").symlink_to("round.jpg")
    (folder / "text.jpg").write_text("text")
    (folder / "notes.txt").write_text("no photo, nor called so")
    for name in ("two\nlines.jpg", os.fsdecode(b"\xff.jpg"), f"{'long' * 58}.jpg"):
        (folder / name).write_bytes((folder / "a.jpg").read_bytes())

    def reads_files_alone(path):
        assert path.is_file(), f"{path} would be waited for"
        return read_photo(path)

    monkeypatch.setattr(single, "read_photo", reads_files_alone)
    return folder


def test_what_is_no_photo_is_named_and_left_out(photos, tmp_path, capsys):
    points = np.array([(3.0, 4.0), (5.5, 6.5)])
    predict_photos(ensemble_of(points), photos, tmp_path / "out", decimals=1)
    names, found = read_submission(tmp_path / "out/points.csv")
    assert names == ["a.jpg", "b.png", "two\nlines.jpg"]
    assert (found == points).all()
    out = capsys.readouterr().out
    out.encode()  # whatever the names, it can be printed
    left_out = [line for line in out.splitlines() if line.startswith("left out")]
    assert len(left_out) == 7
    for name in ("folder", "pipe", "nowhere", "round", "text", "xff", "longlong"):
        assert sum(name in line.replace("\\udcff", "xff").replace(str(photos), "") for line in left_out) == 1, name


@pytest.mark.parametrize(
    ("point", "touches"), [((15, 10), False), ((28.5, 10), False), ((29.5, 10), True), ((15, -6), True)]
)
def test_points_at_the_edge_of_what_the_network_is_shown_are_said(photos, tmp_path, capsys, point, touches):
    """The network sees the 30 x 20 pixels in a square of 30, as 48 x 48."""
    predict_photos(ensemble_of(np.array([(14, 9), point], float)), photos / "a.jpg", tmp_path / "out", decimals=1)
    assert ("points touch the edge of what the network is shown: a.jpg: 1 of 2" in capsys.readouterr().out) == touches


def test_where_nothing_can_be_predicted_it_is_an_error(photos, tmp_path):
    for name in ("pipe.jpg", "folder.jpg", "text.jpg"):
        with pytest.raises(UserError):
            predict_photos(ensemble_of(np.zeros((2, 2))), photos / name, tmp_path / "out", decimals=1)


def test_a_photo_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["predict.py", "--photo", str(tmp_path / "gone.jpg")])
    with pytest.raises(UserError, match=r"--photo .*gone\.jpg is not there"):
        predict.main()


def test_points_that_are_no_numbers_are_not_written(photos, tmp_path):
    with pytest.raises(UserError, match=r"point 1 of photo a\.jpg"):
        predict_photos(ensemble_of(np.array([(0, 0), (0, np.nan)])), photos / "a.jpg", tmp_path / "out", decimals=1)
    assert not (tmp_path / "out/points.csv").exists()


def test_an_earlier_table_is_kept_unless_it_is_the_same(photos, tmp_path, capsys):
    points, out = np.array([(3.0, 4.0)]), tmp_path / "out"
    for name in ("a.jpg", "b.png", "b.png"):
        predict_photos(ensemble_of(points), photos / name, out, decimals=1)
    assert sorted(name for path in out.glob("points*.csv") for name in read_submission(path)[0]) == ["a.jpg", "b.png"]
    assert sum(line.startswith("earlier ") for line in capsys.readouterr().out.splitlines()) == 1


def test_pictures_of_points_are_no_photos(photos, tmp_path):
    points = np.array([(3.0, 4.0)])
    for _ in range(2):
        predict_photos(ensemble_of(points), photos, photos, decimals=1)
        assert read_submission(photos / "points.csv")[0] == ["a.jpg", "b.png", "two\nlines.jpg"]
