"""Each effect does what its name says, measured against OpenCV, libjpeg or arithmetic."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from augment import (
    BarsAugmenter,
    BlurAugmenter,
    BrightnessContrastAugmenter,
    ColourAugmenter,
    GammaAugmenter,
    GreyAugmenter,
    JpegAugmenter,
    LowResolutionAugmenter,
    MotionBlurAugmenter,
    NoiseAugmenter,
    OccluderAugmenter,
    TextAugmenter,
)
from augment.effects import kernel_size_and_sigma, noise_tile
from tests.augment.strategies import drawn_by

SIZE = (96, 128)


def photo():
    """A (96, 128, 3) picture with soft and sharp parts, colours and texture."""
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.uniform(20, 235, (6, 8, 3)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    cv2.circle(picture, (60, 50), 22, (210, 60, 40), -1)
    cv2.rectangle(picture, (80, 20), (110, 70), (30, 90, 200), -1)
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def changed(augmenter, pixels=None, seed=0):
    """(H, W, 3) pixels after a draw of the augmenter."""
    pixels = photo() if pixels is None else pixels
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return drawn_by(augmenter, seed, batch=1, size=pixels.shape[:2]).warp(images)[0].permute(1, 2, 0).numpy()


def test_contrast_turns_about_mid_grey_and_brightness_adds():
    pixels = np.full((2, 2, 3), (100, 127, 150), np.uint8)
    found = changed(BrightnessContrastAugmenter(brightness=10, contrast=1.5), pixels)
    assert np.abs(found[0, 0] - (127.5 + 1.5 * (np.array([100, 127, 150]) - 127.5) + 10)).max() <= 1


def test_grey_is_opencvs():
    found = changed(GreyAugmenter())
    expected = cv2.cvtColor(photo(), cv2.COLOR_RGB2GRAY)
    assert np.abs(found.astype(int) - expected[..., None]).max() <= 1


@given(st.floats(0, 2), st.floats(-180, 180))
def test_saturation_and_hue_keep_brightness_and_greys(saturation, hue):
    matrix = drawn_by(ColourAugmenter(saturation=saturation, hue=hue), batch=1).effects[0].matrix[0]
    np.testing.assert_allclose(matrix @ [90, 90, 90, 1], [90, 90, 90])
    rgb = np.random.default_rng(0).uniform(0, 255, 3)
    plain = drawn_by(ColourAugmenter(saturation=saturation, hue=0), batch=1).effects[0].matrix[0]
    assert (plain @ [*rgb, 1]) @ [0.299, 0.587, 0.114] == pytest.approx(rgb @ [0.299, 0.587, 0.114])
    whole_turn = drawn_by(ColourAugmenter(saturation=1, hue=hue + 360), batch=1).effects[0].matrix[0]
    part_turn = drawn_by(ColourAugmenter(saturation=1, hue=hue), batch=1).effects[0].matrix[0]
    np.testing.assert_allclose(whole_turn, part_turn, atol=1e-9)


def test_a_third_of_a_turn_of_hue_makes_red_green():
    red = changed(ColourAugmenter(hue=120), np.full((2, 2, 3), (160, 80, 80), np.uint8))[0, 0]
    assert red[1] > red[0] + 40
    assert red[1] > red[2] + 40


def test_gamma_keeps_the_ends_and_moves_the_middle():
    pixels = np.tile(np.array([0, 64, 255], np.uint8), (2, 2, 1))
    np.testing.assert_array_equal(
        changed(GammaAugmenter(gamma=2.0), pixels)[0, 0], [0, round(255 * (64 / 255) ** 2), 255]
    )


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.7])
def test_blur_is_opencvs(sigma):
    expected = cv2.GaussianBlur(photo(), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(changed(BlurAugmenter(sigma=sigma)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("sigma", [0.5, 1.69, 2.0, 2.34, 2.71])
def test_a_blur_has_as_many_taps_as_opencvs_for_bytes(sigma):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    taps, _ = kernel_size_and_sigma(sigma**2)
    np.testing.assert_array_equal(cv2.GaussianBlur(noise, (taps, taps), sigma), cv2.GaussianBlur(noise, (0, 0), sigma))


def spread_of(pixels):
    """Variances and covariance of a bright dot."""
    bright = pixels[..., 0].astype(float)
    rows, columns = np.mgrid[: bright.shape[0], : bright.shape[1]]
    x, y = (bright * columns).sum() / bright.sum(), (bright * rows).sum() / bright.sum()
    return np.array([(bright * a * b).sum() / bright.sum() for a, b in
                     ((columns - x, columns - x), (columns - x, rows - y), (rows - y, rows - y))])  # fmt: skip


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
def test_motion_blur_spreads_a_dot_along_its_direction(angle):
    dot = np.zeros((65, 65, 3), np.uint8)
    cv2.circle(dot, (32, 32), 4, (255, 255, 255), -1)
    gained = spread_of(changed(MotionBlurAugmenter(length=12, angle=angle), dot)) - spread_of(dot)
    along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    expected = 12**2 / 12 * np.array([along[0] ** 2, along[0] * along[1], along[1] ** 2])
    np.testing.assert_allclose(gained, expected, atol=1.3)


def test_noise_has_its_strength_and_is_normal_and_another_for_each_sample():
    flat = np.full((*SIZE, 3), 128, np.uint8)
    one, other = (changed(NoiseAugmenter(sigma=10), flat, seed).astype(float) - 128 for seed in (0, 1))
    assert one.std() == pytest.approx(10, rel=0.03)
    assert abs(one.mean()) < 0.2
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    assert stats.kstest(noise_tile().ravel(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("quality", [10, 30, 44, 60, 90])
@pytest.mark.parametrize("size", [(96, 128), (49, 83)])
def test_jpeg_is_libjpegs_and_on_a_batch_too_but_for_a_rare_coefficient(quality, size):
    pixels = photo()[: size[0], : size[1]]
    encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    real = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(changed(JpegAugmenter(quality=quality), pixels), real)
    view = drawn_by(JpegAugmenter(quality=quality), batch=1, size=size)
    found = view.warp_with_torch(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    differs = np.abs(found.astype(int) - real)
    assert differs.mean() < 0.1
    assert (differs > 1).mean() < 0.02


def test_jpeg_of_full_quality_is_nothing():
    np.testing.assert_array_equal(changed(JpegAugmenter(quality=100)), photo())


def test_low_resolution_is_opencvs_area_and_linear():
    small = cv2.resize(photo(), (38, 29), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(changed(LowResolutionAugmenter(factor=0.3)).astype(int) - expected).max() <= 1


def test_bars_are_black_and_as_wide_as_they_say():
    found = changed(BarsAugmenter(left=0.25, right=0.125, top=0, bottom=0.5), np.full((64, 64, 3), 200, np.uint8))[
        ..., 0
    ]
    np.testing.assert_array_equal(found[5], [0] * 16 + [200] * 40 + [0] * 8)
    np.testing.assert_array_equal(found[:, 30], [200] * 32 + [0] * 32)


@pytest.mark.parametrize(
    "augmenter", [OccluderAugmenter(x=0.5, y=0.5, share=0.3), TextAugmenter(x=0.5, y=0.5, share=0.3)]
)
def test_what_lies_over_a_photo_is_near_where_it_is_put_and_nowhere_else(augmenter):
    differs = (changed(augmenter) != photo()).any(axis=2)
    assert 50 < differs.sum() < 0.35 * differs.size
    rows, columns = np.nonzero(differs)
    assert abs(rows.mean() - 47.5) < 10
    assert abs(columns.mean() - 63.5) < 16


def test_what_lies_over_a_photo_goes_along_when_it_is_warped():
    """A patch that is drawn and then turned is the turned patch, but for the resampling of its edge."""
    from augment import AffineAugmenter

    image = torch.full((1, 3, *SIZE), 90, dtype=torch.uint8)
    for seed in range(10):
        patch = drawn_by(OccluderAugmenter(x=(0.3, 0.7), y=(0.3, 0.7)), seed, batch=1, size=SIZE)
        turn = drawn_by(AffineAugmenter(rotation=33, scale=1.2), seed, batch=1, size=SIZE)
        difference = (patch.then(turn).warp(image).int() - turn.warp(patch.warp(image)).int()).abs().float()
        assert difference.mean() < 1.5
