"""The drawn contest: a function of its seed, in the contest's layout, with points where the drawing has them."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from demo.__main__ import main
from demo.contest import draw_and_write
from demo.draw import Camera, Looks, render
from demo.head import NUM_POINTS, Head
from demo.photo import draw_photo
from pipeline.errors import UserError
from tests.partners import PARTNERS


def test_a_photo_is_a_function_of_its_number(tmp_path):
    one, again, other = draw_photo(3, 0, 7), draw_photo(3, 0, 7), draw_photo(3, 0, 8)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    np.testing.assert_array_equal(one.points, again.points)
    assert one.pixels.shape != other.pixels.shape or (one.pixels != other.pixels).any()
    names = [draw_and_write(tmp_path, "train", 3, 7)[0] for _ in range(2)]
    assert names[0] == names[1]


def test_the_contest_is_in_the_contests_layout(contest):
    table = pd.read_csv(contest / "train/landmarks.csv", sep="\t")
    assert list(table.columns) == ["file_name", *(f"Point_M{k}_{axis}" for k in range(971) for axis in "XY")]
    assert (table.dtypes.iloc[1:] == np.int64).all()
    asked = pd.read_csv(contest / "test/test_points.csv", sep="\t")
    assert list(asked.columns) == ["file_name", "point_index_list"]
    lists = [json.loads(text) for text in asked.point_index_list]
    assert all(len(row) == len(set(row)) == 30 for row in lists)
    assert any(row != sorted(row) for row in lists)
    for part, names in (("train", table.file_name), ("test", asked.file_name)):
        assert sorted(path.name for path in (contest / part / "images").iterdir()) == sorted(names)
    truth = pd.read_csv(contest / "test_truth.csv")
    assert truth.file_name.tolist() == asked.file_name.tolist()
    assert truth.shape == (12, 61)


def test_the_points_lie_where_the_drawing_has_them():
    """The pupils are the darkest place of open eyes, seen from in front and from the side."""
    rng = np.random.default_rng(5)
    for yaw in (-25, 0, 25):
        head = Head.draw(rng)
        head = Head(**{**vars(head), "eyes_open": 1.1, "hairline": -45.0, "gaze_x": 1.0})
        looks = Looks(**{**vars(Looks.draw(rng)), "iris": np.full(3, 30.0), "skin": np.full(3, 220.0), "makeup": 0.0})
        camera = Camera(yaw=yaw, pitch=4, roll=6, scale=160, x=200, y=200)
        colours, cover = render(head, looks, camera, (400, 400), np.array([0.0, 0.0, 1.0]), ambient=0.9)
        assert cover[200, 200] > 0.99
        dark = cv2.GaussianBlur(255 - colours.mean(axis=2), (0, 0), 4)
        for point in camera.project(head.points())[969:971]:
            x, y = np.rint(point).astype(int)
            part = dark[y - 9 : y + 10, x - 9 : x + 10]
            row, column = np.unravel_index(part.argmax(), part.shape)
            assert np.hypot(row - 9 - (point[1] - y), column - 9 - (point[0] - x)) < 4


@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_head_is_the_head_with_its_partners_swapped(seed):
    head = Head(**{**vars(Head.draw(np.random.default_rng(seed))), "gaze_x": 0.0})
    points = head.points()
    assert points.shape == (NUM_POINTS, 3)
    np.testing.assert_allclose(points * (-1, 1, 1), points[PARTNERS], atol=1e-9)


def test_a_drawing_that_was_stopped_can_be_started_again(tmp_path, monkeypatch):
    stops = iter([False, True, False, False])  # between the parts, and not at all

    def draw_part(folder, part, count, seed):
        if next(stops):
            raise KeyboardInterrupt
        folder.mkdir(parents=True, exist_ok=True)
        return ["0.jpg"], np.zeros((1, NUM_POINTS, 2), int)

    monkeypatch.setattr("demo.contest.draw_part", draw_part)
    monkeypatch.setattr("sys.argv", ["demo", str(tmp_path), "--train", "1", "--test", "1"])
    with pytest.raises(KeyboardInterrupt):
        main()
    main()
    assert {"train/landmarks.csv", "test_truth.csv"} <= {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")
    }


def test_a_contest_that_is_not_the_demos_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/landmarks.csv").write_text("of a real contest")
    monkeypatch.setattr("sys.argv", ["demo", str(tmp_path)])
    with pytest.raises(UserError, match="holds a contest that is not the demo's"):
        main()
    assert (tmp_path / "train/landmarks.csv").read_text() == "of a real contest"
