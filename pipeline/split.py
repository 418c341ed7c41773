"""The split into train and validation: what belongs together stays on one side.

Frames of one person, or one photo saved twice, are near-copies; on both sides they would let the validation
measure memory. So whole groups are held out: those of `groups.csv`, or else near-duplicates that are found.
"""

from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import UserError

# Two photos are near-duplicates when at most this share of the bits that either has set differs. Measured on
# 3,545 frames of 292 people: of 6.3 million pairs of different people the nearest is at 0.37.
NEAR = 0.2
NUM_SORTS = 16
NUM_NEIGHBOURS = 8


def split_by_groups(groups: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """(N,) bool, True for validation: random whole groups, as many as fit into `share` of the photos, at least one."""
    numbers, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    held_out = np.zeros(len(numbers), bool)
    free = round(share * len(groups))
    for group in np.random.default_rng(seed).permutation(len(numbers)):
        if sizes[group] <= free:
            held_out[group] = True
            free -= sizes[group]
    if not held_out.any():
        held_out[sizes.argmin()] = True
    if held_out.all():
        raise UserError(
            "all photos are near-duplicates of one another or of one group; no validation split can be made"
        )
    return held_out[index]


def split_into_folds(groups: np.ndarray, count: int) -> np.ndarray:
    """(N,) numbers of `count` folds of about equal size, each with whole groups; of fewer where groups are fewer."""
    index, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    filled = np.zeros(min(count, len(sizes)))
    fold_of_group = np.empty(len(sizes), int)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of_group[group] = filled.argmin()
        filled[filled.argmin()] += sizes[group]
    return fold_of_group[index]


def split_by_file(path: Path, names: np.ndarray) -> np.ndarray:
    """(N,) bool, True for the photos that the file names, one a line: the `validation.txt` of a run, or a user's own.

    Raises UserError for a name that the train table does not have, or a file that leaves nothing on a side.
    """
    if not path.is_file():
        raise UserError(
            f"--split {path}: no such file; it takes a text file with the name of a validation photo a line"
        )
    wanted = path.read_text(encoding="utf-8").split("\n")
    held_out = np.isin(names, wanted)
    known = set(names)
    if unknown := [name for name in wanted if name and name not in known]:
        raise UserError(
            f"--split {path}: {unknown[0]} and {len(unknown) - 1} more are not in train/landmarks.csv"
            if len(unknown) > 1
            else f"--split {path}: {unknown[0]} is not in train/landmarks.csv"
        )
    if not held_out.any() or held_out.all():
        raise UserError(f"--split {path} names {held_out.sum():,} of {len(names):,} photos; both sides need some")
    return held_out


def near_duplicate_groups(hashes: np.ndarray) -> np.ndarray:
    """(N,) int: equal numbers for photos that a chain of near-duplicates connects, by their (N, 32) uint8 hashes.

    Hashes are sorted by their bits in many random orders, and each is compared with the few that follow it:
    near ones agree in the first bits of some order. Source: Charikar, "Similarity Estimation Techniques from
    Rounding Algorithms", STOC 2002, section 3; the sorted lists are those of its approximate neighbour search.
    """
    hashes = np.asarray(hashes)
    bits = np.unpackbits(hashes, axis=1)
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(NUM_SORTS):
        prefix = np.packbits(bits[:, rng.permutation(bits.shape[1])[:64]], axis=1)
        order = np.argsort(np.ascontiguousarray(prefix).view(">u8").ravel(), kind="stable")
        for step in range(1, NUM_NEIGHBOURS + 1):
            one, other = order[:-step], order[step:]
            differing = np.bitwise_count(hashes[one] ^ hashes[other]).sum(1)
            near = differing <= NEAR * np.bitwise_count(hashes[one] | hashes[other]).sum(1)
            pairs.append((one[near], other[near]))
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(hashes), len(hashes)))
    return connected_components(links, directed=False)[1]
