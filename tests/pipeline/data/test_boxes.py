"""A box is one more matrix: a photo whose box is shown is seen as the photo that is cut to it, and its points stay in
pixels of the whole photo."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from augment import RegionOfInterest, fit_box, fit_photo, transform_points
from augment.fit import square_around
from pipeline.command import parse_command
from pipeline.data.boxes import boxes_of_one, read_boxes
from pipeline.data.contest import LANDMARKS, read_landmarks
from pipeline.data.dataset import leaks, load_training_data
from pipeline.data.pack import open_pack
from pipeline.data.roi import points_in_square
from pipeline.errors import Faults, UserError
from pipeline.inference.photos import predict_photos
from pipeline.inference.submission import read_submission
from pipeline.recipe import PhotoOptions, Recipe
from tests.scripts import SMALL, call

HEADER = "file_name,left,top,right,bottom\n"


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
def test_a_box_is_the_photo_that_is_cut_to_it(resize):
    photo = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    box = (17.4, -5, 90, 62.2)
    square, matrix = fit_box(photo, box, 64, resize)
    cut, of_cut = fit_photo(photo[0:63, 17:90], 64, resize)
    assert (square == cut).all()
    points = np.array([[(0.0, 0.0), (40.0, 33.0)]])
    np.testing.assert_allclose(transform_points(matrix[None], points), transform_points(of_cut[None], points - (17, 0)))
    for one, other in zip(fit_box(photo, None, 64, resize), fit_photo(photo, 64, resize), strict=True):
        assert (one == other).all()
    assert square_around((10, 20, 30, 60), 0.25) == (-10, 10, 50, 70)
    with pytest.raises(ValueError, match="outside the photo"):
        fit_box(photo, (130, 0, 140, 9), 64, resize)


def table_of(folder, path):
    """Boxes about the points of a contest's photos."""
    table = read_landmarks(folder / LANDMARKS, Faults())
    boxes = np.concatenate([np.nanmin(table.values, axis=1), np.nanmax(table.values, axis=1)], axis=1)
    rows = [",".join([name, *map(str, box)]) for name, box in zip(table.names, boxes.tolist(), strict=True)]
    path.write_text(HEADER + "\n".join(rows))
    return path


def test_a_pack_and_the_roi_are_of_what_the_boxes_show(contest, tmp_path):
    path = table_of(contest, tmp_path / "boxes.csv")
    boxes = read_boxes(path)
    whole = {"roi": RegionOfInterest(48, 0, 0, 48), "resize": "letterbox", "faults": Faults(), "cache": tmp_path}
    pack = open_pack(contest / LANDMARKS, read_landmarks, boxes=boxes, **whole)
    plain = open_pack(contest / LANDMARKS, read_landmarks, **whole)
    assert pack.folder != plain.folder
    assert (pack.values == plain.values).all()
    seen = transform_points(pack.photo_to_image, pack.values)
    shares = points_in_square(contest / "train/images", pack.names.tolist(), pack.values, "letterbox", boxes)
    np.testing.assert_allclose((seen + 0.5) / 48, shares, atol=0.02)  # sides are whole pixels
    sizes = np.ptp(seen, axis=1).max(axis=1)
    assert (sizes > 0.6 * 48).all()
    assert (sizes > np.ptp(transform_points(plain.photo_to_image, plain.values), axis=1).max(axis=1)).all()


def test_a_photo_without_one_box_is_a_fault_with_its_name(contest, tmp_path):
    path = table_of(contest, tmp_path / "boxes.csv")
    first, second, *rest = path.read_text().splitlines()[1:]
    path.write_text(HEADER + "\n".join([second, second, *rest]))
    faults = Faults()
    roi = RegionOfInterest(48, 0, 0, 48)
    assert not open_pack(
        contest / LANDMARKS,
        read_landmarks,
        boxes=read_boxes(path),
        roi=roi,
        resize="crop",
        faults=faults,
        cache=tmp_path,
    )
    assert len(faults.lines) == 2
    assert first.split(",")[0] in faults.lines[0]
    assert "no box in" in faults.lines[0]
    assert "2 boxes in" in faults.lines[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,left,top,right,bottom\n", "line 1"),
        (HEADER + "a.jpg,1,2,3\n", "line 2"),
        (HEADER + "a.jpg,1,2,3,4\nb.jpg,5,6,5,8\n", "line 3"),
        (HEADER + "a.jpg,nan,2,3,4\n", "line 2"),
        (HEADER + "a.jpg,1_0,2,30,4\n", "line 2"),
        (HEADER + 'a.jpg,1,2,3,4\n"b.jpg,5,6,7,8\n' + 9999 * "c.jpg,1,2,3,4\n", "line .*quotation mark"),
    ],
)
def test_what_is_no_table_of_boxes_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_boxes(tmp_path / "boxes.csv")


def test_a_name_may_hold_whatever_ends_a_line_elsewhere(tmp_path):
    names = ["a\u2028b.jpg", "a\x0bb.jpg", "a\x85.jpg"]
    (tmp_path / "boxes.csv").write_text(HEADER + "".join(f"{name},1,2,3,4\r\n" for name in names), newline="")
    assert list(read_boxes(tmp_path / "boxes.csv").of_photo) == names


