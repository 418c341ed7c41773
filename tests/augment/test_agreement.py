"""Images and points agree, OpenCV and torch agree, and both agree with OpenCV's and kornia's own warps."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augment import (
    AffineAugmenter,
    Chain,
    CropAugmenter,
    MirrorAugmenter,
    PerspectiveAugmenter,
    RegionOfInterest,
    Transform,
    fit_photo,
    transform_points,
)
from augment.effects import Jpeg
from augment.geometry import about_centre, mirror, resize, rotation, translation
from augment.warp import grid_sample
from tests.augment.strategies import ALL, GEOMETRIC, PHOTOMETRIC, chains, drawn_by, views_of

SIZE = (96, 128)
DEVICES = ["cpu", "torch on the cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def blob(x, y, size=SIZE, spread=3.0):
    """A (1, 3, H, W) uint8 bright blob with its centre at (x, y)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    bright = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    return torch.from_numpy(np.rint(bright).astype(np.uint8)).expand(1, 3, *size).contiguous()


def centroid(image):
    """(x, y) of the brightness of a (1, 3, H, W) image, above what rounding to whole grey values moves about."""
    bright = (image[0, 0].double().cpu().numpy() - 8).clip(min=0)
    rows, columns = np.mgrid[: bright.shape[0], : bright.shape[1]]
    return np.array([(bright * columns).sum(), (bright * rows).sum()]) / bright.sum()


def warp_on(device, view, images):
    return view.warp_with_torch(images) if device == "torch on the cpu" else view.warp(images.to(device)).cpu()


GENTLE = {
    "rotation": AffineAugmenter(rotation=(-180, 180)),
    "scale and stretch": AffineAugmenter(scale=(0.8, 1.3), stretch=(0.8, 1.25)),
    "shift": AffineAugmenter(shift_x=(-0.1, 0.1), shift_y=(-0.1, 0.1)),
    "mirror": MirrorAugmenter(probability=1),
    "crop": CropAugmenter(share=(0.75, 1), x=(0.4, 0.6), y=(0.4, 0.6)),
    "perspective": PerspectiveAugmenter(tilt_x=(-0.15, 0.15), tilt_y=(-0.15, 0.15)),
}


@pytest.mark.parametrize("device", DEVICES)
@given(chain=chains(GENTLE, max_size=2), seed=st.integers(0, 10_000))
def test_a_blob_and_its_point_agree(device, chain, seed):
    """Each pixel of the blob moves to where the view moves it, and weighs as much as it is enlarged."""
    x, y = np.random.default_rng(seed).uniform((56, 42), (72, 54))
    image = blob(x, y)
    view = drawn_by(chain, seed, batch=1, size=SIZE)
    weights = (image[0, 0].double().numpy() - 8).clip(min=0)
    rows, columns = np.nonzero(weights)
    around = np.array([(0, 0), (0.01, 0), (0, 0.01)])[:, None] + np.column_stack((columns, rows))
    here, right, below = view.move(around.reshape(1, -1, 2), flip_indices=np.arange(around.size // 2))[0].reshape(
        3, -1, 2
    )
    enlarged = np.abs(np.linalg.det(np.stack((right - here, below - here), axis=1)))
    expected = np.average(here, axis=0, weights=weights[rows, columns] * enlarged)
    assert np.abs(centroid(warp_on(device, view, image)) - expected).max() < 0.02


def random_images(seed, batch=4, size=(48, 64)):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (batch, 3, *size), dtype=np.uint8))


@given(views_of(GEOMETRIC))
def test_opencv_and_torch_agree_to_rounding_for_any_geometry(view):
    difference = view.warp(random_images(0)).int() - view.warp_with_torch(random_images(0)).int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("name", sorted(ALL))
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_opencv_and_torch_agree_to_rounding_for_every_augmenter(name, seed):
    """JPEG may round a coefficient the other way; of such noise it has many that lie close to the middle."""
    view = drawn_by(ALL[name], seed)
    difference = (view.warp(random_images(seed)).int() - view.warp_with_torch(random_images(seed)).int()).abs()
    assert difference.max() <= 1 if name not in ("jpeg", "random") else difference.float().mean() < 0.5


