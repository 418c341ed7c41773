"""Contact sheets show each parameter at its ends and middle, and bring images and points back beside it."""

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
    Window,
)
from pipeline.errors import UserError
from pipeline.pictures import TILE
from pipeline.sheet import NUM_DRAWS, NUM_PHOTOS, Photos, augmenters_sheet, draws_sheet, settings_of
from tests.partners import PARTNERS

SIDE = 64


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 6) for image in noise])
    images = torch.from_numpy(smooth).permute(0, 3, 1, 2)
    return Photos(images, rng.uniform(20, 44, (2, len(PARTNERS), 2)), PARTNERS, Window(SIDE, 0, 0, SIDE))


def test_a_parameter_with_a_range_is_shown_at_its_ends_and_middle():
    rows = list(settings_of(AffineAugmenter(rotation=(-20, 10), scale=(0.5, 2.0), shift_x=0.1)))
    assert [[caption for caption, _ in row] for row in rows] == [
        ["Affine rotation -20", "Affine rotation -5", "Affine rotation 10"],
        ["Affine scale 0.5", "Affine scale 1", "Affine scale 2"],
    ]
    assert rows[0][2][1] == AffineAugmenter(rotation=10, scale=1.0, shift_x=0.1)


def test_an_augmenter_without_ranges_has_a_row_and_one_that_may_not_fire_does():
    assert [row[0][1] for row in settings_of(GreyAugmenter(probability=0.1))] == [GreyAugmenter()]
    choice = RandomAugmenter(augmenters=(GreyAugmenter(), BlurAugmenter(sigma=(1, 2))))
    assert len(list(settings_of(choice))) == 2


def test_what_is_brought_back_is_what_was_there(photos):
    still = photos[0].seen_by(photos[0].draw(Chain(()), seed=0), "brought back")
    for augmenter in (AffineAugmenter(rotation=12, scale=0.9), MirrorAugmenter(probability=1.0)):
        view = photos[0].draw(augmenter, seed=0)
        assert np.abs(photos[0].seen_by(view, "") - still.astype(int)).mean() > 4
        inner = np.s_[TILE // 4 : 3 * TILE // 4, TILE // 4 : 3 * TILE // 4]
        assert np.abs(photos[0].brought_back(view)[inner] - still[inner].astype(int)).mean() < 4


def test_points_that_are_brought_back_have_gone_there_and_back(photos):
    """Partners that are wrong one way are wrong on the way home too: the points are drawn on others' places."""
    wrong = replace(photos[0], permutation=np.roll(PARTNERS, 1))
    view = photos[0].draw(MirrorAugmenter(probability=1.0), seed=0)
    assert (photos[0].brought_back(view) != wrong.brought_back(view)).any()


def test_albumentations_has_a_row_of_three_draws_under_its_name(photos):
    A = pytest.importorskip("albumentations")
    augmenter = AlbumentationsAugmenter(
        A.Compose([A.Affine(rotate=(-40, 40), p=1), A.GaussNoise(p=1)]), probability=0.1
    )
    ((one, two, three),) = settings_of(augmenter)
    assert {caption for caption, _ in (one, two, three)} == {"Affine, GaussNoise"}
    views = [photos[0].draw(setting, seed=0).to_json() for _, setting in (one, two, three)]
    assert len(set(views)) == 3
    assert [caption for caption, _ in next(settings_of(replace(augmenter, seed=5)))] == ["Affine, GaussNoise"] * 3


@pytest.mark.parametrize(
    ("augment", "said"), [("[]", "augment is empty"), ("[{CropAugmenter: {share: 2}}]", "entry 0: CropAugmenter.share")]
)
def test_a_recipe_with_nothing_to_show_or_a_fault_is_refused(augment, said, contest, tmp_path, monkeypatch):
    from pipeline import sheet

    (tmp_path / "r.yaml").write_text(f"augment: {augment}\n")
    monkeypatch.setattr("sys.argv", ["sheet", "-d", str(contest), "--config", str(tmp_path / "r.yaml")])
    with pytest.raises(UserError, match=f"r.yaml: .*{said}"):
        sheet.main()


def test_the_sheets_have_a_row_for_each_parameter_and_each_photo(photos):
    chain = Chain((AffineAugmenter(rotation=(-20, 20), scale=(0.8, 1.2)), GreyAugmenter()))
    assert augmenters_sheet(chain, photos).shape == (3 * TILE, 6 * TILE, 3)
    sheet = draws_sheet(chain, photos, seed=0)
    assert sheet.shape == (2 * TILE, (1 + NUM_DRAWS) * TILE, 3)
    assert (sheet == draws_sheet(chain, photos, seed=0)).all()
    assert (sheet != draws_sheet(chain, photos, seed=1)).any()


def test_the_command_writes_both_sheets(contest, tmp_path, monkeypatch, capsys):
    from pipeline import sheet

    arguments = ["sheet", "-d", str(contest), "--out", str(tmp_path / "sheets"), "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr("sys.argv", [*arguments, "--size", "64"])
    sheet.main()
    draws = cv2.imread(str(tmp_path / "sheets/draws.jpg"))
    assert draws.shape == (NUM_PHOTOS * TILE, (1 + NUM_DRAWS) * TILE, 3)
    assert cv2.imread(str(tmp_path / "sheets/augmenters.jpg")).shape[1] == 6 * TILE
    assert str(tmp_path / "sheets/draws.jpg") in capsys.readouterr().out
