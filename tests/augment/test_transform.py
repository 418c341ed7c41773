"""The laws of views, for every augmenter and random chains of them: composition, inverse, JSON, arguments."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augment import (
    AffineAugmenter,
    BarsAugmenter,
    BlurAugmenter,
    BrightnessContrastAugmenter,
    Chain,
    ColourAugmenter,
    CropAugmenter,
    GreyAugmenter,
    JpegAugmenter,
    Key,
    MirrorAugmenter,
    NoiseAugmenter,
    PerspectiveAugmenter,
    Transform,
)
from augment.effects import Colour
from augment.geometry import linear_part, scale_of
from tests.augment.strategies import (
    ALL,
    GEOMETRIC,
    PERMUTATION,
    PHOTOMETRIC,
    SIZE,
    any_views,
    drawn_by,
    geometric_views,
    views_of,
)

MIRROR = drawn_by(MirrorAugmenter(probability=1))


def points_of(seed):
    """Points in the frame and around it."""
    return np.random.default_rng(seed).uniform(-20, 80, (4, 5, 2))


def images_of(seed):
    """Smooth pictures that neither end of 0..255 cuts off."""
    coarse = np.random.default_rng(seed).uniform(60, 190, (4, 3, 6, 8)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), SIZE, mode="bicubic")
    return smooth.clamp(40, 210).round().to(torch.uint8)


def test_the_linear_part_is_the_derivative_in_the_middle():
    size = (48, 64)
    view = PerspectiveAugmenter(tilt_x=0.3, tilt_y=-0.2).draw(Key(0, 0, np.arange(1)), size)
    view = view.then(AffineAugmenter(rotation=30, shift_x=0.2).draw(Key(0, 0, np.arange(1)), size))
    middle, step = np.array([31.5, 23.5]), 1e-5
    right, below, here = (view.move((middle + d)[None, None])[0, 0] for d in ((step, 0), (0, step), (0, 0)))
    expected = np.stack(((right - here) / step, (below - here) / step), axis=1)
    np.testing.assert_allclose(linear_part(view.geometry, size)[0], expected, atol=1e-4)


@given(geometric_views)
def test_the_scale_is_the_root_of_the_area_that_a_small_square_in_the_middle_becomes(view):
    middle, step = np.array([31.5, 23.5]), 1e-4
    square = middle + step * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    moved = view.move(np.tile(square, (len(view), 1, 1)), np.arange(4))
    one, other = moved[:, 2] - moved[:, 0], moved[:, 3] - moved[:, 1]
    area = np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) / 2
    np.testing.assert_allclose(scale_of(view.geometry, SIZE), np.sqrt(area) / step, rtol=1e-5)


def test_a_tilt_to_either_side_has_the_scale_one_and_without_a_size_is_refused():
    for tilt in (-0.15, 0.15):
        geometry = drawn_by(PerspectiveAugmenter(tilt_x=tilt, tilt_y=tilt)).geometry
        np.testing.assert_allclose(scale_of(geometry, SIZE), 1)
        with pytest.raises(AssertionError, match="perspective"):
            scale_of(geometry)


@given(any_views, any_views, any_views)
def test_composing_is_applying_in_turn_for_points(one, two, three):
    points = points_of(0)
    in_turn = three.move(two.move(one.move(points, PERMUTATION), PERMUTATION), PERMUTATION)
    composed = one.then(two).then(three)
    np.testing.assert_allclose(composed.move(points, PERMUTATION), in_turn, rtol=1e-8, atol=1e-6)
    np.testing.assert_allclose(one.then(two.then(three)).move(points, PERMUTATION), in_turn, rtol=1e-8, atol=1e-6)


@given(views_of(PHOTOMETRIC), views_of(PHOTOMETRIC))
def test_composing_is_applying_in_turn_for_images_that_are_not_warped(one, two):
    """Each rounding to whole grey values is one; a later contrast enlarges it, and colour blends and tones may too."""
    images = images_of(1)
    difference = (one.then(two).warp(images).int() - two.warp(one.warp(images)).int()).abs()
    assert difference.float().mean() < 1.5
    assert difference.float().quantile(0.99) <= 8


@given(views_of({"affine": GEOMETRIC["affine"], "mirror": GEOMETRIC["mirror"]}), st.sampled_from(["first", "last"]))
def test_composing_is_applying_in_turn_for_a_warp_and_a_colour(view, index):
    colour = drawn_by(BrightnessContrastAugmenter(brightness=8, contrast=0.9))
    one, two = (colour, view) if index == "first" else (view, colour)
    images = images_of(2)
    difference = one.then(two).warp(images).int() - two.warp(one.warp(images)).int()
    assert difference.abs().max() <= 2


@given(st.floats(0.6, 2.0), st.floats(-60, 60))
def test_a_blur_goes_through_a_warp(sigma, angle):
    """Blurred and then turned is turned and then blurred, by the blur that goes along."""
    turn = drawn_by(AffineAugmenter(rotation=angle, scale=1.3, stretch=1.2))
    blur = drawn_by(BlurAugmenter(sigma=sigma))
    noisy = torch.from_numpy(np.random.default_rng(0).integers(60, 190, (4, 3, *SIZE), dtype=np.uint8))
    images = drawn_by(BlurAugmenter(sigma=1.0)).warp(noisy)
    composed = blur.then(turn)
    difference = (composed.warp(images).int() - turn.warp(blur.warp(images)).int()).abs().float()
    assert len(composed.effects) == 1
    assert difference[:, :, 8:-8, 8:-8].mean() < 1.0


@given(any_views)
def test_mirroring_twice_is_doing_nothing(view):
    images, points = images_of(3), points_of(3)
    twice = MIRROR.then(MIRROR)
    assert torch.equal(twice.warp(images), images)
    assert torch.equal(MIRROR.warp(MIRROR.warp(images)), images)
    np.testing.assert_array_equal(twice.move(points), points)
    np.testing.assert_allclose(view.then(twice).move(points, PERMUTATION), view.move(points, PERMUTATION))


@given(any_views)
def test_inverse_brings_points_home(view):
    points = points_of(4)
    placement = view.placement
    home = placement.inverse().move(view.move(points, PERMUTATION), PERMUTATION)
    np.testing.assert_allclose(home, points, atol=1e-4)
    np.testing.assert_allclose(placement.then(placement.inverse()).move(points), points, atol=1e-4)


@given(st.integers(0, 999))
def test_inverse_brings_images_and_colours_home(seed):
    view = drawn_by(MirrorAugmenter(probability=1)).then(
        drawn_by(BrightnessContrastAugmenter(brightness=(-9, 9), contrast=(0.9, 1.2)), seed)
    )
    images = images_of(seed)
    assert (view.inverse().warp(view.warp(images)).int() - images.int()).abs().max() <= 1
    assert torch.equal(view.then(view.inverse()).warp(images), images)


NOTHINGS = st.sampled_from([BlurAugmenter(sigma=0), NoiseAugmenter(probability=0), JpegAugmenter(quality=100)])
COLOURS = st.one_of(
    st.builds(BrightnessContrastAugmenter, brightness=st.floats(-60, 60), contrast=st.floats(0.4, 2)),
    st.builds(ColourAugmenter, saturation=st.floats(0.4, 2), hue=st.floats(-180, 180)),
)


@given(st.lists(COLOURS | NOTHINGS, max_size=6))
def test_colours_are_undone_from_the_last_to_the_first(augmenters):
    """Whatever did nothing stood between them, so that they are no one effect."""
    view = drawn_by(Chain(tuple(augmenters)), batch=1)
    matrix = np.eye(4)
    for effect in (*view.effects, *view.inverse().effects):
        if isinstance(effect, Colour):
            matrix = np.vstack((effect.matrix[0], (0, 0, 0, 1))) @ matrix
    np.testing.assert_allclose(matrix, np.eye(4), atol=1e-6)
    assert len(view.inverse().effects) <= 1  # and are one now


def test_a_contrast_and_then_a_brightness_give_the_image_back():
    nothing = drawn_by(BlurAugmenter(probability=0))
    view = drawn_by(BrightnessContrastAugmenter(contrast=0.5)).then(nothing)
    view = view.then(drawn_by(BrightnessContrastAugmenter(brightness=40)))
    images = torch.full((4, 3, *SIZE), 120, dtype=torch.uint8)
    assert (view.inverse().warp(view.warp(images)).int() - 120).abs().max() <= 1


@pytest.mark.parametrize(
    ("view", "named"),
    [
        (drawn_by(GreyAugmenter()), "colour"),
        (drawn_by(BlurAugmenter(sigma=1)), "Blur"),
        (Transform.of(np.diag([1.0, 0.0, 1.0])[None], SIZE), "geometry"),
    ],
)
def test_what_cannot_be_undone_is_refused(view, named):
    with pytest.raises(ValueError, match=named):
        view.inverse()


@given(any_views)
def test_json_keeps_every_bit(view):
    again = Transform.from_json(view.to_json())
    assert again.to_json() == view.to_json()
    np.testing.assert_array_equal(again.geometry, view.geometry)
    assert (again.source, again.size) == (view.source, view.size)
    images, points = images_of(5), points_of(5)
    assert torch.equal(again.warp(images), view.warp(images))
    np.testing.assert_array_equal(again.move(points, PERMUTATION), view.move(points, PERMUTATION))


@given(any_views, any_views)
def test_arguments_are_never_changed(view, following):
    images, points, flip_indices = images_of(6), points_of(6), PERMUTATION.copy()
    kept = images.clone(), points.copy(), view.to_json(), following.to_json()
    view.then(following), view.placement.inverse(), view.where(np.arange(4) > 1), view.unmirrored()
    view.warp(images), view.warp_with_torch(images), view.move(points, flip_indices), view.inside(points)
    assert torch.equal(images, kept[0])
    np.testing.assert_array_equal(points, kept[1])
    np.testing.assert_array_equal(flip_indices, PERMUTATION)
    assert (view.to_json(), following.to_json()) == kept[2:]


@given(any_views, any_views)
def test_a_chain_is_one_warp(one, two):
    """However long, a view holds one matrix an image, and no two neighbouring effects that could be one."""
    view = one.then(two)
    assert view.geometry.shape == (4, 3, 3)
    assert all(a.merged(b) is None for a, b in zip(view.effects, view.effects[1:], strict=False))


def test_a_smaller_frame_without_a_move_is_a_crop():
    """A matrix of nothing may still change the size."""
    cropped = Transform.identity(4, SIZE).then(Transform.of(np.tile(np.eye(3), (4, 1, 1)), SIZE, (20, 30)))
    assert torch.equal(cropped.warp(images_of(7)), images_of(7)[:, :, :20, :30])


@given(any_views)
def test_only_some_images_are_changed(view):
    chosen = np.array([True, False, True, False])
    images = images_of(7)
    some, all_of_them = view.where(chosen).warp(images), view.warp(images)
    assert torch.equal(some[chosen], all_of_them[chosen])
    assert torch.equal(some[~chosen], images[~chosen])


def test_a_view_that_does_nothing_does_not_hand_out_the_images_themselves():
    images = images_of(8)
    warped = Transform.identity(4, SIZE).warp(images)
    warped.zero_()
    assert images.float().mean() > 1


@given(st.lists(st.sampled_from(["affine", "perspective", "crop", "mirror"]), max_size=4), st.integers(0, 2**32))
def test_a_view_is_mirrored_as_often_as_it_mirrors_however_far_it_is_tilted(names, seed):
    """A corner that lies behind the horizon changes nothing about it."""
    widest = {
        "affine": AffineAugmenter(rotation=(-180, 180), scale=(0.5, 2), stretch=(0.5, 2), shift_x=(-0.5, 0.5)),
        "perspective": PerspectiveAugmenter(tilt_x=(-0.45, 0.45), tilt_y=(-0.45, 0.45)),
        "crop": CropAugmenter(share=(0.1, 1)),
        "mirror": MirrorAugmenter(probability=1),
    }
    view = drawn_by(Chain(tuple(widest[name] for name in names)), seed)
    assert (view.mirrored == names.count("mirror") % 2).all()
    assert (view.placement.inverse().mirrored == view.mirrored).all()


@pytest.mark.parametrize(
    "augmenter",
    [BlurAugmenter(probability=0), BlurAugmenter(sigma=0), JpegAugmenter(quality=100), BarsAugmenter(left=0, right=0)],
)
def test_what_does_nothing_can_be_undone(augmenter):
    view = drawn_by(augmenter)
    assert torch.equal(view.inverse().warp(view.warp(images_of(0))), images_of(0))


def test_images_of_another_number_than_the_view_has_are_refused():
    for view in (drawn_by(BlurAugmenter(), batch=5), drawn_by(BlurAugmenter(), batch=1)):
        with pytest.raises(AssertionError, match="images of"):
            view.warp(images_of(0))


def test_mirrored_points_without_flip_indices_are_refused():
    with pytest.raises(ValueError, match="flip indices"):
        MIRROR.move(points_of(9))


@given(any_views)
def test_without_flip_indices_a_view_can_be_unmirrored(view):
    plain = view.unmirrored()
    assert not plain.mirrored.any()
    np.testing.assert_array_equal(plain.geometry[~view.mirrored], view.geometry[~view.mirrored])
    expected = view.move(points_of(9), np.arange(5))
    expected[view.mirrored, :, 0] = SIZE[1] - 1 - expected[view.mirrored, :, 0]
    np.testing.assert_allclose(plain.move(points_of(9)), expected, rtol=1e-8, atol=1e-6)


def test_missing_points_stay_missing_and_are_not_inside():
    points = points_of(10)
    points[:, 2] = np.nan
    moved = MIRROR.move(points, PERMUTATION)
    assert np.isnan(moved[:, 2]).all()
    assert np.isfinite(np.delete(moved, 2, axis=1)).all()
    assert not MIRROR.inside(moved)[:, 2].any()


@given(geometric_views)
def test_points_that_leave_the_frame_are_kept_and_flagged(view):
    corners = np.tile([(-0.5, -0.5), (63.5, 47.5), (-0.51, 20), (64, 20), (30, 47.6)], (4, 1, 1))
    np.testing.assert_array_equal(
        Transform.identity(4, SIZE).inside(corners), np.tile([True, True, False, False, False], (4, 1))
    )
    moved = view.move(points_of(11), PERMUTATION)
    assert np.isfinite(moved).all()
    x, y = moved[..., 0], moved[..., 1]
    np.testing.assert_array_equal(view.inside(moved), (x >= -0.5) & (x <= 63.5) & (y >= -0.5) & (y <= 47.5))


def test_a_mirror_swaps_left_and_right_and_a_wrong_swap_is_caught():
    """The point of the left eye follows the blob of the left eye; without its swap it is at the right one."""
    points = np.array([[[10.0, 20.0], [50.0, 20.0], [31.0, 40.0]]])
    mirror = drawn_by(MirrorAugmenter(probability=1), batch=1)
    symmetric = points.copy()
    symmetric[0, :, 0] = [63 - 50.0, 63 - 10.0, 32.0]
    np.testing.assert_allclose(mirror.move(points, np.array([1, 0, 2])), symmetric)
    assert np.abs(mirror.move(points, np.arange(3)) - symmetric).max() > 30


@pytest.mark.parametrize("name", sorted(ALL))
@settings(max_examples=10)
@given(samples=st.lists(st.integers(0, 10**6), min_size=1, max_size=9))
def test_a_draw_does_not_depend_on_the_batch_or_its_order(name, samples):
    together = ALL[name].draw(Key(1, 2, np.array(samples)), SIZE)
    backwards = ALL[name].draw(Key(1, 2, np.array(samples[::-1])), SIZE)
    for index in range(len(samples)):
        alone = ALL[name].draw(Key(1, 2, np.array(samples[index : index + 1])), SIZE)
        for row, other in ((index, together), (len(samples) - 1 - index, backwards)):
            np.testing.assert_array_equal(alone.geometry[0], other.geometry[row])
            for mine, theirs in zip(alone.effects, other.effects, strict=True):
                for field, array in vars(mine).items():
                    np.testing.assert_array_equal(array[0], vars(theirs)[field][row])


def test_colours_compose_by_their_product():
    one, two = np.random.default_rng(0).normal(size=(2, 1, 3, 4))
    merged = Colour(one).merged(Colour(two))
    rgb = np.array([10.0, 200, 90])
    np.testing.assert_allclose(merged.matrix[0] @ [*rgb, 1], two[0] @ [*(one[0] @ [*rgb, 1]), 1])
