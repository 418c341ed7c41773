"""The split keeps together what belongs together, and is the same for the same seed."""

import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.photos import difference_hash
from pipeline.data.split import near_duplicate_groups, split_by_file, split_by_groups, unite
from pipeline.errors import UserError


@given(st.lists(st.integers(0, 12), min_size=30, max_size=120), st.floats(0.05, 0.4), st.integers(0, 99))
def test_no_group_is_on_both_sides_and_the_share_is_kept(numbers, share, seed):
    groups = np.array(numbers)
    if len(np.unique(groups)) < 2:
        return
    held_out = split_by_groups(groups, share=share, seed=seed)
    assert not set(groups[held_out]) & set(groups[~held_out])
    assert held_out.any()
    assert not held_out.all()
    smallest = np.bincount(groups)[np.unique(groups)].min()
    assert held_out.sum() <= max(round(share * len(groups)), smallest)
    np.testing.assert_array_equal(held_out, split_by_groups(groups, share=share, seed=seed))


def test_single_photos_fill_the_share():
    assert split_by_groups(np.arange(1000), share=0.05, seed=1).sum() == 50


def test_one_group_alone_cannot_be_split():
    with pytest.raises(UserError, match="no validation split"):
        split_by_groups(np.zeros(10, int), share=0.1, seed=0)


def photos(rng, count):
    """Smooth random pictures with a little noise."""
    import cv2

    for _ in range(count):
        coarse = rng.uniform(0, 255, (7, 7, 3)).astype(np.float32)
        yield cv2.resize(coarse, (90, 80), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(60, 55), (120, 110), (700, 610)])
def test_near_duplicates_of_any_size_are_found_and_strangers_are_not(size):
    import cv2

    rng = np.random.default_rng(0)
    originals = list(photos(rng, 300))
    copies = []
    for photo in originals[:40]:
        noisy = np.clip(photo + rng.normal(0, 4, photo.shape), 0, 255).astype(np.uint8)
        copies.append(cv2.imdecode(cv2.imencode(".jpg", cv2.resize(noisy, size))[1], cv2.IMREAD_COLOR))
    groups = near_duplicate_groups(np.stack([difference_hash(photo) for photo in originals + copies]))
    assert len(np.unique(groups[:300])) == 300
    np.testing.assert_array_equal(groups[300:], groups[:40])


def test_photos_that_are_all_alike_take_no_more_memory_than_others():
    rng = np.random.default_rng(0)
    strangers = rng.integers(0, 256, (5000, 32), dtype=np.uint8)
    peaks = []
    for hashes in (strangers, strangers[rng.integers(0, 50, 5000)]):
        tracemalloc.start()
        near_duplicate_groups(hashes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4 * peaks[0]  # 14 times when all pairs are held


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_united_groups_are_the_finest_that_split_no_group_of_either(pairs):
    one, other = (np.unique(numbers, return_inverse=True)[1] for numbers in zip(*pairs, strict=True))
    expected = [{index} for index in range(len(pairs))]
    for groups in (one, other):
        for group in range(groups.max() + 1):
            members = set(np.flatnonzero(groups == group))
            joined = set().union(*(part for part in expected if part & members))
            expected = [part for part in expected if not part & members] + [joined]
    united = unite(one, other)
    assert sorted(map(sorted, expected)) == sorted(np.flatnonzero(united == group).tolist() for group in set(united))
    np.testing.assert_array_equal(unite(one, np.arange(len(one))), one)  # so that a seed holds out what it did


def test_a_file_of_names_is_the_validation_split(tmp_path):
    names = np.array(["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "v.txt").write_text("c.jpg\na.jpg\n")
    np.testing.assert_array_equal(split_by_file(tmp_path / "v.txt", names), [True, False, True])
    (tmp_path / "v.txt").write_text("c.jpg\nbroken.jpg\n")  # which --skip-bad-photos leaves out
    found = split_by_file(tmp_path / "v.txt", names, others={"broken.jpg"})
    np.testing.assert_array_equal(found, [False, False, True])


@pytest.mark.parametrize(
    ("text", "named"), [("a.jpg\nz.jpg\n", "z.jpg"), ("", "names 0 of 3"), ("a.jpg\nb.jpg\nc.jpg", "names 3 of 3")]
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, text, named):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(UserError, match=named):
        split_by_file(tmp_path / "v.txt", np.array(["a.jpg", "b.jpg", "c.jpg"]))
    with pytest.raises(UserError, match="no such file"):
        split_by_file(tmp_path / "w.txt", np.array(["a.jpg"]))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0a")
    for name, named in {"pipe": "it is a pipe", ".": "it is a folder", "binary": "not in UTF-8"}.items():
        with pytest.raises(UserError, match=named):
            split_by_file(tmp_path / name, np.array(["a.jpg"]))
