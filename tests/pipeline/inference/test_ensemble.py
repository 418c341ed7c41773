"""Runs that predict together: what is merged, in what order, with which weights; folds; photos outside a contest."""

import itertools
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint import load_checkpoint
from pipeline.errors import UserError
from pipeline.inference import ensemble, held_out
from pipeline.inference.ensemble import Ensemble
from pipeline.inference.member import Member
from pipeline.inference.options import PredictOptions
from pipeline.inference.predict import Found
from pipeline.inference.submission import read_submission
from pipeline.precedence import WHOLE
from pipeline.recipe import PhotoOptions, Recipe, RunOptions
from pipeline.recipe_file import read_recipe
from pipeline.runs import Run
from pipeline.training import folds
from tests.partners import PARTNERS
from tests.scripts import SMALL, call, few_kinds_of_weights, train

FOLDS = 2
VIEWS = [[], [{"MirrorAugmenter": {"probability": 1}}], [{"AffineAugmenter": {"scale": 1.08}}]]
FEW_VIEWS = ["--views", json.dumps(VIEWS)]


@pytest.fixture(autouse=True, scope="module")
def few_kinds():
    with few_kinds_of_weights():
        yield


@pytest.fixture(scope="module")
def runs(contest, tmp_path_factory):
    """A folder with two runs of other networks and sizes that hold out the same photos."""
    folder = tmp_path_factory.mktemp("runs")
    partners = folder / "partners.json"
    partners.write_text(json.dumps(PARTNERS.tolist()))
    first, _ = train(folder, contest, "-e", "1", "--train-share", "0.6", "--flip-indices", partners, *FEW_VIEWS)
    flags = ["--size", "40", "--split", first / "validation.txt", "--model", "squeezenet1_1", "-e", "1", *FEW_VIEWS]
    status, _, err = call("hack_train.py", folder, "-n", "y", "-d", contest, *SMALL, *flags)
    assert status == 0, err
    second = next(path for path in (folder / "runs").iterdir() if path != first)
    return folder, first, second


def read_json(path):
    return json.loads(path.read_text())


def predict(folder, *flags):
    status, out, err = call("predict.py", folder, *flags)
    assert status == 0, err
    return out


def of(*members):
    """Members of equal weights, as one."""
    weights = np.full(len(members), 1 / len(members))
    return Ensemble(list(members), weights, "equal weights", None, "weighted", 1.0, Path())


def test_a_run_fits_its_weights_once_and_uses_them_again(runs):
    folder, first, _ = runs
    out = predict(folder, "--run", first)
    assert re.search(r"on held-out photos +MSE +change", out)
    saved = json.loads((first / "views.json").read_text())
    assert len(saved["weights"]) == len(saved["views"]) == len(VIEWS)
    assert np.min(saved["weights"]) >= 0
    np.testing.assert_allclose(np.sum(saved["weights"], axis=0), 1, atol=1e-3)
    assert saved["equivariance"][0] == {"view": "as it is", "bias": [0.0, 0.0], "spread": 0.0, "confused": 0.0}
    assert {row["part"] for row in saved["scores"]} >= {"as it is", "Mirror", "equal weights", "chosen"}
    _, points = read_submission(first / "submission.csv")
    again = predict(folder, "--run", first, "--output", folder / "again.csv")
    assert "on held-out photos" not in again
    np.testing.assert_array_equal(read_submission(folder / "again.csv")[1], points)


def test_weights_of_other_views_are_not_taken(runs):
    folder, first, _ = runs
    path = folder / "views.json"
    path.write_text(json.dumps([[], [{"AffineAugmenter": {"scale": 0.9}}]]))
    out = predict(folder, "--run", first, "--views", path, "--weights", "equal", "--output", folder / "o.csv")
    assert "2 views, equal weights" in out
    path.write_text(json.dumps([{"augment": [], "weight": 3}, [{"AffineAugmenter": {"scale": 0.9}}]]))
    out = predict(folder, "--run", first, "--views", path, "--output", folder / "o.csv")
    assert "2 views, weights by hand" in out


