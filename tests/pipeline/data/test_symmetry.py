"""The flip indices are right or refused, never wrong."""

import contextlib
import functools
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.head import Head
from pipeline.data import symmetry
from pipeline.data.contest import LANDMARKS, find_contest, read_landmarks
from pipeline.data.symmetry import NoSymmetry
from pipeline.errors import Faults, UserError
from pipeline.flip_indices import read_flip_indices
from tests.partners import NUM_POINTS, PARTNERS

MIRROR68 = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1), 45, 44, 43, 42, 47, 46,
    39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def find_flip_indices(points):
    return symmetry.find_flip_indices(points, np.arange(len(points)))


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


@functools.cache
def drawn_faces():
    return faces(300)


def test_the_971_points_of_drawn_faces_have_the_contests_partners():
    np.testing.assert_array_equal(find_flip_indices(drawn_faces()), PARTNERS)


def test_the_68_points_of_real_faces_have_their_known_partners(faces68):
    points = read_landmarks(find_contest(faces68) / LANDMARKS, Faults()).values
    np.testing.assert_array_equal(find_flip_indices(points), MIRROR68)


def test_renumbering_the_points_renumbers_the_partners():
    num_found = 0
    for seed in range(15):
        order = np.random.default_rng(seed).permutation(NUM_POINTS)[:60]
        keep = np.union1d(order, PARTNERS[order])
        new_index = {point: i for i, point in enumerate(np.random.default_rng(seed).permutation(keep))}
        with contextlib.suppress(NoSymmetry):  # refused is allowed, wrong is not
            found = find_flip_indices(drawn_faces()[:, list(new_index)])
            np.testing.assert_array_equal(found, [new_index[PARTNERS[point]] for point in new_index])
            num_found += 1
    assert num_found > 12


@pytest.mark.parametrize("turned", [15, 30])
def test_faces_that_look_to_one_side_are_right_or_refused(turned):
    try:
        found = find_flip_indices(faces(200, seed=turned, turned=turned))
    except NoSymmetry:
        assert turned > 15
    else:
        np.testing.assert_array_equal(found, PARTNERS)


@given(st.integers(0, 10_000))
def test_points_without_symmetry_are_refused(seed):
    rng = np.random.default_rng(seed)
    with pytest.raises(NoSymmetry):
        find_flip_indices(rng.uniform(0, 200, (1, 40, 2)) + rng.normal(0, 3, (200, 40, 2)))
    with pytest.raises(NoSymmetry):
        find_flip_indices(rng.normal(0, 10, (200, 40, 2)))


def test_a_single_point_is_refused_before_anything_is_divided_by_its_size():
    with pytest.raises(NoSymmetry, match="single point"):
        find_flip_indices(np.random.default_rng(0).uniform(0, 200, (60, 1, 2)))


def test_a_symmetric_mean_of_asymmetric_shapes_is_refused():
    """Only the points of one side ever move, so a mirrored shape is one that never occurs."""
    rng = np.random.default_rng(0)
    shapes = np.tile(drawn_faces().mean(0)[[0, 20, 64, 84, 969, 970, 200, 540]], (200, 1, 1))
    shapes += rng.normal(0, 0.2, shapes.shape)
    shapes[:, :2] += rng.normal(0, 8, (200, 1, 2))
    with pytest.raises(NoSymmetry):
        find_flip_indices(shapes)


# A person's joints as LSP numbers them: ankle, knee, hip and the other leg back; wrist, elbow, shoulder; neck, head.
JOINTS = np.array([5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13])


def bodies(count, seed, behind=0.25):
    """(count, 14, 2) joints of people in any pose, as photographed: x to the right, y down; some from behind."""
    rng = np.random.default_rng(seed)
    joints = np.zeros((count, 14, 3))
    joints[:, 12], joints[:, 13] = (0, -1.1, 0), (0, -1.1, 0) + rng.normal((0, -0.5, 0), 0.1, (count, 3))
    for side, (far, middle, near) in ((-1, (0, 1, 2)), (1, (5, 4, 3)), (-1, (6, 7, 8)), (1, (11, 10, 9))):
        arm = middle in (7, 10)
        joints[:, near] = (side * (0.36 if arm else 0.2), -0.97 if arm else 0, 0)
        limb = rng.normal((side * (0.5 if arm else 0.1), 1, 0), 0.6 if arm else 0.25, (count, 3))
        rest = limb + rng.normal((0, 0, 0.3 if arm else -0.3), 0.6 if arm else 0.3, (count, 3))
        joints[:, middle] = joints[:, near] + 0.6 * limb / np.linalg.norm(limb, axis=1, keepdims=True)
        joints[:, far] = joints[:, middle] + 0.6 * rest / np.linalg.norm(rest, axis=1, keepdims=True)
    turned = rng.normal(0, 0.5, count) + np.pi * (rng.random(count) < behind)
    x = joints[..., 0] * np.cos(turned)[:, None] + joints[..., 2] * np.sin(turned)[:, None]
    points = np.stack((x, joints[..., 1]), axis=2) + rng.normal(0, 0.02, (count, 14, 2))
    return points * rng.uniform(30, 90, (count, 1, 1)) + rng.uniform(50, 200, (count, 1, 2))


