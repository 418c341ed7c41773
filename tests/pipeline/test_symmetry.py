"""The left/right permutation is right or refused, never wrong."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.head import Head
from pipeline import symmetry
from pipeline.contest import LANDMARKS, find_contest, read_landmarks
from pipeline.errors import Faults, UserError
from pipeline.symmetry import NoSymmetry, read_permutation
from tests.partners import NUM_POINTS, PARTNERS

MIRROR68 = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1), 45, 44, 43, 42, 47, 46,
    39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def find_permutation(points):
    return symmetry.find_permutation(points, np.arange(len(points)))


def faces(count, seed=0, turned=0.0):
    """(count, 971, 2) points of drawn heads in random poses; `turned` makes more of them look to one side."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        yaw, roll = np.radians(rng.normal(turned, 18)), np.radians(rng.normal(0, 8))
        x, y, z = (Head.draw(rng).points() * rng.uniform(50, 90)).T
        x = x * np.cos(yaw) + z * np.sin(yaw)
        shapes.append(
            np.stack((x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)), axis=-1) + 100
        )
    return np.rint(shapes)


FACES = faces(300)


def test_the_971_points_of_drawn_faces_have_the_contests_partners():
    np.testing.assert_array_equal(find_permutation(FACES), PARTNERS)


def test_the_68_points_of_real_faces_have_their_known_partners(faces68):
    points = read_landmarks(find_contest(faces68) / LANDMARKS, Faults()).values
    np.testing.assert_array_equal(find_permutation(points), MIRROR68)


@given(st.integers(0, 10_000))
def test_renumbering_the_points_renumbers_the_partners(seed):
    order = np.random.default_rng(seed).permutation(NUM_POINTS)[:60]
    keep = np.union1d(order, PARTNERS[order])
    place = {point: i for i, point in enumerate(np.random.default_rng(seed).permutation(keep))}
    shuffled = FACES[:, list(place)]
    try:
        found = find_permutation(shuffled)
    except NoSymmetry:
        return  # refused is allowed, wrong is not
    np.testing.assert_array_equal(found, [place[PARTNERS[point]] for point in place])


@pytest.mark.parametrize("turned", [5, 15, 30, 45])
def test_faces_that_look_to_one_side_are_right_or_refused(turned):
    try:
        found = find_permutation(faces(200, seed=turned, turned=turned))
    except NoSymmetry:
        assert turned > 5
    else:
        np.testing.assert_array_equal(found, PARTNERS)


@given(st.integers(0, 10_000))
def test_points_without_symmetry_are_refused(seed):
    rng = np.random.default_rng(seed)
    with pytest.raises(NoSymmetry):
        find_permutation(rng.uniform(0, 200, (1, 40, 2)) + rng.normal(0, 3, (200, 40, 2)))
    with pytest.raises(NoSymmetry):
        find_permutation(rng.normal(0, 10, (200, 40, 2)))


def test_a_symmetric_mean_of_asymmetric_shapes_is_refused():
    """Only the points of one side ever move, so a mirrored shape is one that never occurs."""
    rng = np.random.default_rng(0)
    shapes = np.tile(FACES.mean(0)[[0, 20, 64, 84, 969, 970, 200, 540]], (200, 1, 1))
    shapes += rng.normal(0, 0.2, shapes.shape)
    shapes[:, :2] += rng.normal(0, 8, (200, 1, 2))
    with pytest.raises(NoSymmetry):
        find_permutation(shapes)


def test_too_few_complete_shapes_are_refused():
    shapes = FACES.copy()
    shapes[20:, 3] = np.nan
    with pytest.raises(NoSymmetry, match="20 photos have all their points"):
        find_permutation(shapes)


def test_a_permutation_of_the_user_is_read(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(MIRROR68))
    np.testing.assert_array_equal(read_permutation(tmp_path / "p.json", 68), MIRROR68)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1, 0, 2", "JSON list"),
        ("[1, 0]", "each of the points 0..2"),
        ("[0, 1, 1]", "once"),
        ("[1, 2, 0]", "0 has partner 1, whose partner is 2"),
    ],
)
def test_a_permutation_that_is_none_is_refused(tmp_path, text, named):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UserError, match=named):
        read_permutation(tmp_path / "p.json", 3)
