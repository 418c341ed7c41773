"""The ROI holds the points of nearly all photos, belongs to the run, and shows what the whole square shows there."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augment import RegionOfInterest, transform_points
from pipeline.command import parse_command
from pipeline.data.boxes import Boxes
from pipeline.data.contest import LANDMARKS, read_landmarks
from pipeline.data.dataset import load_test_data, load_training_data, mean_shape_score
from pipeline.data.pack import open_pack
from pipeline.data.photos import BrokenPhoto
from pipeline.data.roi import find_roi, points_in_square, roi_of
from pipeline.errors import Faults
from pipeline.networks import make_network
from pipeline.precedence import WHOLE
from pipeline.recipe import NetworkOptions, PhotoOptions, Recipe, RunOptions
from pipeline.training.new_run import create_run

SHARE = st.floats(0.2, 0.8)


def faces(middle, spread, num=1000, seed=0):
    """(num, 20, 2) points around positions that vary a little from photo to photo, in shares of the square."""
    random = np.random.default_rng(seed)
    return np.array(middle) + random.normal(0, spread / 4, (num, 1, 2)) + random.uniform(-spread, spread, (num, 20, 2))


def cut(points, roi):
    """The share of the photos that have a point outside the ROI."""
    left, top, side = roi
    return ((points < (left, top)) | (points > (left + side, top + side))).any(axis=(1, 2)).mean()


@given(st.tuples(SHARE, SHARE), st.floats(0.02, 0.3), st.integers(0, 99))
def test_the_roi_lies_in_the_square_and_cuts_few(middle, spread, seed):
    points = faces(middle, spread, seed=seed).clip(0, 1)
    left, top, side = roi_of(points)
    assert min(left, top) >= 0
    assert max(left, top) + side <= 1 + 1e-4
    assert cut(points, (left, top, side)) <= 4 * 0.005


def test_the_roi_is_as_small_as_the_points_allow():
    points = faces((0.4, 0.6), 0.18)
    left, top, side = roi_of(points)
    assert (left + side / 2, top + side / 2) == pytest.approx((0.4, 0.6), abs=0.02)
    assert cut(points, (left, top, side)) < 0.02
    assert cut(points, (left + 0.1 * side, top + 0.1 * side, 0.8 * side)) > 0.05


def test_a_roi_is_no_smaller_than_half_the_square():
    """The pack holds the whole square at the ROI's scale."""
    assert roi_of(faces((0.9, 0.1), 0.02)) == (0.5, 0, 0.5)


def test_a_few_photos_of_another_kind_do_not_open_the_roi():
    points = faces((0.5, 0.5), 0.18)
    before = roi_of(points)
    assert before != WHOLE
    points[:3] = [5, -5]
    assert roi_of(points) == pytest.approx(before, abs=0.03)


@pytest.mark.parametrize("points", [faces((0.5, 0.5), 0.45), np.full((5, 3, 2), np.nan), np.empty((0, 3, 2))])
def test_points_that_fill_the_photos_or_are_not_known_leave_the_whole_square(points):
    assert roi_of(points) == WHOLE


def test_missing_points_count_for_nothing():
    points = faces((0.5, 0.4), 0.18)
    expected = roi_of(points[2:, 1:])
    assert expected != WHOLE
    points[:, 0] = np.nan
    points[0, :, 0] = np.nan  # a photo of which only y is known says nothing of x
    points[1] = np.nan
    assert roi_of(points) == expected