def test_runs_are_merged_in_pixels_of_the_photos_and_in_any_order(runs, tmp_path):
    folder, first, second = runs
    single = []
    for run in (first, second):
        predict(folder, "--run", run, "--weights", "equal", "--decimals", "4", "--output", tmp_path / "one.csv")
        single.append(read_submission(tmp_path / "one.csv")[1])
    for order in ((first, second), (second, first)):
        flags = ("--weights", "equal", "--decimals", "4", "--output", tmp_path / "both.csv")
        predict(folder, "--run", *order, *flags)
        np.testing.assert_allclose(read_submission(tmp_path / "both.csv")[1], np.mean(single, axis=0), atol=2e-4)
    out = predict(folder, "--run", first, second, "--output", tmp_path / "fitted.csv")
    assert "photos held out by all" in out
    again = predict(folder, "--run", second, first, "--output", tmp_path / "again.csv")
    assert "photos held out by all" not in again  # the weights were saved
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "fitted.csv").read_bytes()
    predict(folder, "--run", first, second, "--merge", "median", "--output", tmp_path / "median.csv")
    expected = [read_json(tmp_path / f"{name}.csv.json")["expected"] for name in ("fitted", "median")]
    assert expected[0]["mse"] > 0
    assert expected[1] is None  # a median may be worse than its runs are on average
    out = predict(folder, "--run", first, second, "--merge", "rank", "--output", tmp_path / "rank.csv")
    assert "rank" in out


def test_photos_that_some_runs_do_not_see_have_the_mean_shape_and_the_others_their_own_points(monkeypatch):
    """As one without a box, where others of the runs find where to look."""
    names, asked = [f"{number}.jpg" for number in range(6)], np.tile([1, 0], (6, 1))
    seen = [[0, 1, 3, 4, 5], [0, 3, 4]]

    def member(number):
        def predict_together(pack, samples, asked, **_):
            values = np.array([float(name.partition(".")[0]) for name in pack.names[samples]])
            return np.broadcast_to((10 * number + values)[:, None, None], (*asked.shape, 2)), np.zeros(asked.shape)

        return SimpleNamespace(
            network=SimpleNamespace(mean_shape=torch.full((2, 2), 7.0)),
            recipe=SimpleNamespace(photos=PhotoOptions(), number=number),
            locator=None,
            predict_together=predict_together,
            predict=lambda pack, samples, **_: predict_together(pack, samples, pack.values[samples]),
        )

    def load_test_data(recipe, num_points, *, boxes):
        own = seen[recipe.number]
        pack = SimpleNamespace(
            names=np.array(names)[own], values=asked[own], photo_to_image=np.tile(np.eye(3), (len(own), 1, 1))
        )
        return SimpleNamespace(names=names, values=asked), pack

    monkeypatch.setattr(ensemble, "load_test_data", load_test_data)
    both = of(member(0), member(1))
    found = both.predict_test(batch_size=4)
    assert found.rows.tolist() == [0, 3, 4]
    assert found.samples.tolist() == [[0, 2, 3], [0, 1, 2]]
    assert found.points[:, 0, 0].tolist() == [5, 7, 7, 8, 9, 7]
    assert both.predict_all(found.packs, found.samples[:, 1:])[:, 0, 0].tolist() == [8, 9]
    seen[1] = [2]
    with pytest.raises(UserError, match="no test photo can be seen by all runs"):
        both.predict_test(batch_size=4)


def test_a_submission_of_other_boxes_is_another(monkeypatch):
    def member(on_boxes, locator):
        return SimpleNamespace(
            run=SimpleNamespace(folder=Path()),
            digest="weights",
            views=[],
            weights=np.ones(1),
            recipe=Recipe(photos=PhotoOptions(boxes=Path("b.csv") if on_boxes else None)),
            locator=locator,
        )

    boxes, others = (SimpleNamespace(key=key) for key in ("one", "other"))
    looks = SimpleNamespace(digest="looks")
    for members, told in (
        ([member(True, None)], [{"boxes"}]),
        ([member(False, looks)], [{"boxes"}]),
        ([member(True, None), member(False, looks)], [{"boxes"}, {"locator"}]),
    ):
        merged = of(*members)
        assert merged.record(boxes) != merged.record(others)
        assert [run.keys() & {"boxes", "locator"} for run in merged.record(boxes)["runs"]] == told
    alone = of(member(False, looks)).record(None)
    assert alone["runs"][0]["locator"] == "looks"
    assert "boxes" not in alone["runs"][0]


def test_fitted_weights_are_found_again_whatever_their_decimals(runs, tmp_path):
    folder, first, second = runs
    (tmp_path / "three.json").write_text(json.dumps([[], *([{"AffineAugmenter": {"scale": s}}] for s in (0.9, 1.1))]))
    flags = ("--run", first, second, "--views", tmp_path / "three.json", "--output", tmp_path / "s.csv")
    assert "photos held out by all" in predict(folder, *flags)
    assert "photos held out by all" not in predict(folder, *flags)