def without(points, share, seed=0):
    """The points, of which a share is missing here and there."""
    points = points.copy()
    points[np.random.default_rng(seed).random(points.shape[:2]) < share] = np.nan
    return points


def without_a_side(points, partners, seed=0):
    """Of each shape either all of the left is missing or all of the right."""
    rng = np.random.default_rng(seed)
    first = np.flatnonzero(np.arange(len(partners)) < partners)
    points, left = points.copy(), rng.random(len(points)) < 0.5
    points[np.ix_(left, first)] = np.nan
    points[np.ix_(~left, partners[first])] = np.nan
    return points


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_the_partners_of_real_faces_are_found_with_points_missing(faces68, share):
    points = read_landmarks(find_contest(faces68) / LANDMARKS, Faults()).values
    np.testing.assert_array_equal(find_flip_indices(without(points[::3], share)), MIRROR68)


def test_the_partners_of_real_faces_are_found_where_only_one_side_is_ever_seen(faces68):
    points = read_landmarks(find_contest(faces68) / LANDMARKS, Faults()).values
    np.testing.assert_array_equal(find_flip_indices(without_a_side(points[::4], np.array(MIRROR68))), MIRROR68)


def test_the_971_partners_are_found_with_points_missing():
    np.testing.assert_array_equal(find_flip_indices(without(drawn_faces()[:150], 0.3)), PARTNERS)


@pytest.mark.parametrize(("share", "behind"), [(0, 0.25), (0.3, 0.25), (0.7, 0), (0.7, 0.25)])
def test_the_partners_of_a_persons_joints_are_found_with_joints_missing(share, behind):
    """Left and right are the person's own, from behind too."""
    np.testing.assert_array_equal(find_flip_indices(without(bodies(2000, 1, behind), share)), JOINTS)


def test_partners_of_joints_are_right_or_refused():
    """Refused are mostly those of people of whom half are seen from behind."""
    cases = [(2500, 0.5, 0, 130)]  # the wrists and elbows were taken to lie on the axis
    for seed in range(10):
        rng = np.random.default_rng(seed)
        cases.append((seed, rng.choice([0, 0.2, 0.5]), rng.choice([0, 0.1, 0.4]), int(rng.integers(60, 401))))
    num_found = 0
    for seed, behind, share, count in cases:
        points = without(bodies(count, seed, behind), share, seed)
        for shapes in (points, without_a_side(points, JOINTS, seed)):
            with contextlib.suppress(NoSymmetry):
                np.testing.assert_array_equal(find_flip_indices(shapes), JOINTS)
                num_found += 1
    assert num_found >= 7


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.sampled_from([0, 0.3, 0.6]))
def test_incomplete_points_without_symmetry_are_refused(seed, share):
    rng = np.random.default_rng(seed)
    layout = rng.uniform(0, 200, (1, 14, 2)) + rng.normal(0, 10, (500, 14, 2))
    for points in (layout, np.delete(bodies(500, seed), seed % 12, axis=1)):  # of the joints, one has lost its partner
        with pytest.raises(NoSymmetry):
            find_flip_indices(without(points, share, seed))


@pytest.mark.parametrize("joint", [0, 1, 2, 8, 10])
def test_a_joint_that_has_lost_its_partner_is_noticed_with_few_joints_known(joint):
    with pytest.raises(NoSymmetry):
        find_flip_indices(without(np.delete(bodies(2000, 3), joint, axis=1), 0.6))


