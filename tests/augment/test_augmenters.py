"""Augmenters draw what their parameters say, and refuse what makes no sense."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augment import (
    AUGMENTERS,
    AffineAugmenter,
    Augmenter,
    Chain,
    CropAugmenter,
    Key,
    MirrorAugmenter,
    PerspectiveAugmenter,
    RandomAugmenter,
    parse_augmenters,
)

SIZE = (64, 64)
KEY = Key(0, 0, np.arange(2000))


def test_the_augmenter_that_does_nothing_does_nothing():
    view = Augmenter().draw(KEY, SIZE)
    np.testing.assert_array_equal(view.geometry, np.tile(np.eye(3), (2000, 1, 1)))


@given(st.floats(-170, 170), st.floats(0.5, 2), st.floats(0.5, 2), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_constants_draw_one_view_and_it_is_theirs(angle, scale, stretch, shift_x, shift_y):
    view = AffineAugmenter(rotation=angle, scale=scale, stretch=stretch, shift_x=shift_x, shift_y=shift_y).draw(
        KEY, SIZE
    )
    assert (view.geometry == view.geometry[0]).all()
    linear = view.geometry[0, :2, :2]
    np.testing.assert_allclose(np.linalg.det(linear), scale**2)
    np.testing.assert_allclose(np.hypot(*linear[:, 0]) / np.hypot(*linear[:, 1]), stretch)
    np.testing.assert_allclose(np.exp(1j * np.radians(angle)), np.exp(1j * np.arctan2(*linear[::-1, 0])), atol=1e-9)
    centre = np.array([31.5, 31.5])
    np.testing.assert_allclose(
        view.move(centre[None, None])[0, 0] - centre, np.array([shift_x, shift_y]) * 64, atol=1e-9
    )


def test_ranges_are_filled_and_kept():
    scales = np.linalg.det(AffineAugmenter(scale=(0.5, 2)).draw(KEY, SIZE).geometry) ** 0.5
    assert 0.5 <= scales.min() < 0.505
    assert 1.98 < scales.max() <= 2
    assert abs(np.median(scales) - 1) < 0.05  # a factor is drawn evenly in its logarithm


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_probability_is_the_share_that_is_changed(probability):
    view = MirrorAugmenter(probability=probability).draw(KEY, SIZE)
    assert abs(view.mirrored.mean() - probability) < 0.04


def test_a_crop_keeps_its_window_and_fills_the_frame_with_it():
    view = CropAugmenter(share=0.5, x=1, y=0).draw(Key(0, 0, np.arange(1)), SIZE)
    corners = np.array([[[31.5, -0.5], [63.5, 31.5]]])
    np.testing.assert_allclose(view.move(corners), [[[-0.5, -0.5], [63.5, 63.5]]])


def test_perspective_keeps_the_middle_and_makes_one_side_smaller():
    view = PerspectiveAugmenter(tilt_x=0.1).draw(Key(0, 0, np.arange(1)), (65, 65))
    points = np.array([[[32.0, 32.0], [64.5, 32.0], [-0.5, 32.0]]])
    moved = view.move(points)[0, :, 0] - 32
    np.testing.assert_allclose(moved, [0, 32.5 / 1.1, -32.5 / 0.9])


def test_one_of_several_is_drawn_with_its_weight():
    moves = AffineAugmenter(shift_x=0.5), AffineAugmenter(shift_y=0.5)
    view = RandomAugmenter(augmenters=moves, weights=(3, 1), probability=0.8).draw(KEY, SIZE)
    shifts = view.geometry[:, :2, 2]
    shares = [(shifts == shift).all(axis=1).mean() for shift in ((32, 0), (0, 32), (0, 0))]
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.03)


def test_plain_data_makes_the_same_chain():
    chain = parse_augmenters(
        [
            {"AffineAugmenter": {"rotation": [-10, 10], "scale": 1.1}},
            {"RandomAugmenter": {"augmenters": [{"MirrorAugmenter": None}, {"Augmenter": {}}], "weights": [1, 2]}},
        ]
    )
    random = RandomAugmenter(augmenters=(MirrorAugmenter(), Augmenter()), weights=(1.0, 2.0))
    assert chain == Chain((AffineAugmenter(rotation=(-10, 10), scale=1.1), random))


@pytest.mark.parametrize("name", sorted(AUGMENTERS))
def test_every_augmenter_can_be_named_and_has_a_constant_for_each_parameter(name):
    """With constants it always draws the same view."""
    kind = AUGMENTERS[name]
    constants = {
        p: kind.bounds.get(p, (1, 1))[1] if np.isfinite(kind.bounds.get(p, (1, 1))[1]) else 1.0
        for p in kind.parameters()
    }
    (augmenter,) = parse_augmenters([{name: constants | {"probability": 1}}]).augmenters
    assert not augmenter.draw(Key(0, 0, np.arange(50)), SIZE).varies
    assert augmenter.draw(KEY.child(1), SIZE).where(KEY.samples == 0).to_json() == (
        augmenter.draw(KEY, SIZE).where(KEY.samples == 0).to_json()
    )


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"AffineAugmenter": {}}, "list"),
        ([{"AffineAugmenter": {}, "MirrorAugmenter": {}}], "entry 0"),
        ([{}, 3], "entry 0"),
        ([{"Augmenter": {}}, {"AfineAugmenter": {}}], "entry 1.*AfineAugmenter.*AffineAugmenter"),
        ([{"AffineAugmenter": {"angle": 3}}], "AffineAugmenter.*angle.*rotation"),
        ([{"AffineAugmenter": {"rotation": "10"}}], "AffineAugmenter.rotation.*'10'"),
        ([{"AffineAugmenter": {"rotation": [10, -10]}}], "AffineAugmenter.rotation"),
        ([{"AffineAugmenter": {"rotation": [1, 2, 3]}}], "AffineAugmenter.rotation"),
        ([{"AffineAugmenter": {"rotation": float("nan")}}], "AffineAugmenter.rotation"),
        ([{"AffineAugmenter": {"scale": [0, 1]}}], "AffineAugmenter.scale.*at least 0.001"),
        ([{"MirrorAugmenter": {"probability": 1.5}}], "MirrorAugmenter.probability"),
        ([{"MirrorAugmenter": {"probability": True}}], "MirrorAugmenter.probability"),
        ([{"CropAugmenter": {"share": [0.5, 1.5]}}], "CropAugmenter.share.*between 0.01 and 1"),
        ([{"RandomAugmenter": {}}], "RandomAugmenter.augmenters"),
        ([{"RandomAugmenter": {"augmenters": [{"Augmenter": {}}], "weights": [1, 2]}}], "RandomAugmenter.weights"),
        ([{"RandomAugmenter": {"augmenters": [{"Augmenter": {}}], "chance": 1}}], "RandomAugmenter has no 'chance'"),
        ([{"RandomAugmenter": {"augmenters": [{"Augmenter": {}}], "probability": "1"}}], "RandomAugmenter.probability"),
        ([{"AlbumentationsAugmenter": {}}], "AlbumentationsAugmenter.transforms"),
        ([{"AlbumentationsAugmenter": {"transforms": [], "probability": 5}}], "AlbumentationsAugmenter.probability"),
        ([{"AffineAugmenter": 3}], "entry 0: AffineAugmenter"),
        ([{"Augmenter": {}}, {"MirrorAugmenter": False}], "entry 1: MirrorAugmenter: found False"),
        ([{"Augmenter": {}}, {"BarsAugmenter": {"left": 2}}], "entry 1: BarsAugmenter.left"),
        (
            [{"Augmenter": {}}, {"RandomAugmenter": {"augmenters": [{"BarsAugmenter": {"left": 2}}]}}],
            "entry 1: RandomAugmenter.augmenters: entry 0: BarsAugmenter.left",
        ),
        ([{"RandomAugmenter": {"augmenters": [{"Augmenter": {}}], "weights": [float("inf")]}}], "weights"),
        ([{"RandomAugmenter": {"augmenters": [{"Augmenter": {}}], "weights": [True]}}], "weights"),
        ([{"RandomAugmenter": {"augmenters": [{"Augmenter": {}}], "weights": "1"}}], "weights: '1' is not a list"),
        ([{"RandomAugmenter": {"augmenters": [{"Augmenter": {}}], "weights": [0]}}], "one has to be above 0"),
        ([{"MirrorAugmenter": {"probability": [0.2, 0.8]}}], "MirrorAugmenter.probability"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(entries, named):
    with pytest.raises(ValueError, match=named):
        parse_augmenters(entries)


@pytest.mark.parametrize("value", [[-10, 10], "10", None, (1, 2, 3), (3, 1), float("inf"), True])
def test_a_constructor_refuses_what_is_no_range(value):
    with pytest.raises(ValueError, match=r"AffineAugmenter\.rotation.*not a number or a range"):
        AffineAugmenter(rotation=value)