def test_weights_are_fitted_on_a_runs_own_data_where_another_folder_has_a_test_alone(runs, contest, tmp_path):
    folder, first, _ = runs
    shutil.copytree(contest / "test", tmp_path / "other/test")
    flags = ("--run", first, "--data", tmp_path / "other", "--weights", "fit", "--output", tmp_path / "s.csv")
    assert "on held-out photos" in predict(folder, *flags)


@given(seed=st.integers(0, 999), length=st.integers(1, 9), each_point=st.booleans())
def test_the_points_that_are_asked_are_those_of_all_points_in_that_order(seed, length, each_point):
    rng = np.random.default_rng(seed)
    points, counts = rng.uniform(0, 99, (3, 5, 7, 2)), rng.random((3, 5, 7)) < 0.8
    variances = rng.uniform(0, 9, (3, 5, 7))
    arrays = [array[[0, 2]] for array in (points, counts, variances)]

    def predict_views(*_, **__):
        return (Found(rows, *(array[:, rows] for array in arrays)) for rows in (slice(0, 2), slice(2, 5)))

    member = SimpleNamespace(
        network=SimpleNamespace(mean_shape=np.zeros((7, 2))),
        views=["a", "b", "c"],
        used=np.array([True, False, True]),
        weights=rng.uniform(0.1, 1, (3, 7) if each_point else 3),
        flip_indices=None,
        predict_views=predict_views,
    )
    asked = rng.integers(0, 7, (5, length))
    every, spreads = Member.predict(member, None, np.arange(5), batch_size=2)
    some, some_spreads = Member.predict(member, None, np.arange(5), asked, batch_size=2)
    np.testing.assert_array_equal(some, np.take_along_axis(every, asked[..., None], axis=1))
    np.testing.assert_array_equal(some_spreads, np.take_along_axis(spreads, asked, axis=1))


def test_runs_are_fitted_on_the_same_photos_whatever_their_order_and_what_each_left_out(monkeypatch):
    """Two contests with the same photos in other orders, one of which has lost a photo."""
    numbers = {name: number for number, name in enumerate("abcdefghijklmnopqrstuvwxyz")}
    contests, runs = {}, []
    for order in ("zyxwvutsrqponmlkjihgfedcba", "bdfhjlnprtvxacegikmoqsuwy"):
        values = np.array([numbers[name] for name in order], float)[:, None, None] * np.ones((1, 3, 2))
        pack = SimpleNamespace(names=np.array(list(order)), values=values)
        data = SimpleNamespace(pack=pack, validation=np.arange(len(order)), groups=values[:, 0, 0].astype(int))
        runs.append((SimpleNamespace(held_out_names=lambda: list(numbers)), order))
        contests[order] = data
    monkeypatch.setattr(held_out, "held_out", lambda run, recipe: (contests[recipe], None))
    packs, samples, groups = held_out.held_out_by_all(runs)
    one, other = (pack.values[rows, 0, 0].astype(int).tolist() for pack, rows in zip(packs, samples, strict=True))
    assert one == other == groups.tolist() == list(range(24, -1, -1))
    packs[1].values[0] += 1
    with pytest.raises(UserError, match="other points"):
        held_out.held_out_by_all(runs)


def test_weights_are_fitted_on_photos_with_points(monkeypatch):
    """A few labelled ones among many without labels are few; on none, the calibration had nothing to divide."""
    values = np.full((90, 3, 2), np.nan)
    values[::3] = 1.0
    data = SimpleNamespace(pack=SimpleNamespace(values=values), groups=np.arange(90))
    assert held_out._enough(data, np.arange(90)).tolist() == list(range(0, 90, 3))
    monkeypatch.setattr(held_out, "MAX_FITTED", 22)
    data.groups = np.where(np.arange(90) < 78, 0, np.arange(90))  # of five, those of the 22 that are drawn count
    with pytest.raises(UserError, match=r"only 22 photos with points, of [1-4] groups"):
        held_out._enough(data, np.arange(90))
    with pytest.raises(UserError, match="10 photos with points"):
        held_out._enough(data, np.arange(30))
    with pytest.raises(UserError, match="0 photos with points"):
        held_out._enough(data, np.arange(0))


