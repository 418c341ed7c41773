"""Statistics are what they are called, and a shift is seen where there is one and only there."""

import cv2
import numpy as np
import pytest

from pipeline.data.photo_statistics import STATISTICS, look_at, shift_between, statistics_of, without_bars
from pipeline.errors import UserError


def photo_of(seed, height=60, width=90):
    return np.random.default_rng(seed).integers(40, 250, (height, width, 3), np.uint8)


def told(photo):
    return dict(zip(STATISTICS, statistics_of(photo, 2000), strict=True))


def test_statistics_are_what_they_are_called():
    found = told(np.full((60, 90, 3), (100, 110, 120), np.uint8))
    expected = {"width": 90, "height": 60, "aspect": 1.5, "black bars": 0, "brightness": 110, "contrast": 0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (found["colour"], found["sharpness"], found["kilobytes"]) == (20, 0, 2)
    photo = photo_of(0)
    assert told(cv2.blur(photo, (5, 5)))["sharpness"] < told(photo)["sharpness"]
    assert told(photo.mean(axis=2, keepdims=True).repeat(3, 2).astype(np.uint8))["colour"] == 0


def test_bars_are_left_out_and_their_share_is_told():
    photo = photo_of(0)
    padded = np.zeros((100, 120, 3), np.uint8)
    padded[10:70, 20:110] = photo
    np.testing.assert_array_equal(without_bars(padded), photo)
    assert told(padded)["black bars"] == pytest.approx(1 - 60 * 90 / 12000)
    for name in ("brightness", "contrast", "colour", "sharpness"):
        assert told(padded)[name] == told(photo)[name]
    assert without_bars(0 * photo).shape == photo.shape


def test_photos_are_looked_at_evenly_and_broken_ones_left_out(tmp_path):
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), 20 * number, np.uint8))
    (tmp_path / "4.png").write_bytes(b"")
    looked = look_at(tmp_path, names, count=5, side=16, description="x")
    assert looked.rows.tolist() == [0, 2, 6, 8]
    assert looked.column("brightness").tolist() == [0, 40, 120, 160]
    assert looked.tiles.shape == (4, 16, 16, 3)
    with pytest.raises(UserError, match="none of the 2 photos"):
        look_at(tmp_path, ["4.png", "no.png"], count=2, side=16, description="x")


def draw(count, seed, moved=0.0, wider=1.0):
    values = np.random.default_rng(seed).normal(size=(count, len(STATISTICS)))
    values[:, 4] = moved + wider * values[:, 4]
    return values


@pytest.mark.parametrize(("moved", "wider", "seen"), [(0.0, 1.0, False), (1.0, 1.0, True), (0.0, 3.0, True)])
def test_a_shift_is_seen_where_there_is_one(moved, wider, seen):
    train, test = draw(400, 0), draw(200, 1, moved, wider)
    found = shift_between(train, test, np.arange(600))
    assert found.is_seen == seen
    if moved:
        assert max(found.by_statistic, key=found.by_statistic.__getitem__) == "brightness"


def test_photos_of_a_group_do_not_tell_of_one_another():
    """Repeated photos would be known by heart, were some fitted and the others judged."""
    train, test = draw(30, 0).repeat(10, axis=0), draw(30, 1).repeat(10, axis=0)
    of_groups = shift_between(train, test, np.arange(60).repeat(10))
    assert not of_groups.is_seen
    alone = shift_between(train, test, np.arange(600))
    assert of_groups.error == pytest.approx(10**0.5 * alone.error, rel=0.02), "photos of a group may be all alike"


def test_too_few_photos_or_groups_tell_nothing():
    assert shift_between(draw(400, 0), draw(20, 1), np.arange(420)) is None
    assert shift_between(draw(400, 0), draw(200, 1), np.repeat((0, 1), (400, 200))) is None
