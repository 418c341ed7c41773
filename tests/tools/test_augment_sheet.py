"""Contact sheets show each parameter at its ends and middle, what the inverse brings back, and fit on a screen."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from augment import (
    AffineAugmenter,
    AlbumentationsAugmenter,
    BlurAugmenter,
    Chain,
    GreyAugmenter,
    MirrorAugmenter,
    RandomAugmenter,
    RegionOfInterest,
)
from pipeline.data.drawing import GAP
from pipeline.errors import UserError
from tests.partners import PARTNERS
from tools import augment_sheet as sheet
from tools.augment_sheet import (
    HIGHEST,
    NUM_DRAWS,
    NUM_PHOTOS,
    Photos,
    augmenters_sheet,
    draws_sheet,
    rows_of,
)
from tools.augment_sheet import SIDE as TILE

SIZE = 64  # of the images


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 6) for image in noise])
    images = torch.from_numpy(smooth).permute(0, 3, 1, 2)
    return Photos(images, rng.uniform(20, 44, (2, len(PARTNERS), 2)), PARTNERS, RegionOfInterest(SIZE, 0, 0, SIZE))


def test_a_parameter_with_a_range_is_shown_at_its_ends_and_middle():
    rotation, scale = rows_of(AffineAugmenter(rotation=(-20, 10), scale=(0.5, 2.0), shift_x=0.1))
    assert (rotation.title, [caption for caption, _ in rotation.settings]) == ("Affine rotation", ["-20", "-5", "10"])
    assert (scale.title, [caption for caption, _ in scale.settings]) == ("Affine scale", ["0.5", "1", "2"])
    assert rotation.settings[2][1] == AffineAugmenter(rotation=10, scale=1.0, shift_x=0.1)


def test_an_augmenter_without_ranges_has_a_row_and_one_that_may_not_fire_does():
    assert [row.settings for row in rows_of(GreyAugmenter(probability=0.1))] == [[("", GreyAugmenter())]]
    choice = RandomAugmenter(augmenters=(GreyAugmenter(), BlurAugmenter(sigma=(1, 2))))
    assert [row.title for row in rows_of(choice)] == ["Grey", "Blur sigma"]


def test_what_is_brought_back_is_what_was_there(photos):
    still = photos[0].tile(photos[0].draw(Chain(()), seed=0))
    for augmenter in (AffineAugmenter(rotation=12, scale=0.9), MirrorAugmenter(probability=1.0)):
        view = photos[0].draw(augmenter, seed=0)
        assert np.abs(photos[0].tile(view) - still.astype(int)).mean() > 4
        inner = np.s_[TILE // 4 : 3 * TILE // 4, TILE // 4 : 3 * TILE // 4]
        assert np.abs(photos[0].tile_brought_back(view)[inner] - still[inner].astype(int)).mean() < 4


def test_points_that_are_brought_back_have_gone_there_and_back(photos):
    """Partners that are wrong one way are wrong on the way home too: the points are drawn where others lie."""
    wrong = replace(photos[0], flip_indices=np.roll(PARTNERS, 1))
    view = photos[0].draw(MirrorAugmenter(probability=1.0), seed=0)
    assert (photos[0].tile_brought_back(view) != wrong.tile_brought_back(view)).any()


def test_albumentations_has_a_row_of_three_draws_under_its_name(photos):
    A = pytest.importorskip("albumentations")
    augmenter = AlbumentationsAugmenter(
        A.Compose([A.Affine(rotate=(-40, 40), p=1), A.GaussNoise(p=1)]), probability=0.1
    )
    (row,) = rows_of(augmenter)
    assert row.title == "Affine, GaussNoise"
    assert len({photos[0].draw(setting, seed=0).to_json() for _, setting in row.settings}) == 3
    (row,) = rows_of(replace(augmenter, seed=5))
    assert [setting.seed for _, setting in row.settings] == [5]


@pytest.mark.parametrize(
    ("augment", "said"), [("[]", "augment is empty"), ("[{CropAugmenter: {share: 2}}]", "entry 0: CropAugmenter.share")]
)
def test_a_recipe_with_nothing_to_show_or_a_fault_is_refused(augment, said, contest, tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text(f"augment: {augment}\n")
    monkeypatch.setattr("sys.argv", ["sheet", "-d", str(contest), "--config", str(tmp_path / "r.yaml")])
    with pytest.raises(UserError, match=f"r.yaml: .*{said}"):
        sheet.main()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config", "no.yaml"], "no.yaml cannot be read"),
        (["--config", "."], r"\. is not a regular file"),
        (["--data", "no"], "--data takes the folder"),
        (["--seed", "-1"], "--seed -1"),
        (["--size", "8"], "--size 8"),
        (["--out", "file"], "--out file"),
    ],
)
def test_a_fault_of_a_flag_is_one_line(flags, said, contest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["sheet", "-d", str(contest), *flags])
    with pytest.raises(UserError, match=said) as error:
        sheet.main()
    assert "\n" not in str(error.value)


def test_a_contest_without_photos_is_refused(tmp_path, monkeypatch):
    (tmp_path / "train/images").mkdir(parents=True)
    (tmp_path / "train/landmarks.csv").write_text("file_name\tPoint_M0_X\tPoint_M0_Y\n")
    monkeypatch.setattr("sys.argv", ["sheet", "-d", str(tmp_path), "--cache", str(tmp_path / "cache")])
    with pytest.raises(UserError, match="no photos"):
        sheet.main()


def tiles_of(strip):
    """The three photos of a strip, without their title."""
    return [strip[-TILE - 2 * GAP : -2 * GAP, x : x + TILE] for x in range(0, 3 * TILE, TILE + GAP)]


def test_the_sheets_have_a_strip_for_each_parameter_and_a_row_for_each_photo(photos):
    chain = Chain((AffineAugmenter(rotation=(-20, 20), scale=(0.8, 1.25)), GreyAugmenter()))
    strips = np.vsplit(augmenters_sheet(chain, photos), 4)
    same = photos[0].tile(photos[0].draw(AffineAugmenter(rotation=-20), seed=0), "-20")
    np.testing.assert_array_equal(tiles_of(strips[1])[0], same)
    one, other, again = tiles_of(strips[3])  # grey has no range and is shown on several photos
    assert (one != other).any()
    np.testing.assert_array_equal(one, again)
    picture = draws_sheet(chain, photos, seed=0)
    assert picture.shape == (2 * (TILE + GAP), (1 + NUM_DRAWS) * (TILE + GAP), 3)
    assert (picture == draws_sheet(chain, photos, seed=0)).all()
    assert (picture != draws_sheet(chain, photos, seed=1)).any()


def test_the_inverse_is_shown_where_something_is_moved_and_points_are_drawn_there_alone(photos):
    moved = Chain((AffineAugmenter(rotation=(-20, 20)),))
    still, _, home = tiles_of(np.vsplit(augmenters_sheet(moved, photos), 2)[0])
    inner = np.s_[TILE // 4 : 3 * TILE // 4, TILE // 4 : 3 * TILE // 4]
    assert np.abs(home[inner] - still[inner].astype(int)).mean() < 4
    grey = augmenters_sheet(Chain((GreyAugmenter(),)), photos)
    tile, *_ = tiles_of(grey)
    assert (tile.min(axis=2) == tile.max(axis=2)).all()  # no point, and one strip


@pytest.mark.parametrize("num_parameters", [30, 90])
def test_a_sheet_of_many_parameters_is_no_higher_than_a_screen_or_two(num_parameters, photos):
    chain = Chain((BlurAugmenter(sigma=(0.5, 2)),) * num_parameters)
    height, width, _ = augmenters_sheet(chain, photos).shape
    assert height <= HIGHEST == 2500
    assert width <= 450 * (1 + num_parameters // 15)


def test_points_that_are_missing_are_not_drawn(photos):
    points = photos.points.copy()
    points[0, ::2] = np.nan
    few = replace(photos, points=points)
    chain = Chain((AffineAugmenter(rotation=(-20, 20)), MirrorAugmenter()))
    assert (augmenters_sheet(chain, few) != augmenters_sheet(chain, photos)).any()


def test_the_command_writes_both_sheets_of_the_recipes_contest_at_its_size(contest, tmp_path, monkeypatch, capsys):
    where = f"data: {contest}\ncache: {tmp_path / 'cache'}\n"
    (tmp_path / "r.yaml").write_text(sheet.EVERYTHING.read_text() + "size: 64\n" + where)
    arguments = ["sheet", "--out", str(tmp_path / "sheets")]
    monkeypatch.setattr("sys.argv", [*arguments, "--config", str(tmp_path / "r.yaml")])
    sizes = []
    drawing = sheet.draws_sheet
    monkeypatch.setattr(sheet, "draws_sheet", lambda *all: sizes.append(all[1].roi.size) or drawing(*all))
    sheet.main()
    assert sizes == [64]
    draws = cv2.imread(str(tmp_path / "sheets/draws.jpg"))
    assert draws.shape == (NUM_PHOTOS * (TILE + GAP), (1 + NUM_DRAWS) * (TILE + GAP), 3)
    path = tmp_path / "sheets/augmenters.jpg"
    assert cv2.imread(str(path)).shape[0] <= HIGHEST
    assert path.stat().st_size < 800_000
    assert str(tmp_path / "sheets/draws.jpg") in capsys.readouterr().out