def test_what_held_out_photos_and_where_they_lie_is_taken_from_the_run(monkeypatch, tmp_path):
    """Of --skip-bad-photos as of --data, which may name a test alone."""
    asked = []
    monkeypatch.setattr(held_out, "_enough", lambda data, samples: samples)
    monkeypatch.setattr(
        held_out, "load_training_data", lambda recipe, of_run: asked.append(recipe.run) or mock.MagicMock()
    )
    (tmp_path / "there/train").mkdir(parents=True)
    (tmp_path / "there/train/landmarks.csv").touch()
    (tmp_path / "empty").mkdir()
    new = RunOptions(data=tmp_path / "test")
    for own, found in (("there", "there"), ("empty", "test"), ("gone", "test")):
        options = RunOptions(data=tmp_path / own, skip_bad_photos=own == "there")
        run = mock.MagicMock(recipe=lambda options=options: Recipe(run=options), photo_options=PhotoOptions)
        held_out.held_out(run, Recipe(run=new))
        assert (asked[-1].data, asked[-1].skip_bad_photos) == (tmp_path / found, own == "there")


def test_boxes_that_some_runs_were_trained_on_are_not_shown_to_those_that_look_for_themselves():
    def member(photos, locator=None):
        network = SimpleNamespace(mean_shape=[None] * 3)
        return SimpleNamespace(recipe=Recipe(photos=photos), locator=locator, network=network)

    locator = SimpleNamespace(in_test=lambda num_points: f"found for {num_points}")
    on_boxes, located, whole = (
        member(PhotoOptions(boxes="b.csv")), member(PhotoOptions(locate=0.1), locator), member(PhotoOptions())
    )  # fmt: skip

    def shown(*members):
        return [of(*members)._boxes_of(one, "given") for one in members]

    assert shown(on_boxes, located, whole) == ["given", "found for 3", None]
    assert shown(located, whole) == ["given", "given"]
    # Those two have seen their held-out photos otherwise, which then tell nothing of the test.
    assert of(located, whole).looks_otherwise("given")
    assert not of(located, whole).looks_otherwise(None)
    assert not of(on_boxes, located, whole).looks_otherwise("given")


def test_nothing_is_expected_of_the_last_weights_where_only_the_best_were_validated():
    def expected(*checkpoints):
        members = [
            SimpleNamespace(expected=None, checkpoint=one, run=SimpleNamespace(best_mse=2.0)) for one in checkpoints
        ]
        return Ensemble.expected(SimpleNamespace(members=members, fitted_score=None, weights=np.ones(len(members))))

    assert expected("best")["mse"] == 2.0
    assert expected("last") is None
    with pytest.raises(UserError, match="--merge rank"):
        PredictOptions(merge="rank", checkpoint="last").check()


def test_uncertainty_does_not_go_where_the_submission_does(runs):
    folder, first, _ = runs
    flags = ("--weights", "equal", "--uncertainty", first / "submission.csv")
    status, _, err = call("predict.py", folder, "--run", first, *flags)
    assert status == 2
    assert "is where the submission goes" in err


def test_uncertainty_has_a_number_for_each_value_of_the_submission(runs, contest, tmp_path):
    folder, first, second = runs
    flags = ("--uncertainty", tmp_path / "sd.csv", "--output", tmp_path / "s.csv")
    predict(folder, "--run", first, second, *flags)
    deviations = pd.read_csv(tmp_path / "sd.csv", index_col=0)
    assert deviations.shape == (12, 30)
    assert deviations.index.tolist() == read_submission(tmp_path / "s.csv")[0]
    assert (deviations > 0).all(axis=None)
    assert "within two" in predict(folder, "--run", first, "--uncertainty", tmp_path / "one.csv")


def test_a_photo_and_a_folder_of_photos_are_predicted_outside_any_contest(runs, contest, tmp_path):
    folder, first, _ = runs
    photos = tmp_path / "photos"
    photos.mkdir()
    sources = sorted((contest / "test/images").iterdir())[:3]
    for number, source in enumerate(sources):
        (photos / f"{number}.jpg").write_bytes(source.read_bytes())
    (photos / "broken.jpg").write_bytes(b"no photo")
    (photos / "notes.txt").write_text("not a photo")
    out = predict(folder, "--run", first, "--photo", photos, "--output", tmp_path / "out")
    assert "broken.jpg" in out
    names, points = read_submission(tmp_path / "out/points.csv")
    assert names == ["0.jpg", "1.jpg", "2.jpg"]
    assert points.shape == (3, 971, 2)
    assert cv2.imread(str(tmp_path / "out/1.jpg.points.png")) is not None
    predict(folder, "--run", first, "--photo", photos / "1.jpg", "--output", tmp_path / "one")
    np.testing.assert_allclose(read_submission(tmp_path / "one/points.csv")[1][0], points[1], atol=0.02)
    status, _, err = call("predict.py", folder, "--run", first, "--photo", photos / "broken.jpg")
    assert status == 2
    assert err.count("\n") == 1
    # The same photo, as the contest's test has it, has the same points.
    asked = pd.read_csv(contest / "test/test_points.csv", sep="\t", index_col=0).point_index_list
    predict(folder, "--run", first, "--output", tmp_path / "s.csv")
    test_names, test_points = read_submission(tmp_path / "s.csv")
    row = test_names.index(sources[1].name)
    np.testing.assert_allclose(test_points[row], points[1][json.loads(asked[sources[1].name])], atol=0.02)


