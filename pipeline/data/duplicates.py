"""Photos that occur twice: within train, or in train and test."""

from typing import NamedTuple

import numpy as np

from augment import transform_points
from pipeline.blocks import blocks
from pipeline.data.pack import Pack
from pipeline.data.split import near_duplicate_pairs
from pipeline.data.suspects import errors_in_sizes


class Pairs(NamedTuple):
    """Near-duplicates, (M,) each: one and other, as numbers of photos, and whether their packed pixels are the same."""

    one: np.ndarray
    other: np.ndarray
    exact: np.ndarray

    def those(self, which: np.ndarray) -> "Pairs":
        return Pairs(*(array[which] for array in self))


def find_pairs(train: Pack, test: Pack | None) -> tuple[Pairs, Pairs]:
    """Pairs within train, and pairs of a photo of train and one of the test, by their numbers in their packs."""
    hashes = np.concatenate([train.hashes, *([test.hashes] if test else [])])
    pairs = np.unique(np.sort(np.stack(near_duplicate_pairs(hashes), axis=1), axis=1), axis=0)
    pairs = pairs[(pairs[:, 0] < len(train)) & (pairs[:, 0] != pairs[:, 1])]
    same = (hashes[pairs[:, 0]] == hashes[pairs[:, 1]]).all(axis=1)
    across = pairs[:, 1] >= len(train)
    exact = np.zeros(len(pairs), bool)
    for index in np.flatnonzero(same):  # few: only their pixels are read
        one, other = pairs[index]
        beside = test.squares[other - len(train)] if across[index] and test else train.squares[other]
        exact[index] = np.array_equal(train.squares[one], beside)
    within = Pairs(pairs[~across, 0], pairs[~across, 1], exact[~across])
    return within, Pairs(pairs[across, 0], pairs[across, 1] - len(train), exact[across])


def label_differences(pack: Pack, pairs: Pairs) -> np.ndarray:
    """(M,) how far apart the labels of the photos of each pair lie, root mean square in sizes of the shape; NaN if they
    have no point in common."""
    found = [_differences(pack, pairs.one[block], pairs.other[block]) for block in blocks(len(pairs.one))]
    return np.concatenate([np.empty(0), *found])


def _differences(pack, first, second):
    one, other = (transform_points(pack.photo_to_image[samples], pack.values[samples]) for samples in (first, second))
    return np.maximum(errors_in_sizes(one, other), errors_in_sizes(other, one))  # in sizes of the smaller shape


def differences(pack: Pack, pairs: Pairs) -> np.ndarray:
    """(N,) how far the label of each photo of the pack lies from those of the photos that it is paired with, the median
    of them; NaN without any.

    If one of three duplicates has another label, that one alone is far from both others.
    """
    photo = np.concatenate((pairs.one, pairs.other))
    found = np.tile(label_differences(pack, pairs), 2)
    photo, found = photo[np.isfinite(found)], found[np.isfinite(found)]
    order = np.lexsort((found, photo))
    photo, found = photo[order], found[order]
    medians = np.full(len(pack), np.nan)
    starts = np.flatnonzero(np.diff(photo, prepend=-1))
    for samples in np.split(np.arange(len(photo)), starts[1:]) if len(photo) else []:
        medians[photo[samples[0]]] = np.median(found[samples])
    return medians
