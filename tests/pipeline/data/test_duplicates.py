"""Photos that are there twice are found within train and across, the same pixels apart from near ones."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pipeline.blocks import blocks
from pipeline.data import duplicates
from pipeline.data.duplicates import differences, find_pairs
from pipeline.data.photos import difference_hash

SIDE, NUM_POINTS = 48, 6


def photo_of(seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def pack_of(photos, values=None, names="abcdefgh", scale=1.0):
    points = np.random.default_rng(0).uniform(0, SIDE, (len(photos), NUM_POINTS, 2)) if values is None else values
    return SimpleNamespace(
        squares=np.stack(photos),
        hashes=np.stack([difference_hash(photo) for photo in photos]),
        values=np.array(points),
        names=np.array(list(names[: len(photos)])),
        photo_to_image=np.tile(np.diag([scale, scale, 1.0]), (len(photos), 1, 1)),
        __len__=lambda: len(photos),
    )


class Packed(SimpleNamespace):
    def __len__(self):
        return len(self.squares)


@pytest.fixture
def packs():
    near = np.clip(photo_of(1).astype(int) + 3, 0, 255).astype(np.uint8)
    train = Packed(**vars(pack_of([photo_of(0), photo_of(1), photo_of(0), near, photo_of(2)])))
    test = Packed(**vars(pack_of([photo_of(3), photo_of(2), near])))
    return train, test


def test_pairs_within_train_and_across_are_found_and_told_apart(packs):
    within, across = find_pairs(*packs)
    assert sorted(zip(*map(np.ndarray.tolist, within), strict=True)) == [(0, 2, True), (1, 3, False)]
    assert sorted(zip(*map(np.ndarray.tolist, across), strict=True)) == [(1, 2, False), (3, 2, True), (4, 1, True)]
    within, across = find_pairs(packs[0], None)
    assert len(within.one) == 2
    assert len(across.one) == 0


@pytest.mark.parametrize("at_a_time", [1, 100])
def test_of_three_duplicates_the_one_with_another_label_is_far_from_both(at_a_time, monkeypatch):
    monkeypatch.setattr(duplicates, "blocks", lambda count: blocks(count, at_a_time))
    shape = np.random.default_rng(0).uniform(0, SIDE, (NUM_POINTS, 2))
    shape[5] = np.nan
    known = shape[:5]
    size = np.sqrt(((known - known.mean(axis=0)) ** 2).sum(axis=1).mean())
    photos = [photo_of(0)] * 3 + [photo_of(1)]
    pack = Packed(**vars(pack_of(photos, [shape, shape + (0.3 * size, 0), shape, shape], scale=0.5)))
    found = differences(pack, find_pairs(pack, None)[0])
    assert found[:3] == pytest.approx([0.15, 0.3, 0.15])
    assert np.isnan(found[3])
