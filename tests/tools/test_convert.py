"""Labels of every format lie on the pixels that they mean, in the photos that are trained on, and predictions go back
to the coordinates and the form that they came from."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data.contest import GROUPS, LANDMARKS, TEST_POINTS, read_groups, read_landmarks, read_test_points
from pipeline.errors import Faults, UserError
from pipeline.inference.submission import read_submission, write_submission
from tests.tools import formats
from tools.convert import Converted, Options, convert, named, partners_by_name, write_test
from tools.convert_back import convert_back
from tools.cutting import Cut, Piece
from tools.formats import deeplabcut, label_studio, tables
from tools.formats.instance import Instance
from tools.formats.known import FORMATS

SEVERAL = ("coco", "wflw", "cvat", "label_studio", "long")  # things on a photo
WITHOUT_BOX = ("pts", "deeplabcut")
WITHOUT_GAPS = ("pts", "wflw")
GREY = (255, 200, 150)


def source(folder, kind):
    """A source in `folder` and what is on its photos."""
    found = formats.things(on_a_photo=2 if kind in SEVERAL else 1, gaps=kind not in WITHOUT_GAPS)
    formats.draw(folder, found)
    path = getattr(formats, kind)(folder, found)
    if kind == "label_studio":  # its addresses end with the name of a file
        for photo in folder.glob("video/*"):
            photo.rename(folder / photo.name)
    return path, found


def options(kind, path, out, **fields):
    return replace(Options(kind, path, out), **fields)


def is_lit(photo, point, grey):
    """Whether there is a dot of that brightness, and none beside it."""
    x, y = np.rint(point).astype(int)
    around = photo[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].astype(int)
    return abs(int(photo[y, x]) - grey) < 25 and around.max() == photo[y, x]


@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "kaggle_faces"])
def test_points_lie_on_their_pixels_and_predictions_go_back(tmp_path, kind):
    (tmp_path / "source").mkdir()
    path, found = source(tmp_path / "source", kind)
    out = tmp_path / "out"
    convert(options(kind, path, out, test=path))

    faults = Faults()
    table = read_landmarks(out / LANDMARKS, faults)
    assert not faults.lines
    assert table.values.shape == (12, 3, 2)
    for name, points in zip(table.names, table.values, strict=True):
        photo = cv2.imread(str(out / "train/images" / name), cv2.IMREAD_GRAYSCALE)
        assert (photo.shape == (formats.HEIGHT, formats.WIDTH)) == (kind in WITHOUT_BOX)
        for point, grey in zip(points, GREY, strict=True):
            assert np.isnan(point).all() or is_lit(photo, point, grey), (kind, name, point)
    missing = np.isnan([thing.points for thing in found])
    assert np.isnan(table.values).sum() == missing.sum()

    names, truth = read_submission(out / "test/truth.csv", gaps=True)
    assert read_test_points(out / TEST_POINTS, faults, num_points=3).names == names
    predicted = np.where(np.isnan(truth), 33.25, truth)
    write_submission(tmp_path / "submission.csv", names, predicted, decimals=3)
    answer = tmp_path / "answer"
    assert convert_back(out, tmp_path / "submission.csv", answer) == 12
    back = getattr(formats, f"read_{kind}")(answer, found)
    assert len(back) == 12
    for points, thing in zip(back, found, strict=True):
        known = np.isfinite(thing.points)
        np.testing.assert_allclose(points[known], thing.points[known], atol=0.006)
        assert np.isfinite(points).all()


def test_results_in_cocos_form_are_perfect_for_cocos_own_evaluation(tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path, _ = source(tmp_path, "coco")
    convert(options("coco", path, tmp_path / "out", test=path))
    names, truth = read_submission(tmp_path / "out/test/truth.csv", gaps=True)
    scores = []
    for number, shift in enumerate((0, 40)):
        write_submission(tmp_path / "s.csv", names, np.nan_to_num(truth) + shift, decimals=2)
        convert_back(tmp_path / "out", tmp_path / "s.csv", tmp_path / f"{number}.json")
        labels = COCO(str(path))
        judge = COCOeval(labels, labels.loadRes(str(tmp_path / f"{number}.json")), "keypoints")
        judge.params.kpt_oks_sigmas = np.full(3, 0.05)
        for step in (judge.evaluate, judge.accumulate, judge.summarize):
            step()
        scores.append(judge.stats[0])
    assert scores[0] == pytest.approx(1)
    assert scores[1] < 0.1


def kaggle(folder, rng):
    """training.csv, test.csv and IdLookupTable.csv as the contest has them."""
    photos = rng.integers(0, 256, (5, 16, 16))
    points = rng.uniform(0, 15, (3, 2, 2)).round(3)
    texts = [" ".join(map(str, photo.ravel())) for photo in photos]
    header = ["left_eye_center_x", "left_eye_center_y", "nose_tip_x", "nose_tip_y", "Image"]
    rows = [[*map(str, row.ravel()), text] for row, text in zip(points, texts, strict=False)]
    rows[1][2:4] = ["", ""]
    tables = {
        "training.csv": [header, *rows],
        "test.csv": [["ImageId", "Image"], ["1", texts[3]], ["2", texts[4]]],
        "IdLookupTable.csv": [
            ["RowId", "ImageId", "FeatureName", "Location"],
            *(["1", "1", "nose_tip_x", ""], ["2", "1", "left_eye_center_y", ""], ["3", "2", "nose_tip_y", ""]),
        ],
    }
    for name, table in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(table)
    return photos, points


def test_kaggles_faces_come_as_text_and_go_as_rows_that_are_asked(tmp_path):
    photos, points = kaggle(tmp_path, np.random.default_rng(0))
    out = tmp_path / "out"
    convert(options("kaggle_faces", tmp_path / "training.csv", out, test=tmp_path / "test.csv"))
    table = read_landmarks(out / LANDMARKS, Faults())
    points[1, 1] = np.nan
    np.testing.assert_allclose(table.values, points, atol=1e-3)
    for name, photo in zip(table.names, photos, strict=False):
        assert (cv2.imread(str(out / "train/images" / name), cv2.IMREAD_GRAYSCALE) == photo).all()
    names = read_test_points(out / TEST_POINTS, Faults(), num_points=2).names
    predicted = np.array([[(1, 2), (3, 4)], [(5, 6), (7, 99)]])
    write_submission(tmp_path / "s.csv", names, predicted, decimals=2)
    convert_back(out, tmp_path / "s.csv", tmp_path / "answer.csv")
    assert list(csv.reader((tmp_path / "answer.csv").open())) == [
        ["RowId", "Location"], ["1", "3.0000"], ["2", "2.0000"], ["3", "16.0000"],
    ]  # fmt: skip


def test_what_is_on_one_photo_or_in_one_video_stays_together(tmp_path):
    path, _ = source(tmp_path, "long")
    convert(options("long", path, tmp_path / "out", test_share=0.34))
    table = read_landmarks(tmp_path / "out" / LANDMARKS, Faults())
    groups = read_groups(tmp_path / "out" / GROUPS, table.names, Faults())
    assert len(table.names) == 8
    assert np.bincount(groups).tolist() == [2, 2, 2, 2]
    (tmp_path / "dlc").mkdir()
    path, _ = source(tmp_path / "dlc", "deeplabcut")
    with pytest.raises(UserError, match="one group"):
        convert(options("deeplabcut", path, tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_covered_points_are_kept_or_missing_by_the_flag(tmp_path):
    path, found = source(tmp_path, "coco")
    content = json.loads(path.read_text())
    content["annotations"][0]["keypoints"][2] = 1
    path.write_text(json.dumps(content))
    gaps = int(np.isnan([thing.points for thing in found]).sum())
    for hidden, missing in (("keep", gaps), ("missing", gaps + 2)):
        convert(options("coco", path, tmp_path / hidden, hidden=hidden, test_share=0))
        assert np.isnan(read_landmarks(tmp_path / hidden / LANDMARKS, Faults()).values).sum() == missing
        assert not (tmp_path / hidden / "test").exists()


def test_several_on_a_photo_need_boxes_or_are_cut_by_their_points(tmp_path):
    path, _ = source(tmp_path, "long")
    rows = [line.split("\t")[:5] for line in path.read_text().splitlines()]
    path.write_text("\n".join("\t".join(row) for row in rows))
    with pytest.raises(UserError, match="2 instances are on video/"):
        convert(options("long", path, tmp_path / "out"))
    convert(options("long", path, tmp_path / "out", cut="points", margin=0.5))
    table = read_landmarks(tmp_path / "out" / LANDMARKS, Faults())
    photo = cv2.imread(str(tmp_path / "out/train/images" / table.names[0]), cv2.IMREAD_GRAYSCALE)
    assert is_lit(photo, table.values[0, 0], GREY[0])


@pytest.mark.parametrize(("by", "points", "box"), [("box", 2, (0.0, 0.0, 0.0, 0.0)), ("points", 1, None)])
def test_a_box_without_an_extent_cuts_nothing(by, points, box):
    """As placeholders of zeros and single points have: what they cut was a photo of a pixel."""
    places = {str(i): (10.0 + 30 * i, 20.0) for i in range(points)}
    assert Cut(by, 0.25).box_of(Instance("a.jpg", Path("a.jpg"), places, box=box)) is None
    level = Instance("a.jpg", Path("a.jpg"), {"0": (10.0, 20.0), "1": (40.0, 20.0)}, box=(10.0, 20.0, 40.0, 20.0))
    assert Cut(by, 0.0).box_of(level) == (10, 5, 40, 35)


def test_names_tell_left_from_right():
    assert partners_by_name(["left_eye", "nose", "right_eye"]) == [2, 1, 0]
    assert partners_by_name(["LeftHip", "RightHip", "LEFT", "RIGHT"]) == [1, 0, 3, 2]
    assert partners_by_name(["left_eye", "nose"]) is None
    assert partners_by_name(["0", "1"]) is None


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("coco", lambda text: text[:-9], "no file of COCO keypoints"),
        ("coco", lambda text: text.replace('"image_id": 100', '"image_id": 5'), "image 5"),
        ("coco", lambda text: text.replace('"keypoints": [', '"keypoints": [1,', 1), "not 3 for each"),
        ("cvat", lambda text: text[:-9], "no XML"),
        ("cvat", lambda text: text.replace("<image", "<track/><image", 1), "for images"),
        ("wflw", lambda text: text.replace(" ", " 3 ", 1), "line 1 has 18 cells"),
        ("label_studio", lambda text: text.replace("keypointlabels", "keypointlabel"), "no instance with points"),
        ("label_studio", lambda text: text.replace("right_eye", "left_eye"), "two points 'left_eye'"),
        ("deeplabcut", lambda text: text.replace("bodyparts", "parts"), "not of DeepLabCut"),
        ("deeplabcut", lambda text: text[:-4] + "x", "is no number"),
        (
            "cvat",
            lambda text: text.replace(' points="', ' points="1,2;', 1),
            "a point of a skeleton with several positions",
        ),
        ("wide", lambda text: text.replace("nose_y", "chin_y"), "x and y of one point"),
        ("wide", lambda text: text + "\nshort;1", "row 14 has 2 cells"),
        ("long", lambda text: text.replace("right_eye", "nose"), "stands above already"),
        ("wide", lambda text: text.replace("video/0.png", "gone.png"), "gone.png cannot be read"),
        (
            "wide",
            lambda text: text[:-4] + "1e5",
            r"wide\.csv: video/11\.png has a point or a box that lies in no photo",
        ),
        (
            "coco",
            lambda text: text.replace('"keypoints": [', '"keypoints": [NaN, 1, 2, 1, 1, 2, 1, 1, 2], "x": [', 1),
            "lies in no photo",
        ),
        ("coco", lambda text: text.replace('"bbox": [', '"bbox": [1e999, 1, 2, 3], "x": [', 1), "lies in no photo"),
        (
            "label_studio",
            lambda text: text.replace('"keypointlabels": [', '"keypointlabels": [1, '),
            "is none: keypointl",
        ),
        ("label_studio", lambda text: text.replace('"x": ', '"z": ', 1), "rectanglelabels whose value is none: x"),
        ("label_studio", lambda text: text.replace('"x": ', '"x": 1e999, "z": '), r"json: 0\.png has .* no photo"),
    ],
)
def test_a_fault_of_a_source_is_named_and_leaves_nothing(tmp_path, kind, damage, message):
    path, _ = source(tmp_path, kind)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message):
        convert(options(kind, path, tmp_path / "out"))
    assert not list(tmp_path.glob("*out*"))


def test_a_pts_file_has_as_many_points_as_it_says(tmp_path):
    path, _ = source(tmp_path, "pts")
    (tmp_path / "video/3.pts").write_text("version: 1\nn_points: 68\n{\n1 2\n}\n")
    with pytest.raises(UserError, match="n_points: 68, and has 1"):
        convert(options("pts", path, tmp_path / "out"))
    (tmp_path / "video/3.pts").rename(tmp_path / "video/33.pts")
    with pytest.raises(UserError, match=r"33\.pts has no photo"):
        convert(options("pts", path, tmp_path / "out"))


def test_names_with_quotes_and_commas_stay_what_they_are_and_those_that_no_table_holds_are_refused(tmp_path):
    instance = Instance('say "a", 1.jpg', tmp_path / "photo", {"eye": (3.0, 4.0)})
    converted = Converted([Piece('say "a", 1.jpg', instance, None)], [(0, 0)])
    (tmp_path / "test").mkdir()
    write_test(tmp_path, converted, ["eye"], options("pts", tmp_path, tmp_path))
    names, _ = read_submission(tmp_path / "test/truth.csv")
    assert names == ['say "a", 1.jpg']
    with pytest.raises(UserError, match="not in UTF-8"):
        list(named([replace(instance, name="M\udcfcller.jpg")], Cut("never", 0.0)))


def test_what_was_noted_for_the_way_back_is_not_taken_when_it_was_changed(tmp_path):
    path, _ = source(tmp_path, "wide")
    convert(options("wide", path, tmp_path / "out", test=path))
    names, truth = read_submission(tmp_path / "out/test/truth.csv", gaps=True)
    write_submission(tmp_path / "s.csv", names, np.nan_to_num(truth), decimals=2)
    about = tmp_path / "out/source.json"
    content = json.loads(about.read_text())
    next(iter(content["photos"].values()))["corner"][0] += 1
    about.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"source\.json was changed"):
        convert_back(tmp_path / "out", tmp_path / "s.csv", tmp_path / "answer")
    del content["digest"]  # as an earlier version wrote it
    about.write_text(json.dumps(content))
    assert convert_back(tmp_path / "out", tmp_path / "s.csv", tmp_path / "answer") == len(names)


def test_predictions_of_other_photos_or_points_do_not_go_back(tmp_path):
    path, _ = source(tmp_path, "wide")
    convert(options("wide", path, tmp_path / "out", test=path))
    names, truth = read_submission(tmp_path / "out/test/truth.csv", gaps=True)
    write_submission(tmp_path / "few.csv", names, np.nan_to_num(truth[:, :2]), decimals=2)
    write_submission(tmp_path / "others.csv", [f"x{name}" for name in names], np.nan_to_num(truth), decimals=2)
    for name, message in (("few", "has 2 points"), ("others", "not a test photo")):
        with pytest.raises(UserError, match=message):
            convert_back(tmp_path / "out", tmp_path / f"{name}.csv", tmp_path / "answer")
    with pytest.raises(UserError, match=r"source\.json"):
        convert_back(tmp_path, tmp_path / "few.csv", tmp_path / "answer")


def test_names_without_their_folder_are_taken_where_they_say_which_photo(tmp_path):
    """Frames of several videos have the same names, and an upload of Label Studio a prefix of eight hex digits."""
    rows = [["scorer", "me", "me"], ["bodyparts", "nose", "nose"], ["coords", "x", "y"]]
    frames = tmp_path / "one"
    frames.mkdir()
    (frames / "0.png").touch()
    for videos, there in ((["one"], [True]), (["one", "two"], [False, False])):
        path = tmp_path / "CollectedData_me.csv"
        path.write_text(
            "".join(",".join(row) + "\n" for row in [*rows, *([f"{video}/0.png", "1", "2"] for video in videos)])
        )
        assert [one.photo.exists() for one in deeplabcut.read(path, frames).instances] == there
    path.write_text("".join(",".join(row) + "\n" for row in [*rows, ["0.png", "1", "2"], ["1.png", "3", "4"]]))
    assert [one.group for one in deeplabcut.read(path, frames).instances] == ["", ""]

    (tmp_path / "photo.jpg").touch()
    (frames / "my-photo.jpg").touch()
    value = {"x": 50, "y": 50, "keypointlabels": ["nose"]}
    region = {"type": "keypointlabels", "value": value, "original_width": 100, "original_height": 100}

    def named(address, **changes):
        task = {"data": {"image": address}, "annotations": [{"result": [region | changes]}]}
        path = tmp_path / "export.json"
        path.write_text(json.dumps([task]))
        return label_studio.read(path, None).instances[0].name

    assert named("/data/local-files/?d=shared/one/my-photo.jpg") == "one/my-photo.jpg"
    assert named("/data/upload/1/0a1b2c3d-photo.jpg") == "photo.jpg"
    assert named("/data/local-files/?d=shared/two/my-photo.jpg") == "my-photo.jpg"  # which is not there
    with pytest.raises(UserError, match="without original_width"):
        named("photo.jpg", original_width=0)


@pytest.mark.parametrize(("cell", "hidden"), [("0.0", True), ("0", True), ("False", True), ("1.0", False), ("", False)])
def test_a_point_is_hidden_however_a_table_writes_it(tmp_path, cell, hidden):
    path = tmp_path / "long.csv"
    path.write_text(f"file_name,point,x,y,visible\na.png,nose,1,2,{cell}\n")
    (one,) = tables.read_long(path, None).instances
    assert ("nose" in one.hidden) == hidden