@pytest.fixture
def recipe(contest, tmp_path):
    paths = ["--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    return parse_command(["-n", "w", "-d", str(contest), "--size", "64", *paths]).recipe


def with_roi(recipe, roi):
    return replace(recipe, photos=replace(recipe.photos, roi=roi))


def test_the_roi_is_found_once(contest, tmp_path):
    cache = tmp_path / "cache"
    found = find_roi(contest / LANDMARKS, read_landmarks, resize="letterbox", cache=cache)
    assert found != WHOLE
    again = find_roi(contest / LANDMARKS, lambda *_: pytest.fail("read again"), resize="letterbox", cache=cache)
    assert again == found


@pytest.mark.parametrize(
    "content", [b"", b"[" * 10**5, b"[0.1, 0.2]", b"[0.1, NaN, 0.6]", b"[0.5, 0.1, 0.9]", b"\xff\xfe"]
)
def test_a_roi_that_was_kept_and_is_damaged_is_found_anew(content, contest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.data.roi.points_in_square", lambda *_: faces((0.5, 0.4), 0.18, num=80))
    found = find_roi(contest / LANDMARKS, read_landmarks, resize="letterbox", cache=tmp_path)
    (known,) = tmp_path.glob("roi-*.json")
    known.write_bytes(content)
    assert find_roi(contest / LANDMARKS, read_landmarks, resize="letterbox", cache=tmp_path) == found
    assert f"{known} is damaged" in capsys.readouterr().out
    assert json.loads(known.read_text()) == list(found)


def test_with_boxes_as_many_photos_are_looked_at_as_have_one(contest, tmp_path, monkeypatch):
    """Though they are few of a large table."""
    names = [f"{number}.jpg" for number in range(1000)]
    boxes = Boxes("a file", {name: [(0, 0, 10, 10)] for name in names[100:110]}, "key")
    monkeypatch.setattr("pipeline.data.roi.NUM_PHOTOS", 8)
    monkeypatch.setattr("pipeline.data.roi._frame", lambda photos, boxes, name: (np.zeros(2), np.array([10, 10])))
    points = np.arange(2000.0).reshape(1000, 1, 2)
    found = points_in_square(tmp_path, names, points, "letterbox", boxes)
    assert len(found) == 8
    rows = (found[:, 0, 0] * 10 - 0.5) / 2
    assert rows.min() == pytest.approx(100)
    assert rows.max() == pytest.approx(109)
    assert points_in_square(tmp_path, names, points, "letterbox", Boxes("a file", {}, "key")).shape == (0, 1, 2)


def test_a_run_keeps_the_roi_that_it_was_trained_with(recipe):
    """Prediction sees the test photos as the training saw its own, and a run of before there were ROIs the whole."""
    data = load_training_data(with_roi(recipe, (0.2, 0.25, 0.6)))
    run = create_run(recipe, data, floor=mean_shape_score(data))  # its recipe.yaml says auto
    assert run.recipe().photos.roi == run.photo_options().roi == data.roi == (0.2, 0.25, 0.6)
    _, test = load_test_data(run.recipe(), data.num_points)
    _, whole = load_test_data(with_roi(recipe, "whole"), data.num_points)
    np.testing.assert_allclose(test.photo_to_image[:, 0, 0], whole.photo_to_image[:, 0, 0] / 0.6, rtol=0.02)
    assert test.shown([0, 3]).shape == (2, 64, 64, 3)
    path = run.folder / "data.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "roi"}))
    (run.folder / "manifest.json").unlink()
    assert run.recipe().photos.roi == WHOLE


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
def test_points_are_looked_at_where_the_fit_puts_them(contest, tmp_path, resize):
    faults = Faults()
    pack = open_pack(
        contest / LANDMARKS,
        read_landmarks,
        cache=tmp_path,
        roi=RegionOfInterest.of(WHOLE, 256),
        resize=resize,
        faults=faults,
    )
    found = points_in_square(contest / "train/images", pack.names.tolist(), pack.values, resize)
    expected = (transform_points(pack.photo_to_image, pack.values) + 0.5) / 256
    np.testing.assert_allclose(found, expected, atol=1 / 256)  # the fit rounds to whole pixels


def test_what_was_found_while_photos_could_not_be_read_is_not_kept(contest, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.data.roi.read_photo", broken)
        assert find_roi(contest / LANDMARKS, read_landmarks, resize="letterbox", cache=cache) == WHOLE
    assert find_roi(contest / LANDMARKS, read_landmarks, resize="letterbox", cache=cache) != WHOLE


def broken(path):
    raise BrokenPhoto(f"{path} cannot be read")


def test_a_broken_photo_does_not_hide_the_roi(contest, tmp_path):
    copy = shutil.copytree(contest, tmp_path / "contest")
    before = find_roi(copy / LANDMARKS, read_landmarks, resize="letterbox", cache=tmp_path / "cache")
    next((copy / "train/images").iterdir()).write_bytes(b"no photo")
    after = find_roi(copy / LANDMARKS, read_landmarks, resize="letterbox", cache=tmp_path / "cache")
    assert after == pytest.approx(before, abs=0.05)


@pytest.mark.parametrize(("size", "scale", "kept"), [(64, 1.0, True), (64, 1.25, False), (96, 1.0, False)])
def test_weights_bring_their_mean_shape_along_only_where_it_is_of_such_images(size, scale, kept):
    options = NetworkOptions(model="squeezenet1_1", weights="none", head="linear")
    shape = np.random.default_rng(0).uniform(0.2, 0.8, (9, 2))
    earlier = make_network(Recipe(photos=PhotoOptions(size=64), network=options), None, mean_shape=64 * shape + 0.1)
    mean_shape = size * (0.5 + scale * (shape - 0.5))
    recipe = Recipe(run=RunOptions(seed=1), photos=PhotoOptions(size=size), network=options)
    network = make_network(recipe, earlier.state_dict(), mean_shape=mean_shape)
    expected = earlier.mean_shape.numpy() if kept else mean_shape
    np.testing.assert_allclose(network.mean_shape, expected, rtol=1e-6)
    assert (network.head.weight == earlier.head.weight).all()
