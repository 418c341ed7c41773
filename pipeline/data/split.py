"""The split into train and validation: what belongs together stays on one side.

Frames of one person, or one photo saved twice, are near-copies; on both sides they would make the validation
measure memory. So whole groups are held out: near-duplicates that are found and, if there is a `groups.csv`,
what it puts together; a chain of either is one group.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import UserError
from pipeline.files import read_text

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
        if not free:
            break
        if sizes[group] <= free:
            held_out[group] = True
            free -= sizes[group]
    if not held_out.any():
        held_out[sizes.argmin()] = True
    if held_out.all():
        raise UserError(
            "all photos are of one group, by groups.csv or as near-duplicates of one another; no validation split can "
            "be made of them: name the photos to hold out (--split FILE), or remove groups.csv"
        )
    return held_out[index]


def split_into_folds(groups: np.ndarray, count: int) -> np.ndarray:
    """(N,) numbers of `count` folds of about equal size, each of whole groups; fewer folds for fewer groups."""
    index, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    filled = np.zeros(min(count, len(sizes)))
    fold_of_group = np.empty(len(sizes), int)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of_group[group] = filled.argmin()
        filled[filled.argmin()] += sizes[group]
    return fold_of_group[index]


def split_by_file(path: Path, names: np.ndarray, *, others: Collection[str] = ()) -> np.ndarray:
    """(N,) bool, True for the photos that the file names, one per line: the `validation.txt` of a run, or a user's own.
    others: photos of the train table that were left out, and may be named too.

    Raises UserError for a name that the train table does not have, or a file that leaves nothing on a side.
    """
    text = read_text(path, said=f"--split {path}", takes="a text file with the name of a validation photo a line")
    wanted = dict.fromkeys(filter(None, text.split("\n")))
    held_out = np.array([name in wanted for name in names.tolist()])
    known = {*names.tolist(), *others}
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            f"--split {path}: {unknown[0][:100]} and {len(unknown) - 1} more are not in train/landmarks.csv"
            if len(unknown) > 1
            else f"--split {path}: {unknown[0][:100]} is not in train/landmarks.csv"
        )
    if not held_out.any() or held_out.all():
        raise UserError(f"--split {path} names {held_out.sum():,} of {len(names):,} photos; both sides need some")
    return held_out


def near_duplicate_groups(hashes: np.ndarray) -> np.ndarray:
    """(N,) int: equal numbers for photos that a chain of near-duplicates connects, by their (N, 32) uint8 hashes.

    What one order of the search finds is united before the next: photos that are all alike have very many pairs.
    """
    groups = np.arange(len(hashes))
    for one, other in _pairs_of_orders(hashes):
        groups = _components(groups[one], groups[other], groups.max() + 1)[groups]
    return groups


def near_duplicate_pairs(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two photos of each pair of near-duplicates, by their (N, 32) uint8 hashes; a pair may occur repeatedly, and
    one in a crowd of near-duplicates may be missing if a chain connects the two."""
    one, other = (np.concatenate(side) for side in zip(*_pairs_of_orders(hashes), strict=True))
    return one, other


def _pairs_of_orders(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of near-duplicates, as each of many orders finds them.

    Hashes are sorted by their bits in random orders, and each is compared with the few that follow it: near ones agree
    in the first bits of some order. Source: Charikar, "Similarity Estimation Techniques from Rounding Algorithms",
    STOC 2002, section 3; the sorted lists are those of its approximate neighbour search.
    """
    hashes = np.ascontiguousarray(hashes)
    bits = np.unpackbits(hashes, axis=1)
    rng = np.random.default_rng(0)
    for _ in range(NUM_SORTS):
        pairs = []
        prefix = np.packbits(bits[:, rng.permutation(bits.shape[1])[:64]], axis=1)
        order = np.argsort(np.ascontiguousarray(prefix).view(">u8").ravel(), kind="stable")
        words = hashes.view(np.uint64)[order]
        for step in range(1, NUM_NEIGHBOURS + 1):
            differing = np.bitwise_count(words[:-step] ^ words[step:]).sum(1)
            near = differing <= NEAR * np.bitwise_count(words[:-step] | words[step:]).sum(1)
            pairs.append((order[:-step][near], order[step:][near]))
        one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
        yield one, other


def unite(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) int: the finest grouping that splits no group of either, of photos numbered from 0 by each."""
    num_groups = one.max() + 1
    return _components(one, num_groups + other, num_groups + other.max() + 1)[one]


def describe_groups(given: np.ndarray | None, near: np.ndarray) -> str:
    """How the groups of `groups.csv`, if given, and those of near-duplicates came together."""
    sizes = np.bincount(near)
    if given is None:
        return f"no groups.csv; {sizes[sizes > 1].sum():,} near-duplicates in {(sizes > 1).sum():,} groups"
    united = np.empty(given.max() + 1, int)
    united[given] = unite(given, near)
    parts = np.bincount(united)
    text = f"{len(united):,} of groups.csv"
    if (joined := parts > 1).any():
        spread = np.bincount(np.unique(np.stack([near, given]), axis=1)[0])  # how many given groups each is of
        photos = (spread[near] > 1).sum()
        text += f", {parts[joined].sum():,} of them joined into {joined.sum():,} by {photos:,} near-duplicates"
    return text


def _components(one, other, count):
    """(count,) int: equal numbers for what a chain of the links one - other connects, in the order of their first."""
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return connected_components(links, directed=False)[1]