@given(views_of(GEOMETRIC | PHOTOMETRIC))
def test_opencv_and_torch_agree_for_chains(view):
    """A value that one of them rounded up makes JPEG round other coefficients."""
    images = drawn_by(ALL["blur"], 3).warp(random_images(1))
    difference = (view.warp(images).int() - view.warp_with_torch(images).int()).abs().float()
    assert difference.mean() < (2 if any(isinstance(effect, Jpeg) for effect in view.effects) else 0.7)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (2, 3)])
@pytest.mark.parametrize("name", sorted(ALL.keys() - {"jpeg", "random"}))
def test_opencv_and_torch_agree_on_images_of_hardly_a_pixel(name, size):
    view, images = drawn_by(ALL[name], 1, size=size), random_images(0, size=size)
    assert (view.warp(images).int() - view.warp_with_torch(images).int()).abs().max() <= 1


def test_a_batch_of_no_images_is_one_of_none():
    view = drawn_by(Chain(tuple(ALL.values())), batch=0, size=(48, 64))
    images = random_images(0)[:0]
    assert view.warp(images).shape == view.warp_with_torch(images).shape == (0, 3, 48, 64)
    assert view.move(np.empty((0, 5, 2)), np.arange(5)).shape == (0, 5, 2)


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_a_gpu_is_asked_stays_on_it_and_needs_no_value(name, gpu_without_values):
    images = torch.empty((4, 3, 48, 64), dtype=torch.uint8, device=gpu_without_values)
    warped = drawn_by(ALL[name], 0).warp(images)
    assert (warped.device.type, warped.dtype, warped.shape) == ("cuda", torch.uint8, images.shape)


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(ALL))
def test_nothing_waits_for_the_gpu(name):
    images = random_images(0).cuda()
    drawn_by(ALL[name], 0).warp(images)  # what is made once, such as the tile of noise, is copied once
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn_by(ALL[name], 1).warp(images)
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.gpu
@given(views_of(GEOMETRIC | PHOTOMETRIC))
def test_cpu_and_gpu_agree(view):
    images = drawn_by(ALL["blur"], 3).warp(random_images(1))
    difference = (view.warp_with_torch(images).int() - view.warp(images.cuda()).cpu().int()).abs().float()
    assert difference.mean() < 0.1


