"""A photo is looked at where another network finds its points, in training, in prediction and outside any contest."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from augment import RegionOfInterest, transform_points
from augment.fit import square_around
from demo import pictures
from demo.result import scores_of
from models import Prediction
from pipeline.checkpoint import load_checkpoint
from pipeline.command import parse_command
from pipeline.data.boxes import MARGIN, Boxes, read_boxes
from pipeline.data.contest import LANDMARKS
from pipeline.data.dataset import load_test_data, load_training_data, open_train_photos, spread, typical_spread
from pipeline.data.loader import parse_chain
from pipeline.data.pack import Squares
from pipeline.errors import UserError
from pipeline.inference import locator as module
from pipeline.inference.locator import EachPlaced, Locator, load_locator, photo_sizes
from pipeline.inference.submission import read_submission
from pipeline.recipe import PhotoOptions, Recipe, RunOptions
from pipeline.runs import Run
from pipeline.runtime import Runtime
from pipeline.stages import OF_ONE_SIZE
from pipeline.training import command as training_command
from pipeline.training import new_run
from pipeline.training.locating import after_locating, check_located, locator_recipe
from tests.ranks import results_of
from tests.scripts import SMALL, call
from tools.average import average_runs

LOCATE = ("-e", "2", "--locate", "0.5")
ONE_STEP = ("--steps-per-epoch", "1", "--views", "[[]]")
HERE = {"rtol": 0, "atol": 0.051}  # boxes are written to a tenth of a pixel


class Corners(torch.nn.Module):
    """Finds two points of its image, whatever that shows."""

    def __init__(self, low, high):
        super().__init__()
        self.mean_shape = torch.from_numpy(np.array([low, high], np.float32))
        self.shift = torch.zeros(2)

    def predict(self, images):
        return Prediction(self.mean_shape.expand(len(images), -1, -1), None)


def locator_of(low, high) -> Locator:
    recipe = Recipe(photos=PhotoOptions(size=48, roi=(0.0, 0.0, 1.0)))
    runtime = Runtime.choose(gpu=False, precision="fp32")
    return Locator(SimpleNamespace(folder="x"), recipe, Corners(low, high).eval(), runtime, "", spread=0.0)


@pytest.mark.parametrize(("height", "width"), [(90, 60), (60, 90), (75, 75), (200, 31)])
@pytest.mark.parametrize("resize", ["letterbox", "crop"])
@pytest.mark.parametrize("side", [0.7, 1.0])
def test_sizes_of_photos_follow_from_how_they_lie_in_their_squares(height, width, resize, side):
    roi = RegionOfInterest.of((0.1 * (1 - side), 0.5 * (1 - side), side), 64)
    squares = Squares.of({"a": np.zeros((height, width, 3), np.uint8)}, roi, resize)
    np.testing.assert_allclose(photo_sizes(squares, np.arange(1)), [(width, height)], atol=0.02 * max(height, width))


@pytest.mark.parametrize(("low", "high"), [((10.0, 12.0), (30.0, 40.0)), ((-20.0, 5.0), (60.0, 6.0))])
def test_a_box_lies_about_the_middle_of_the_points_and_grows_with_their_spread(low, high):
    photos = {"a": np.zeros((96, 96, 3), np.uint8), "b": np.zeros((48, 48, 3), np.uint8)}
    found = locator_of(low, high).squares(photos)
    middle = (np.array(low) + high) / 2
    reach = module.REACH * np.linalg.norm(np.array(high) - low) / 2
    for name, scale in (("a", 2), ("b", 1)):
        edges = np.concatenate((middle - reach, middle + reach))
        np.testing.assert_allclose(found[name], square_around(tuple(scale * (edges + 0.5) - 0.5), MARGIN), atol=0.2)


class Spots(Corners):
    """Finds the bright spot of its image."""

    def predict(self, images):
        bright = images.double().mean(dim=1)
        mass = bright.sum(dim=(1, 2)).clamp(min=1e-3)
        at = torch.arange(bright.shape[2]).double()
        middle = torch.stack(((bright.sum(1) * at).sum(1), (bright.sum(2) * at).sum(1)), dim=1) / mass[:, None]
        home = self.mean_shape.double().mean(0)
        shape = self.mean_shape.double() - home
        scale = (mass / 255 / torch.pi).sqrt() / shape.norm(dim=1).mean()
        middle, scale = self.said(middle, scale, home)
        return Prediction((middle[:, None] + scale[:, None, None] * shape).float(), None)


class HalfWay(Spots):
    """Half as far from the middle, and half as much larger or smaller, as it is."""

    def said(self, middle, scale, home):
        return (home + middle) / 2, (1 + scale.log() / 2).clamp(0.3, 3)


class OnlyLarge(Spots):
    """Where it is large enough to be seen; else the network says the mean shape."""

    def said(self, middle, scale, home):
        seen = scale > 0.3
        return torch.where(seen[:, None], middle, home), torch.where(seen, scale, 1)


def spot(middle: tuple[int, int], radius: int) -> np.ndarray:
    photo = np.zeros((192, 192, 3), np.uint8)
    return cv2.circle(photo, middle, radius, (255, 255, 255), -1, cv2.LINE_AA)


def locator_of_spots(kind: type[Spots]) -> Locator:
    low, high = (24.0, 19.0), (24.0, 29.0)
    return replace(locator_of(low, high), network=kind(low, high).eval(), spread=5.0)


@pytest.mark.parametrize(("middle", "radius"), [((50, 70), 12), ((70, 110), 18), ((130, 60), 30), ((60, 130), 9)])
def test_what_is_found_half_way_at_first_is_found_step_by_step(middle, radius, monkeypatch):
    photo, locator = spot(middle, radius), locator_of_spots(HalfWay)
    monkeypatch.setattr(module, "NOT_SEEN", np.inf)
    far = []
    for looks in (1, 2, 3, 8):
        monkeypatch.setattr(module, "LOOKS", looks)
        left, top, right, bottom = locator.squares({"a": photo})["a"]
        side = 4 * (0.5 + MARGIN) * module.REACH * radius
        far.append(np.abs(((left + right) / 2 - middle[0], (top + bottom) / 2 - middle[1], right - left - side)))
    assert np.all(far[1] < 0.7 * far[0] + 1)
    assert np.all(far[2][:2] < 0.3 * far[0][:2] + 1)
    assert np.all(far[3] < 4)


@pytest.mark.parametrize("middle", [(30, 100), (160, 40), (100, 165)])
def test_what_is_too_small_to_be_seen_at_first_is_searched_for_and_found(middle, monkeypatch):
    photo = spot(middle, 4)
    left, top, right, bottom = locator_of_spots(OnlyLarge).squares({"a": photo})["a"]
    np.testing.assert_allclose(((left + right) / 2, (top + bottom) / 2), middle, atol=1)
    assert right - left == pytest.approx(4 * (0.5 + MARGIN) * module.REACH * 4.5, rel=0.1)  # it is drawn so large
    monkeypatch.setattr(module, "NOT_SEEN", np.inf)
    left, top, right, bottom = locator_of_spots(OnlyLarge).squares({"a": photo})["a"]
    assert np.linalg.norm(((left + right) / 2 - middle[0], (top + bottom) / 2 - middle[1])) > 40


@pytest.mark.parametrize(("aside", "larger", "stays"), [(12, 1, True), (0, 1.5, True), (48, 1, False), (0, 4, False)])
def test_a_search_leaves_a_square_that_shows_much_the_same(aside, larger, stays):
    """Of two faces side by side it would find the other as well."""
    middle, half = np.array((60, 100)), module.REACH * 12.5
    pack = Squares.of({"a": spot((60, 100), 12)}, RegionOfInterest.of((0.0, 0.0, 1.0), 48), "letterbox")
    known = np.concatenate((middle + aside - larger * half, middle + aside + larger * half))
    found = np.concatenate((middle - half, middle + half))
    (searched,) = locator_of_spots(OnlyLarge)._search(pack, np.zeros(1, int), known[None])
    np.testing.assert_allclose(searched, known if stays else found, atol=2)


def test_what_a_search_finds_is_not_taken_while_looks_differ(monkeypatch):
    monkeypatch.setattr(
        OnlyLarge, "said", lambda self, middle, scale, home: ((home + middle) / 2, torch.ones_like(scale))
    )
    pack = Squares.of({"a": spot((60, 100), 12)}, RegionOfInterest.of((0.0, 0.0, 1.0), 48), "letterbox")
    known = np.array([(150.0, 10.0, 180.0, 40.0)])
    np.testing.assert_array_equal(locator_of_spots(OnlyLarge)._search(pack, np.zeros(1, int), known), known)


def test_a_locator_that_sees_its_points_does_not_search_and_one_that_does_not_does(monkeypatch):
    searched = []
    monkeypatch.setattr(Locator, "_search", lambda self, pack, samples, known: searched.extend(samples) or known)
    photos = {"seen": spot((60, 100), 20), "not seen": spot((50, 90), 4), "seen as well": spot((110, 90), 8)}
    locator_of_spots(OnlyLarge).squares(photos)
    assert searched == [1]


def test_those_photos_are_searched_first_whose_looks_differ_most():
    distances = np.full(100, 0.1)
    assert module.to_be_searched(distances, most=5).tolist() == []
    distances[[7, 3, 90]] = 0.5, np.inf, module.NOT_SEEN + 0.01
    assert module.to_be_searched(distances, most=3).tolist() == [3, 7, 90]
    distances[20:40] = np.linspace(0.4, 2, 20)
    assert module.to_be_searched(distances, most=5).tolist() == [3, *range(36, 40)]


def boxes_of_many_spots(unit):
    rng = np.random.default_rng(0)
    photos = {str(k): spot(tuple(map(int, rng.integers(20, 170, 2))), 15 if k % 3 else 4) for k in range(19)}
    with mock.patch.multiple(module, BATCH=unit, AT_ONCE=unit):
        pack = Squares.of(photos, RegionOfInterest.of((0.0, 0.0, 1.0), 48), "letterbox")
        return locator_of_spots(OnlyLarge)._boxes(pack, share=0.25)


def test_what_is_searched_and_found_depends_neither_on_blocks_nor_on_ranks(tmp_path, monkeypatch):
    alone = boxes_of_many_spots(128)
    np.testing.assert_array_equal(boxes_of_many_spots(2), alone)
    for found in results_of(2, tmp_path, boxes_of_many_spots, 2):
        np.testing.assert_array_equal(found, alone)
    monkeypatch.setattr(module, "NOT_SEEN", np.inf)
    assert (boxes_of_many_spots(128) != alone).any(axis=1).sum() == 5


def test_of_a_contest_no_more_looks_are_taken_than_a_session_keeps_time_for(monkeypatch):
    """Where nothing is seen in any photo, and all that is said is unusual."""
    locator = replace(locator_of_spots(OnlyLarge), spread=3.0)
    pack = Squares.of(
        {str(k): spot((60, 100), 4) for k in range(60)}, RegionOfInterest.of((0.0, 0.0, 1.0), 48), "letterbox"
    )
    shown = []
    predict = OnlyLarge.predict
    monkeypatch.setattr(OnlyLarge, "predict", lambda self, images: shown.append(len(images)) or predict(self, images))
    locator._boxes(pack, share=module.SEARCHED)
    assert sum(shown) == pytest.approx(module.MOST_LOOKS * 60)


def test_parts_of_a_square_are_shown_twice_as_large_as_the_square_also_beside_the_region_of_interest():
    roi = RegionOfInterest.of((0.1, 0.2, 0.8), 48)  # of a square of 60 pixels
    matrices = np.linalg.inv(np.array(module.parts_of_square(roi)))
    shown = transform_points(matrices, np.broadcast_to([(-0.5, -0.5), (47.5, 47.5)], (9, 2, 2)))
    shown = transform_points(np.linalg.inv(roi.matrix), shown)
    np.testing.assert_allclose(shown[:, 1] - shown[:, 0], 30)
    at = (-0.5, 14.5, 29.5)
    np.testing.assert_allclose(shown[:, 0], [(x, y) for y in at for x in at], atol=1e-9)


def test_squares_are_compared_with_their_margins():
    a = np.array([(0.0, 0.0, 10.0, 10.0)] * 4)
    b = np.array([(0.0, 0.0, 10.0, 10.0), (7.5, 0.0, 17.5, 10.0), (15.0, 0.0, 25.0, 10.0), (3.0, 3.0, 7.0, 7.0)])
    np.testing.assert_allclose(module.shown_overlap(a, b), [1, 1 / 3, 0, 0.16])
    np.testing.assert_allclose(module.shown_overlap(b, a), module.shown_overlap(a, b))


def test_the_distance_of_points_is_relative_to_their_spreads():
    points = np.random.default_rng(0).normal(size=(3, 5, 2))
    aside = spread(points)[:, None, None] * np.array((0.3, 0.4))
    np.testing.assert_allclose(module.relative_distance(points, points + aside), 0.5)
    np.testing.assert_allclose(module.relative_distance(7 * points, 7 * (points + aside)), 0.5)
    assert np.isinf(module.relative_distance(points, 0 * points)).all()


def test_another_look_is_taken_at_what_is_unusual_alone():
    locator = replace(locator_of((10.0, 12.0), (30.0, 40.0)), spread=9.0)  # whose middle is 20, 26
    shape = np.array([(-9.0, 0.0), (9.0, 0.0)])
    usual = [shape + (20, 26), 1.2 * shape + (22, 24), shape / 1.2 + (20, 29)]
    unusual = [1.3 * shape + (20, 26), shape / 1.3 + (20, 26), shape + (25, 26), shape + (20, 16), 0 * shape]
    found = locator._is_unusual(np.array([*usual, *unusual]))
    assert found.tolist() == [False] * len(usual) + [True] * len(unusual)


def test_a_look_shows_each_photo_at_the_middle_of_the_mean_shape_and_in_the_typical_size():
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 60, (7, 1, 2)) + rng.uniform(0.5, 1.9, (7, 1, 1)) * rng.uniform(-8, 8, (7, 5, 2))
    locator = replace(locator_of((10.0, 12.0), (30.0, 40.0)), spread=9.0)
    shown = locator._about(points).of_block(slice(2, 6), 48).move(points[2:6])
    np.testing.assert_allclose(shown.mean(axis=1), np.broadcast_to((20.0, 26.0), (4, 2)), atol=1e-9)
    np.testing.assert_allclose(spread(shown), 9.0, rtol=1e-9)


def test_points_that_are_found_in_a_look_come_home():
    """The network finds the same points in each image, and so another part of each photo."""
    locator, photos = (
        locator_of((10.0, 12.0), (30.0, 40.0)),
        {"a": np.zeros((96, 96, 3), np.uint8)} | {"b": np.zeros((48, 96, 3), np.uint8)},
    )
    pack = Squares.of(photos, RegionOfInterest.of((0.0, 0.0, 1.0), 48), "letterbox")
    view = EachPlaced(np.array([np.diag((2.0, 2.0, 1.0)), [[0.5, 0, 3], [0, 0.5, -4], [0, 0, 1]]]))
    (found,) = locator._look(pack, np.arange(2), [view])
    found = transform_points(pack.photo_to_image, found)
    said = np.array([(10.0, 12.0), (30.0, 40.0)])
    np.testing.assert_allclose(found, [said / 2, 2 * (said - (3, -4))], atol=1e-4)


def test_the_typical_spread_is_that_of_shapes_whose_points_are_all_there(contest, tmp_path):
    data = load_training_data(parse_command(["-d", str(contest), "--cache", str(tmp_path), "--size", "48"]).recipe)
    points = transform_points(data.pack.photo_to_image[data.train], data.pack.values[data.train])
    known = ~np.isnan(points).any(axis=(1, 2))
    whole = typical_spread(data)
    assert whole == pytest.approx(np.median(spread(points[known])), rel=0.05)
    values = np.array(data.pack.values)
    values[:, data.mean_shape[:, 1] > np.median(data.mean_shape[:, 1])] = np.nan  # the lower half of each shape
    values[0] = np.nan
    gaps = SimpleNamespace(photo_to_image=data.pack.photo_to_image, values=values)
    assert typical_spread(replace(data, pack=gaps)) == pytest.approx(whole, rel=0.05)
    upper = transform_points(data.pack.photo_to_image[data.train[1:]], values[data.train[1:]])
    assert np.median(spread(upper)) < 0.9 * whole
    none = SimpleNamespace(photo_to_image=data.pack.photo_to_image, values=np.full_like(values, np.nan))
    assert typical_spread(replace(data, pack=none)) == 0


@pytest.mark.parametrize("at", [(-500.0, 10.0), (500.0, 500.0), (20.0, -500.0)])
def test_a_box_reaches_into_its_photo_wherever_the_points_are_found(at):
    photos = {"a": np.zeros((60, 20, 3), np.uint8), "b": np.zeros((20, 60, 3), np.uint8)}
    for (left, top, right, bottom), photo in zip(
        locator_of(at, np.array(at) + 2).squares(photos).values(), photos.values(), strict=True
    ):
        height, width = photo.shape[:2]
        assert min(right, width) - max(left, 0) > 0.5
        assert min(bottom, height) - max(top, 0) > 0.5


def test_the_locator_is_the_same_network_on_whole_photos_of_half_the_size(tmp_path):
    flags = ["--locate", "0.25", "--size", "224", "--progressive", "[[0.5, 128]]", "--minutes", "4", "-b", "7"]
    recipe = parse_command([*flags, "--top-perc-train", "30", "--roi", "0", "0", "0.5"]).recipe
    own = locator_recipe(recipe, tmp_path)
    assert (own.photos.size, own.photos.progressive, own.photos.roi, own.photos.locates) == (96, (), "auto", False)
    assert (own.optimiser.epochs, own.optimiser.minutes) == (5, 1)
    assert (after_locating(recipe).optimiser.epochs, after_locating(recipe).optimiser.minutes) == (15, 3)
    assert own.augmentation.augment[1:] == recipe.augmentation.augment
    assert (own.network, own.optimiser.batch_size, own.loss.trims) == (recipe.network, 7, False)
    for head in OF_ONE_SIZE:  # the run starts from its weights
        assert locator_recipe(parse_command([*flags[:4], "--head", head]).recipe, tmp_path).photos.size == 224


@pytest.mark.parametrize(
    "flags",
    [
        ["--boxes", "b.csv", "--locate", "0.5"],
        ["--locate", "0.5", "--locator", "runs/x"],
        ["--folds", "2", "--locator", "runs/x"],
    ],
)
def test_what_says_twice_where_to_look_is_refused(flags):
    with pytest.raises(UserError, match="--locat"):
        parse_command(flags)


@pytest.fixture(scope="module")
def located(contest, tmp_path_factory):
    """A run with a locator of its own, and its submission."""
    folder = tmp_path_factory.mktemp("located")
    status, _, err = call("hack_train.py", folder, "-n", "x", "-d", contest, *SMALL, *LOCATE)
    assert status == 0, err
    (run,) = (folder / "runs").iterdir()
    status, out, err = call("predict.py", folder, "--weights", "auto")
    assert status == 0, err
    assert "read back and verified" in out
    return Run(run)


def test_a_run_is_shown_what_its_locator_finds_in_training_and_in_the_test(located, contest):
    recipe = located.recipe()
    runtime = Runtime.choose(gpu=False, precision="fp32")
    locator = load_locator(located.locator, recipe.run, runtime)
    assert locator.spread == typical_spread(load_training_data(locator.recipe))
    assert locator.in_train(open_train_photos(locator.recipe)).read_text() == located.boxes.read_text()
    assert set(located.held_out_names()) == set(located.locator.held_out_names())
    boxes = locator.in_test(971)
    photos = {name: cv2.imread(str(contest / "test/images" / name))[:, :, ::-1] for name in boxes.of_photo}
    for name, square in locator.squares(photos).items():
        np.testing.assert_allclose(square, boxes.square(name), **HERE)
    _, pack = load_test_data(recipe, 971, boxes=boxes)
    truth = read_submission(contest / "test_truth.csv")[1]
    seen = transform_points(pack.photo_to_image, truth.astype(float))
    _, whole = load_test_data(located.locator.recipe(), 971)
    extents = np.ptp(seen, axis=1).max(axis=1) / pack.roi.size
    assert extents.std() < np.ptp(transform_points(whole.photo_to_image, truth.astype(float)), axis=1).max(axis=1).std()


def test_a_photo_outside_the_contest_is_predicted_as_in_it(located, contest, tmp_path):
    names, points = read_submission(located.submission)
    status, _, err = call(
        "predict.py", tmp_path, "--run", located.folder, "--photo", contest / "test/images", "--output", tmp_path / "o"
    )
    assert status == 0, err
    photos, found = read_submission(tmp_path / "o/points.csv")
    table, _ = load_test_data(located.recipe(), 971)
    row_of = {name: row for row, name in enumerate(photos)}
    for name, own, asked in zip(names, points, table.values, strict=True):
        np.testing.assert_allclose(found[row_of[name]][asked], own, atol=0.5)


def test_the_recipe_of_a_run_with_a_locator_is_one_for_others_which_train_their_own(located):
    recipe = parse_command(["--config", str(located.recipe_path), "--seed", "1"]).recipe
    assert (recipe.photos.locate, recipe.photos.locator) == (located.recipe().photos.locate, None)
    assert located.photo_options().locator == located.locator.folder


def test_an_augmenter_that_does_not_suit_the_run_is_refused_before_its_locator_is_trained(contest):
    augment = '[{"AlbumentationsAugmenter": {"transforms": [{"GridDropout": {"unit_size_range": [40, 56], "p": 1}}]}}]'
    flags = ["-d", str(contest), "--locate", "0.5", "--weights", "none", "--size", "96", "--augment", augment]
    recipe = parse_command([*flags, "--progressive", "[[0.5, 48]]"]).recipe
    parse_chain(locator_recipe(recipe, contest))
    with pytest.raises(UserError, match=r"^augment: "):
        check_located(recipe)


def with_its_locator_alone(located, folder) -> Run:
    """A copy of the run as it is when its locator has been trained and nothing of the run itself is there yet."""
    run = Run(shutil.copytree(located.folder, folder))
    for path in folder.iterdir():
        if path.name not in ("recipe.yaml", "locator"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return run


def assert_ends_as(run, located):
    assert run.boxes.read_text() == located.boxes.read_text()
    again, once = (load_checkpoint(one.best)["network"] for one in (run, located))
    assert all(torch.equal(again[name], once[name]) for name in once)


def test_a_run_that_is_stopped_in_its_locator_ends_as_one_that_was_not(located, contest, tmp_path):
    run = with_its_locator_alone(located, tmp_path / "run")
    run.locator.last.unlink()
    run.locator.best.unlink()
    status, _, err = call("hack_train.py", tmp_path, "--resume", run.folder)
    assert status == 0, err
    assert_ends_as(run, located)


def test_a_run_may_look_where_another_has_found_the_points_and_stays_whole_without_it(located, contest, tmp_path):
    other = shutil.copytree(located.locator.folder, tmp_path / "other")
    flags = ("-n", "y", "-d", contest, *SMALL, *ONE_STEP, "-e", "1", "--locator")
    status, _, err = call("hack_train.py", tmp_path, *flags, tmp_path / "nowhere")
    assert status == 2
    assert "is not the folder of a run" in err
    status, _, err = call("hack_train.py", tmp_path, *flags, located.folder)
    assert status == 2
    assert "give a run that is shown whole ones" in err
    status, _, err = call("hack_train.py", tmp_path, *flags, other, "--seed", "3")
    assert status == 2
    assert "--split" in err
    status, _, err = call("hack_train.py", tmp_path, *flags, other)
    assert status == 0, err
    shutil.rmtree(other)
    (run,) = (tmp_path / "runs").iterdir()
    assert Run(run).boxes.read_text() == located.boxes.read_text()
    status, _, err = call("predict.py", tmp_path, "--weights", "equal")
    assert status == 0, err
    status, _, err = call("hack_train.py", tmp_path, "-n", "z", "--init", run, *ONE_STEP, "-e", "1")
    assert status == 0, err
    for flag, value in (("--locator", located.locator.folder), ("--boxes", located.boxes)):
        status, _, err = call("hack_train.py", tmp_path, "-n", "z", "--init", run, "-e", "1", flag, value)
        assert status == 2
        assert f"contradicts --init {run}" in err
    (again,) = (tmp_path / "runs").glob("*_z_*")
    assert Run(again).recipe().photos.roi == Run(run).recipe().photos.roi
    assert read_boxes(Run(again).boxes) is not None


def test_folds_and_stages_look_where_their_own_locators_say(contest, tmp_path):
    short = (*LOCATE, *ONE_STEP, "--limit-photos", "24", "--flip-indices", "none")
    status, out, err = call("hack_train.py", tmp_path, "-n", "f", "-d", contest, *SMALL[:-2], *short, "--folds", "2")
    assert status == 0, err
    (folds,) = (tmp_path / "runs").iterdir()
    assert all((folds / f"fold-{k}/locator/best.pt").exists() for k in (0, 1))
    told = [line.split("--resume ")[1] for line in out.splitlines() if "--resume" in line]
    assert set(told) == {str(folds)}
    status, _, err = call("hack_train.py", tmp_path, "--resume", folds)
    assert status == 0, err
    status, _, err = call("predict.py", tmp_path, "--run", folds, "--weights", "equal")
    assert status == 0, err
    shutil.rmtree(folds)
    stages = '[{"learning_rate": 0.001}, {"learning_rate": 0.0001}]'
    status, _, err = call("hack_train.py", tmp_path, "-n", "s", "-d", contest, *SMALL, *short, "--stages", stages)
    assert status == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    assert Run(folder / "stage-1").boxes.read_text() == Run(folder / "stage-0").boxes.read_text()
    status, out, err = call("predict.py", tmp_path, "--weights", "equal")
    assert status == 0, err
    assert "stage-1" in out


def test_an_average_of_its_epochs_looks_where_the_run_does(located, tmp_path):
    run = Run(shutil.copytree(located.folder, tmp_path / "run"))
    for epoch in (0, 1):
        shutil.copyfile(run.best, run.folder / f"best-epoch-{epoch}.pt")
    averaged = average_runs([run], tmp_path / "average", Runtime.choose(gpu=False, precision="fp32"))
    assert averaged.photo_options().boxes.read_text() == located.boxes.read_text()
    assert averaged.best_mse == pytest.approx(located.best_mse, rel=1e-3)


def test_a_rate_is_looked_for_where_a_locator_that_is_there_already_says(monkeypatch, capsys):
    found = []
    monkeypatch.setattr(training_command, "prepare", lambda recipe, earlier: (found.append(recipe.photos), None))
    monkeypatch.setattr(training_command, "find_rate", lambda *arguments: None)
    for photos in (PhotoOptions(locator=Path("x"), locate=0.2), PhotoOptions(locate=0.2)):
        training_command.find_learning_rate(Recipe(photos=photos))
        assert ("on whole photos" in capsys.readouterr().out) == (photos.locator is None)
    assert [(photos.locator, photos.locate) for photos in found] == [(Path("x"), 0), (None, 0)]


def test_what_the_run_cannot_be_trained_with_is_refused_before_its_locator_is_trained(contest, tmp_path):
    (tmp_path / "regions.json").write_text('{"nose": [4000]}')
    for flags, said in (
        (["--regions", tmp_path / "regions.json"], "nose names '4000'"),
        (["--model", "vit_b_32", "--size", "200"], "--size 200"),
    ):
        status, out, err = call("hack_train.py", tmp_path, "-n", "x", "-d", contest, *SMALL, *LOCATE, *flags)
        assert status == 2
        assert said in err
        assert "locator  " not in out
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_locator_that_is_trained_is_kept_where_the_run_behind_it_could_not_be_written(located, contest, tmp_path):
    run = with_its_locator_alone(located, tmp_path / "run")
    with mock.patch.object(new_run, "sealed", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        status, _, err = call("hack_train.py", tmp_path, "--resume", run.folder)
    assert status == 2, err
    assert run.locator.is_made
    assert not run.is_made
    status, _, err = call("hack_train.py", tmp_path, "--resume", run.folder)
    assert status == 0, err
    assert_ends_as(run, located)


def test_a_stage_with_a_locator_that_was_stopped_before_its_first_checkpoint_begins_anew(located, tmp_path):
    own = Run(tmp_path / "stage-1/locator")
    own.folder.mkdir(parents=True)
    new_run._copy_locator(located.locator, own)
    new_run._copy_locator(located.locator, own)
    assert own.best.read_bytes() == located.locator.best.read_bytes()


def test_a_locator_of_an_earlier_version_which_has_no_manifest_is_taken(located, tmp_path):
    earlier, own = Run(shutil.copytree(located.locator.folder, tmp_path / "earlier")), Run(tmp_path / "run/locator")
    (earlier.folder / "manifest.json").unlink()
    own.folder.parent.mkdir()
    new_run._copy_locator(earlier, own)
    assert own.recipe() == earlier.recipe()


def test_boxes_that_were_found_before_are_of_the_same_pixels(tmp_path, monkeypatch):
    """Which the fingerprint of a pack, by names, points and sizes, does not tell."""
    locator = replace(locator_of((10.0, 12.0), (30.0, 40.0)), recipe=Recipe(run=RunOptions(cache=tmp_path)))
    monkeypatch.setattr(Locator, "_table", lambda self, pack: Boxes("x", {"a": [(0, 0, 1, 1)]}, ""))
    packs = [SimpleNamespace(folder=tmp_path / name, fingerprint="same") for name in ("one", "other", "one")]
    first, second, again = map(locator.in_train, packs)
    assert first == again != second


def test_the_demo_shows_whole_photos_of_a_run_that_is_shown_parts(located, contest):
    scores = scores_of(contest, located.folder.parent)
    assert scores["mean shape"]["validation"] == located.locator.about_data().mean_shape.mse
    assert scores["mean shape"]["test"] > scores["network"]["test"]
    with mock.patch.object(pictures, "gallery", wraps=pictures.gallery) as gallery:
        picture = pictures.draw_predictions(contest, located.folder.parent)
    pack = gallery.call_args.args[0]
    _, whole = load_test_data(located.locator.recipe(), 971)
    np.testing.assert_allclose(pack.photo_to_image, whole.photo_to_image)
    assert picture.std() > 20  # it is not blank


def test_data_that_are_refused_leave_no_folder(contest, tmp_path):
    root = shutil.copytree(contest, tmp_path / "contest")
    (root / LANDMARKS).write_text((root / LANDMARKS).read_text().replace("\t", "\tx", 2000))
    status, _, err = call("hack_train.py", tmp_path, "-n", "x", "-d", root, *SMALL, *LOCATE)
    assert status == 2, err
    assert not list((tmp_path / "runs").iterdir())