def fake(shown, **options):
    """An ensemble that finds the corners of what it is shown, `shown` pixels inwards."""
    recipe = Recipe(photos=PhotoOptions(**{"size": 48, "roi": (0.0, 0.0, 1.0), **options}))

    def predict_all(packs, samples):
        corners = np.array([[(shown, shown), (47 - shown, 47 - shown)]])
        return transform_points(np.linalg.inv(packs[0].photo_to_image[samples[0]]), corners)

    return SimpleNamespace(members=[SimpleNamespace(recipe=recipe, locator=None)], predict_all=predict_all)


def test_whole_photos_of_the_test_that_no_network_is_shown_are_packed_small_and_compared_all_the_same(
    contest, tmp_path
):
    """At the size of a run they took as much of the disk as those that are predicted."""
    root = shutil.copytree(contest, tmp_path / "contest")
    shown, copied = (sorted((root / part / "images").iterdir())[0] for part in ("test", "train"))
    shutil.copy(copied, shown)
    boxes = table_of(root, tmp_path / "boxes.csv")
    flags = ["-d", str(root), "--cache", str(tmp_path / "cache"), "--size", "96", "--boxes", str(boxes)]
    data = load_training_data(parse_command(flags).recipe)
    assert (data.pack.roi.size, data.test.roi.size) == (96, 64)
    (line,) = leaks(data)
    assert "1 photos of the test" in line


def test_each_box_of_a_photo_is_predicted_and_points_at_the_edge_are_said(tmp_path, capsys):
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), np.full((100, 200, 3), 99, np.uint8))
    (tmp_path / "boxes.csv").write_text(HEADER + "a.jpg,20,20,60,60\na.jpg,120,20,160,60\n")
    predict_photos(fake(8), tmp_path, tmp_path / "out", decimals=2, boxes=read_boxes(tmp_path / "boxes.csv"))
    names, points = read_submission(tmp_path / "out/points.csv")
    assert names == ["a.jpg#0", "a.jpg#1"]
    np.testing.assert_allclose(points[1] - points[0], np.full((2, 2), (100, 0)), atol=0.01)
    assert ((points[0] > 10) & (points[0] < 70)).all()
    said = capsys.readouterr().out
    assert "'b.jpg' has no box" in said
    assert "edge" not in said
    predict_photos(
        fake(0), tmp_path / "a.jpg", tmp_path / "one", decimals=2, boxes=boxes_of_one("a.jpg", (20, 20, 60, 60))
    )
    assert "a.jpg: 2 of 2" in capsys.readouterr().out


def test_a_run_of_whole_photos_is_shown_all_of_a_box_and_one_on_boxes_its_part_of_it(tmp_path):
    """The region of interest of the first is a part of photos, that of the second a part of the squares."""
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((100, 200, 3), 99, np.uint8))
    box, roi = boxes_of_one("a.jpg", (20, 20, 60, 60)), (0.25, 0.25, 0.5)

    def corners(**options):
        predict_photos(fake(0, **options), tmp_path / "a.jpg", tmp_path / "out", decimals=2, boxes=box)
        return read_submission(tmp_path / "out/points.csv")[1][0]

    whole = corners()
    np.testing.assert_allclose(corners(roi=roi), whole, atol=0.01)
    left, top = corners(roi=roi, boxes=Path("boxes.csv"))[0]
    assert (left, top) > tuple(whole[0] + 10)


def test_a_run_on_boxes_trains_and_asks_for_those_of_what_it_predicts(contest, tmp_path):
    root = shutil.copytree(contest, tmp_path / "contest")
    boxes = table_of(root, tmp_path / "boxes.csv")
    status, _, err = call("hack_train.py", tmp_path, "-n", "x", "-d", root, *SMALL, "-e", "1", "--boxes", boxes)
    assert status == 0, err
    status, _, err = call("predict.py", tmp_path, "--weights", "equal")
    assert status == 2
    assert "--boxes FILE gives those of these photos" in err
    (run,) = (tmp_path / "runs").iterdir()
    moved = boxes.rename(tmp_path / "moved.csv")
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "--boxes", moved)
    assert status == 0, err
    moved.unlink()  # as on another machine, to which the run alone was taken
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert status == 0, err
    status, _, err = call("hack_train.py", tmp_path, "-n", "y", "--init", run, "-e", "1")
    assert status == 2
    assert "--boxes FILE gives those of these photos" in err
    names = [line.split("\t")[0] for line in (root / "test/test_points.csv").read_text().splitlines()[1:]]
    (tmp_path / "test.csv").write_text(HEADER + "\n".join(f"{name},10,10,90,90" for name in names))
    status, out, err = call("predict.py", tmp_path, "--weights", "auto", "--boxes", tmp_path / "test.csv")
    assert status == 0, err
    assert "read back and verified" in out
    photo = next((root / "test/images").iterdir())
    status, out, err = call("predict.py", tmp_path, "--photo", photo, "--box", "10", "10", "90", "90")
    assert status == 0, err
    for flags in (["--box", "1", "2", "3", "4"], ["--photo", photo, "--box", "3", "2", "1", "4"]):
        status, _, err = call("predict.py", tmp_path, *flags)
        assert status == 2
        assert "--box" in err