@pytest.mark.parametrize("roi", ["auto", "whole"])
def test_folds_hold_out_every_photo_once_and_predict_as_one(roi, contest, tmp_path):
    length = ["-e", "1", "--steps-per-epoch", "1"]
    flags = [*length, *FEW_VIEWS, "--folds", FOLDS, "--roi", roi]
    status, out, err = call("hack_train.py", tmp_path, "-n", "f", "-d", contest, *SMALL, *flags)
    assert status == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    held_out = [(folder / f"fold-{fold}/validation.txt").read_text().split() for fold in range(FOLDS)]
    names = pd.read_csv(contest / "train/landmarks.csv", sep="\t", usecols=[0]).file_name.tolist()
    assert sorted(itertools.chain(*held_out)) == sorted(names)
    for fold in range(FOLDS):
        run = Run(folder / f"fold-{fold}")
        points = np.load(run.held_out_points)
        assert points.shape == (len(held_out[fold]), 971, 2)
    table = pd.read_csv(folder / "held_out.csv", index_col=0)
    assert table.index.tolist() == ["fold 0", "fold 1", "all"]
    assert table.photos["all"] == 80
    weighted = np.average(table.mse[:FOLDS], weights=table.photos[:FOLDS])
    assert table.mse["all"] == pytest.approx(weighted)

    # All folds are resumed, each from where it was, wherever they lie now; those of the time before ROIs too.
    if roi == "whole":
        for path in folder.rglob("manifest.json"):
            path.unlink()
        for path in folder.rglob("recipe.yaml"):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if not line.startswith("roi")))
        for path in folder.rglob("data.json"):
            path.write_text(json.dumps({name: value for name, value in read_json(path).items() if name != "roi"}))
    folder = folder.rename(folder.with_name("moved"))
    status, out, err = call("hack_train.py", tmp_path, "--resume", folder, "-e", "2")
    assert status == 0, err
    assert [load_checkpoint(folder / f"fold-{fold}/last.pt")["progress"]["epoch"] for fold in range(FOLDS)] == [
        2
    ] * FOLDS
    assert "fold 1" in out
    assert read_recipe(folder / "recipe.yaml").optimiser.epochs == 2  # and a third sitting will know
    rois = {Run(folder / f"fold-{fold}").recipe().photos.roi for fold in range(FOLDS)}
    assert rois == {read_recipe(folder / "recipe.yaml").photos.roi}
    assert (rois == {WHOLE}) == (roi == "whole")
    if roi == "whole":
        return

    out = predict(tmp_path)
    assert str(folder / "submission.csv") in out
    assert len(pd.read_csv(folder / "submission.csv")) == 12
    (folder / "fold-1/best.pt").unlink()
    status, _, err = call("predict.py", tmp_path, "--run", folder)
    assert status == 2
    assert "--resume" in err


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (np.s_[1:, 2], "holds out all photos that have point 2"),
        (np.s_[::2], "none of the photos that fold 0 holds out has a known point"),
    ],
)
def test_a_fold_that_could_not_be_trained_or_scored_is_refused_before_any_is(monkeypatch, missing, named):
    values = np.ones((10, 3, 2), np.float32)
    values[missing] = np.nan
    data = SimpleNamespace(pack=SimpleNamespace(values=values), weights=None)
    with pytest.raises(UserError, match=named):
        folds.check_points(data, np.arange(10) % 2, 2)
    monkeypatch.setattr(folds, "split_into_folds", lambda groups, count: groups)
    data.groups = np.arange(10) % 2
    with pytest.raises(UserError, match=named):
        folds.create_folds(Recipe(), data, 2)


def test_folds_of_too_few_groups_or_with_a_split_are_refused(contest, tmp_path):
    for flags in (["--folds", "1"], ["--folds", "3", "--split", "x.txt"], ["--folds", "500"]):
        status, _, err = call("hack_train.py", tmp_path, "-d", contest, *SMALL, *flags)
        assert status == 2, flags
        assert "--folds" in err