@pytest.mark.parametrize(("scatter", "behind"), [(0.1, 0.2), (0.3, 0)])
def test_a_point_beside_the_axis_without_a_partner_is_noticed_with_few_joints_known(scatter, behind):
    """By where it is expected where it scatters little, else by its mean; between the neck and the left hip here."""
    points = bodies(2000, 0, behind)
    sizes = np.sqrt(((points - points.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1))
    extra = 0.4 * points[:, 12] + 0.6 * points[:, 3]
    extra += np.random.default_rng(0).normal(0, scatter, (2000, 2)) * sizes[:, None]
    with pytest.raises(NoSymmetry, match="point 14"):
        find_flip_indices(without(np.concatenate((points, extra[:, None]), axis=1), 0.7))


def test_incomplete_shapes_are_looked_at_where_most_are():
    points = bodies(1000, 0)
    for share, complete in ((0, True), (0.02, True), (0.1, False)):
        _, known = symmetry._chosen(without(points, share), np.arange(len(points)))
        assert known.all() == complete


@pytest.mark.parametrize("count", [300, 12000])
def test_photos_of_another_source_at_the_end_of_the_table_are_looked_at_too(count):
    """Only they have all points; either half of what is looked at has some of them."""
    points = np.tile(bodies(300, 0), (count // 300, 1, 1))
    points[: int(0.6 * count), 10:] = np.nan
    _, known = symmetry._chosen(points, np.arange(count))
    middle = len(known) // 2
    for half in (known[:middle], known[middle:]):
        assert 0.35 < half.all(axis=1).mean() < 0.45


def test_where_nothing_would_be_renumbered_flip_indices_are_refused():
    """So it looks from shapes where as many people are seen from behind as from the front; it would be wrong."""
    points = bodies(1000, 0, behind=0)
    with pytest.raises(NoSymmetry, match="no two points mirror each other"):
        find_flip_indices(np.concatenate((points, points * (-1, 1))))


@pytest.fixture
def fitted_once(monkeypatch):
    """The model of one half of the shapes is the same whatever flip indices are judged by it."""
    found, fit = {}, symmetry.fit_shapes

    def once(shapes, known):
        key = shapes.tobytes(), known.tobytes()
        if key not in found:
            found[key] = fit(shapes, known)
        return found[key]

    monkeypatch.setattr(symmetry, "fit_shapes", once)


@pytest.mark.parametrize("share", [0, 0.3, 0.6])
def test_neighbours_that_are_exchanged_are_noticed(share, fitted_once):
    points = without(bodies(2000, 2), share)
    shapes, known = symmetry._chosen(points, np.arange(len(points)))
    limits = symmetry.INCOMPLETE if share else symmetry.COMPLETE
    symmetry._check_likelihood(shapes, known, JOINTS, limits)
    for first, second in ((0, 1), (1, 2), (6, 7), (7, 8), (8, 12), (2, 8), (12, 13)):
        order = np.arange(14)
        order[[first, second]] = second, first
        for wrong in (JOINTS[order], order[JOINTS[order]]):  # the second undoes itself
            if (wrong != JOINTS).any():
                with pytest.raises(NoSymmetry):
                    symmetry._check_likelihood(shapes, known, wrong, limits)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_pairs_that_pass_for_points_on_the_axis_are_noticed(share, fitted_once):
    """Where many are seen from behind, each joint is nearly as often on the left: one pair, a limb, all but one."""
    points = without(bodies(2000, 3, behind=0.45), share)
    shapes, known = symmetry._chosen(points, np.arange(len(points)))
    symmetry._check_likelihood(shapes, known, JOINTS, symmetry.INCOMPLETE)  # the right ones are not refused
    for joints in ((0,), (2,), (6,), (8,), (0, 1), (0, 1, 2), (6, 7), (6, 7, 8), (0, 1, 2, 6, 7)):
        wrong = JOINTS.copy()
        for joint in joints:
            wrong[[joint, JOINTS[joint]]] = joint, JOINTS[joint]
        with pytest.raises(NoSymmetry):
            symmetry._check_likelihood(shapes, known, wrong, symmetry.INCOMPLETE)


def test_too_few_shapes_are_refused():
    shapes = drawn_faces()[:, ::50].copy()
    shapes[20:, 2:] = np.nan
    with pytest.raises(NoSymmetry, match="20 photos have 3 points or more; 50 are needed"):
        find_flip_indices(shapes)


@pytest.mark.parametrize("count", [0, 20])
def test_a_point_that_is_rarely_known_is_refused(count):
    shapes = bodies(200, 0)
    shapes[count:, 3] = np.nan
    with pytest.raises(NoSymmetry, match=f"point 3 is known in {count} of 200 photos"):
        find_flip_indices(shapes)


def test_flip_indices_of_the_user_are_read(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(MIRROR68))
    np.testing.assert_array_equal(read_flip_indices(tmp_path / "p.json", 68), MIRROR68)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"[1, 0, 2", "partner"),
        (b"[1, 0]", "each of the points 0..2"),
        (b"[0, 1, 1]", "once"),
        (b"[1, 2, 0]", "0 has partner 1, whose partner is 2"),
        (b"[false, true, 2]", "whole numbers"),
        (b"[0.0, 1.0, 2.0]", "whole numbers"),
        (b'["0", "1", "2"]', "whole numbers"),
        (b"[NaN, 1, 2]", "whole numbers"),
        (b"[-1, 1, 2]", "0..2"),
        (b"[[0], [1], [2]]", "whole numbers"),
        (b"{}", "not a list"),
        (b"null", "not a list"),
        (b"", "partner"),
        (b"[" * 100_000, "recursion"),
        (b"1" * 10_000, "digits"),
        (b"[" + b" " * 10_000_000 + b"0, 1, 2]", "too many"),
        ("[0, 1, 2] é".encode("latin-1"), "UTF-8"),
    ],
)
def test_flip_indices_that_are_none_are_refused_in_one_line(tmp_path, text, named):
    (tmp_path / "p.json").write_bytes(text)
    with pytest.raises(UserError, match=named) as refused:
        read_flip_indices(tmp_path / "p.json", 3)
    assert str(refused.value).startswith(f"--flip-indices {tmp_path / 'p.json'}: ")
    assert "\n" not in str(refused.value)


def test_flip_indices_are_read_from_a_regular_file_only(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.symlink("loop", tmp_path / "loop")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "nowhere", tmp_path / "loop", tmp_path / "\0"):
        with pytest.raises(UserError, match=r"--flip-indices .*a JSON list"):
            read_flip_indices(path, 3)
