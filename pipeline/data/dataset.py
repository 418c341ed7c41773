"""What a training run needs of the data, found before it starts: packs, split, flip indices, mean shape."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from augment import RegionOfInterest, transform_points
from pipeline.data import contest
from pipeline.data.pack import Pack, open_pack
from pipeline.data.roi import Shares, find_roi, shares_of
from pipeline.data.sample_weights import read_sample_weights
from pipeline.data.shape_model import fit_shapes
from pipeline.data.split import describe_groups, near_duplicate_groups, split_by_file, split_by_groups, unite
from pipeline.data.symmetry import NoSymmetry, find_flip_indices
from pipeline.errors import Faults, UserError
from pipeline.flip_indices import FORMAT, read_flip_indices
from pipeline.metrics import Scores, mean_shape, score, to_photo_coordinates
from pipeline.recipe import Recipe

NUM_NAMED = 3
NUM_SHAPES = 5000  # of which components are found
SHIFT, TURN = 0.15, 0.2  # of a shape, in its radius and as a share or in radians


@dataclass(frozen=True)
class TrainingData:
    """pack: all photos of train. train, validation: indices in it. groups: (N,) numbers of what belongs together;
    `grouping` says how they came. test: the photos of the test, where the contest has some.

    flip_indices: (K,) partners of the points, or None when there is no mirroring; `symmetry` says how that came.
    mean_shape: (K, 2) of the photos that are trained on, in pixels of the ROI. ROI: which part of the square
    that is. weights: (N,) how much each photo counts in training, or None where all count alike; those with 0 are not
    in `train`.
    """

    pack: Pack
    train: np.ndarray
    validation: np.ndarray
    groups: np.ndarray
    grouping: str
    test: Pack | None
    flip_indices: np.ndarray | None
    symmetry: str
    mean_shape: np.ndarray
    roi: Shares
    weights: np.ndarray | None = None

    @property
    def num_points(self) -> int:
        return len(self.mean_shape)


def load_training_data(recipe: Recipe) -> TrainingData:
    """Reads and checks all that the contest's folder holds, the test's part too, then splits the photos.

    Raises UserError with every fault of the data, before anything is trained.
    """
    options = recipe.photos
    table, roi, pack, test, given = _open_contest(recipe)
    near = near_duplicate_groups(pack.hashes)
    groups = near if given is None else unite(given, near)
    if options.split:
        held_out = split_by_file(options.split, pack.names)
    else:
        held_out = split_by_groups(groups, share=1 - options.train_share, seed=recipe.run.seed)
    weights = _sample_weights(options, pack)
    train = np.flatnonzero(~held_out if weights is None else ~held_out & (weights > 0))
    if not len(train):
        raise UserError(f"--sample-weights {options.sample_weights} leaves no photo to train on; raise some weights")
    if len(unknown := np.flatnonzero(np.isnan(pack.values[train]).any(axis=2).all(axis=0))):
        raise UserError(
            f"{table}: {len(unknown)} points are missing in every photo that is trained on, "
            f"number {unknown[0]} for one; remove their columns"
        )
    partners, symmetry = _flip_indices(options.flip_indices, pack, train)
    return TrainingData(
        pack=pack,
        train=train,
        validation=np.flatnonzero(held_out),
        groups=groups,
        grouping=describe_groups(given, near),
        test=test,
        flip_indices=partners,
        symmetry=symmetry,
        mean_shape=mean_shape(pack.photo_to_image, pack.values, train),
        roi=roi,
        weights=weights,
    )


def _sample_weights(options, pack):
    """The weights that a file gives the photos, which may name those that --limit-photos or a fault leaves out."""
    if not options.sample_weights:
        return None
    others = None if options.limit_photos else pack.left_out
    return read_sample_weights(options.sample_weights, pack.names, others=others)


def _open_contest(recipe):
    """The train table's path, the ROI, the packs of train and of the test, None without one, and the numbers of the
    groups of `groups.csv`, None without it.
    """
    root = contest.find_contest(recipe.run.data)
    table, asked, groups = root / contest.LANDMARKS, root / contest.TEST_POINTS, root / contest.GROUPS
    faults = Faults()
    roi, pack = _open_train(recipe, table, groups, faults)
    num_points = contest.count_points(table)
    test = given = None
    if num_points and asked.parent.exists():
        test = _open(recipe, asked, partial(contest.read_test_points, num_points=num_points), faults, roi)
    if os.path.lexists(groups):
        given = contest.read_groups(groups, pack.names.tolist() if pack else [], faults)
    faults.refuse()
    assert pack is not None
    return table, roi, pack, test, given


def _open_train(recipe, table, groups, faults):
    """The ROI and the pack of the photos of train, for which the table is read at most once."""
    landmarks, options = ReadOnce(contest.read_landmarks), recipe.photos
    take, limit = landmarks.take, options.limit_photos
    if limit:
        take = partial(read_few, landmarks.take, groups=groups, limit=limit)
    if options.roi == "auto":
        roi = find_roi(table, landmarks.look, resize=options.resize, cache=recipe.run.cache)
    else:
        roi = shares_of(options.roi)
    return roi, _open(recipe, table, take, faults, roi, limit=limit)


def read_few(
    read_table: Callable[[Path, Faults], contest.Table], path: Path, faults: Faults, *, groups: Path, limit: int
) -> contest.Table:
    """As many photos of a table as fit into `limit`, at random but always the same; whole groups of groups.csv, where
    there is one. The others need not even be decoded.
    """
    table = read_table(path, faults)
    if len(table.names) <= limit:
        return table
    if os.path.lexists(groups):
        group_of = contest.read_groups(groups, table.names, Faults())  # whose faults are found later
    else:
        group_of = np.arange(len(table.names))
    chosen = split_by_groups(group_of, share=limit / len(table.names), seed=0)
    return contest.Table([table.names[row] for row in np.flatnonzero(chosen)], table.values[chosen])


class ReadOnce:
    """A large table that two need, one after the other: the first looks at it, the last takes it, so that it is let go
    of when the last one does. Either reads it if the other has not, and either is told of its faults.
    """

    def __init__(self, read_table: Callable[[Path, Faults], contest.Table]):
        self._read_table = read_table
        self._known: tuple[contest.Table, Faults] | None = None

    def look(self, path: Path, faults: Faults) -> contest.Table:
        if not self._known:
            own = Faults()
            self._known = self._read_table(path, own), own
        table, found = self._known
        faults.extend(found)
        return table

    def take(self, path: Path, faults: Faults) -> contest.Table:
        table, self._known = self.look(path, faults), None
        return table


def leaks(data: TrainingData) -> list[str]:
    """What may make a score too good, a line each: a split of a user that cuts groups, test photos that are known."""
    lines = []
    crossing = data.validation[np.isin(data.groups[data.validation], data.groups[data.train])]
    if len(crossing):
        lines.append(
            f"--split holds out {len(crossing):,} photos of which near-duplicates or others of their group are trained "
            f"on: {_first(data.pack.names[crossing])}"
        )
    if data.test:
        groups = near_duplicate_groups(np.concatenate([data.pack.hashes, data.test.hashes]))
        known = np.isin(groups[len(data.pack) :], groups[: len(data.pack)])
        if known.any():
            names = _first(data.test.names[known])
            lines.append(f"{known.sum():,} photos of the test are near-duplicates of photos of train: {names}")
    return lines


def _first(names):
    return ", ".join(names[:NUM_NAMED].tolist()) + (" …" if len(names) > NUM_NAMED else "")


def load_test_data(recipe: Recipe, num_points: int) -> tuple[contest.Table, Pack]:
    """The table of the test photos and their pack, which has the same rows but for broken photos that are skipped.

    Raises UserError with every fault of the data.
    """
    path = contest.find_contest(recipe.run.data, contest.TEST_POINTS) / contest.TEST_POINTS
    read_asked = partial(contest.read_test_points, num_points=num_points)
    faults = Faults()
    pack = _open(recipe, path, read_asked, faults, shares_of(recipe.photos.roi))
    faults.refuse()
    assert pack is not None
    table = read_asked(path, faults)  # the pack may be of a time when it was read for a network of more points
    faults.refuse()
    return table, pack


def _open(recipe, path, read_table, faults, roi, *, limit=None):
    return open_pack(
        path,
        read_table,
        cache=recipe.run.cache,
        roi=RegionOfInterest.of(roi, recipe.photos.size),
        resize=recipe.photos.resize,
        faults=faults,
        skip_bad_photos=recipe.run.skip_bad_photos,
        limit=limit,
    )


def mean_shape_score(data: TrainingData) -> Scores:
    """What the mean shape scores on the validation photos: the floor, a network that does not look."""
    photo_to_image, truth = data.pack.photo_to_image[data.validation], data.pack.values[data.validation]
    return score(to_photo_coordinates(photo_to_image, data.mean_shape), truth, data.groups[data.validation])


def shape_components(data: TrainingData) -> np.ndarray:
    """(Q, K, 2) the ways in which the training shapes differ, in pixels of the ROI, the largest first, each as long as
    its standard deviation: shifts, a scale and a rotation, which augmentation adds to, and what remains of them."""
    samples = data.train[:: max(1, len(data.train) // NUM_SHAPES)]
    points = transform_points(data.pack.photo_to_image[samples], data.pack.values[samples])
    known = ~np.isnan(points).any(axis=2)
    enough = known.sum(axis=1) >= 2
    model = fit_shapes(np.nan_to_num(points[enough]), known[enough])
    centred = data.mean_shape - data.mean_shape.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1).mean())
    across = np.stack((-centred[:, 1], centred[:, 0]), axis=1)
    shifts = radius * SHIFT * np.broadcast_to(np.eye(2)[:, None], (2, len(centred), 2))
    rest = radius * model.loadings.transpose(2, 0, 1)
    return np.concatenate((shifts, TURN * np.stack((centred, across)), rest))


def _flip_indices(wanted, pack, train):
    """The partners, and how they were had in a few words."""
    if wanted == "none":
        return None, "mirroring is off"
    if wanted != "auto":
        return read_flip_indices(Path(wanted), pack.values.shape[1]), f"partners from {wanted}"
    try:
        partners = find_flip_indices(pack.values, train)
    except NoSymmetry as reason:
        return None, f"no left/right symmetry, mirroring is off: {reason}; --flip-indices FILE gives it: {FORMAT}"
    pairs = int((partners != np.arange(len(partners))).sum()) // 2
    return partners, f"found: {pairs} pairs of points, {len(partners) - 2 * pairs} on the axis"