@given(
    st.integers(0, 10_000), st.sampled_from([("affine", cv2.warpAffine, 2), ("perspective", cv2.warpPerspective, 3)])
)
def test_the_warp_is_opencvs(seed, kind):
    """But for a level here and there, where coordinates are rounded otherwise in a source with a border."""
    name, warp, rows = kind
    images = random_images(seed)
    view = drawn_by(GEOMETRIC[name], seed)
    found = view.warp(images).permute(0, 2, 3, 1).numpy()
    for image, matrix, warped in zip(images, view.geometry, found, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        expected = warp(pixels, matrix[:rows], (64, 48), borderMode=cv2.BORDER_REPLICATE)
        difference = np.abs(warped.astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.003


@given(views_of(GEOMETRIC))
def test_the_warp_is_kornias(view):
    """kornia maps pixel centres as we do where it takes a matrix."""
    kornia = pytest.importorskip("kornia")
    images = random_images(2).float()
    matrices = torch.from_numpy(view.geometry).float()
    expected = kornia.geometry.warp_perspective(images, matrices, (48, 64), padding_mode="border", align_corners=True)
    found = grid_sample(images, view.geometry, (48, 64))
    assert (found - expected).abs().mean() < 0.05


@pytest.mark.parametrize("size", [(48, 64), (192, 256)])
def test_resizing_is_opencvs(size):
    """A resize by the convention of pixel centres is what cv2.resize does."""
    image = blob(40.2, 50.7, spread=9)
    found = Transform.of(resize(SIZE, size), SIZE, size).warp(image)[0, 0].numpy()
    expected = cv2.resize(image[0, 0].numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_rotation_is_clockwise_about_the_middle():
    view = Transform.of(about_centre(rotation(90), (65, 65)), (65, 65))
    np.testing.assert_allclose(view.move(np.array([[[32.0, 0.0], [64.0, 32.0]]])), [[[64, 32], [32, 64]]], atol=1e-12)


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
@given(height=st.integers(60, 300), width=st.integers(60, 300), size=st.sampled_from([64, 128, 250]))
def test_fitting_moves_a_blob_and_its_point_alike(resize, height, width, size):
    x, y = width * 0.48, height * 0.53
    photo = blob(x, y, size=(height, width), spread=6)[0].permute(1, 2, 0).numpy()
    square, matrix = fit_photo(photo, size, resize)
    assert square.shape == (size, size, 3)
    found = centroid(torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)[None])
    start = centroid(torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None])
    assert np.abs(found - transform_points(matrix[None], start[None, None])[0, 0]).max() < 0.03


@given(st.integers(0, 24), st.integers(0, 40))
def test_a_window_shows_its_part_of_the_square_to_the_bit(left, top):
    squares = random_images(2, size=(88, 88))
    roi = RegionOfInterest(88, left, top, 48)
    shown = roi.then(Transform.identity(4, (48, 48))).warp(squares)
    np.testing.assert_array_equal(shown.permute(0, 2, 3, 1), roi.cut(squares.permute(0, 2, 3, 1)))


@given(st.integers(-5, 45), st.integers(-5, 30), st.booleans())
def test_a_part_of_an_image_mirrored_or_not_is_what_opencv_warps_it_to(left, top, mirrored):
    images = random_images(1, size=(64, 72))[:1]
    view = Transform.of(translation(-left, -top), (64, 72), (40, 32))
    view = view.then(Transform.of(mirror(32), (40, 32))) if mirrored else view
    image = images[0].permute(1, 2, 0).numpy()
    expected = cv2.warpAffine(image, view.geometry[0, :2], (32, 40), borderMode=cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(view.warp(images)[0].permute(1, 2, 0), expected)


@given(chains(GEOMETRIC), st.integers(0, 2**32))
def test_a_view_of_a_window_is_a_view_of_the_square(chain, seed):
    """So the blobs above follow their points through a ROI too."""
    view = drawn_by(chain, seed, size=(64, 64))
    points = np.random.default_rng(seed).uniform(30, 90, (len(view), 5, 2))
    seen = RegionOfInterest(128, 30, 25, 64).then(view)
    assert (seen.source, seen.size) == ((128, 128), view.size)
    np.testing.assert_allclose(seen.move(points, np.arange(5)), view.move(points - (30, 25), np.arange(5)), atol=1e-8)


@given(st.tuples(*[st.floats(0, 1)] * 2), st.floats(0.3, 1), st.integers(32, 256))
def test_a_window_of_any_shares_lies_in_its_square(corner, side, size):
    roi = RegionOfInterest.of((*corner, side), size)
    assert min(roi.left, roi.top) >= 0
    assert max(roi.left, roi.top) + size <= roi.square
    assert size / roi.square == pytest.approx(side, rel=0.02)


@given(height=st.integers(20, 300), width=st.integers(20, 300))
def test_padding_keeps_the_whole_photo_in_the_square(height, width):
    _, matrix = fit_photo(np.zeros((height, width, 3), np.uint8), 128, "letterbox")
    corners = np.array([[[-0.5, -0.5], [width - 0.5, height - 0.5]]])
    inside = transform_points(matrix[None], corners)
    assert inside.min() >= -0.5 - 1e-9
    assert inside.max() <= 127.5 + 1e-9


def high_frequencies(images):
    """Mean energy of what a small blur takes away."""
    grey = images.float().mean(1, keepdim=True)
    smooth = torch.nn.functional.avg_pool2d(grey, 3, 1, 1)
    return (grey - smooth)[:, :, 16:-16, 16:-16].square().mean().item()


def test_a_chain_keeps_the_detail_of_one_resampling():
    """Three warps in one lose what one warp loses; three in turn lose far more."""
    images = random_images(3, size=SIZE)
    turns = [drawn_by(AffineAugmenter(rotation=angle, shift_x=0.003), size=SIZE) for angle in (7, -12, 9)]
    one = drawn_by(AffineAugmenter(rotation=4, shift_x=0.004), size=SIZE)
    in_turn = images
    for turn in turns:
        in_turn = turn.warp(in_turn)
    composed = high_frequencies(turns[0].then(turns[1]).then(turns[2]).warp(images))
    assert composed == pytest.approx(high_frequencies(one.warp(images)), rel=0.1)
    assert high_frequencies(in_turn) < 0.5 * composed


def test_a_chain_of_augmenters_draws_what_they_draw():
    chain = Chain((GEOMETRIC["affine"], PHOTOMETRIC["colour"], GEOMETRIC["crop"]))
    assert drawn_by(chain).geometry.shape == (4, 3, 3)
