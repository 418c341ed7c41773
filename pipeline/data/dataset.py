"""What a training run needs of the data, found before it starts: packs, split, flip indices, mean shape."""

import math
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from augment import RegionOfInterest, transform_points
from pipeline.blocks import blocks
from pipeline.data import contest
from pipeline.data.boxes import Boxes, read_boxes
from pipeline.data.kept import kept, kept_numbers, key_of
from pipeline.data.pack import Pack, open_pack
from pipeline.data.reading import ReadOnce, read_few
from pipeline.data.roi import Shares, find_roi, shares_of, shares_shown
from pipeline.data.sample_weights import read_sample_weights
from pipeline.data.shape_model import fit_shapes
from pipeline.data.split import (
    NEAR,
    NUM_NEIGHBOURS,
    NUM_SORTS,
    describe_groups,
    near_duplicate_groups,
    split_by_file,
    split_by_groups,
    unite,
)
from pipeline.data.symmetry import NoSymmetry, find_flip_indices
from pipeline.errors import Faults, UserError
from pipeline.flip_indices import FORMAT, read_flip_indices
from pipeline.metrics import PhotoErrors, Scores, errors_of_photos, mean_shape, scores_of, to_photo_coordinates
from pipeline.recipe import Recipe
from pipeline.runs import Run

NUM_NAMED = 3
FOUND = 2  # the version of what is found in shapes; with another one it is found anew
SCORED = 2  # the same of the score of the mean shape
COMPARED = 64  # pixels, of the ROI of photos that no network is shown
NUM_SHAPES = 5000  # at most, from which components are found
SHIFT, TURN = 0.15, 0.2  # of a shape, in its radius and as a share or in radians


@dataclass(frozen=True)
class TrainingData:
    """pack: all photos of train. train, validation: indices in it. groups: (N,) numbers of what belongs together;
    `grouping` says where they come from. test: the photos of the test, if the contest has some.

    flip_indices: (K,) partners of the points, or None without mirroring; `symmetry` says how they were found, or why
    not. mean_shape: (K, 2) of the training photos, in pixels of the ROI. ROI: which part of the square
    that is. weights: (N,) how much each photo counts in training, or None if all count alike; those with 0 are not
    in `train`. boxes: what to show of each photo, if not all. num_empty: photos that would be trained on, but have no
    known point.
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
    boxes: Boxes | None = None
    num_empty: int = 0

    @property
    def num_points(self) -> int:
        return len(self.mean_shape)


def load_training_data(recipe: Recipe, *, of_run: Run | None = None) -> TrainingData:
    """Reads and checks all that the contest's folder holds, including the test, then splits the photos.

    of_run: one that was trained on these photos. Raises UserError with every fault of the data, before anything is
    trained, and where that run was trained on others.
    """
    options = recipe.photos
    boxes = read_boxes(options.boxes)
    table, roi, pack, test, given = _open_contest(recipe, boxes)
    if of_run:  # before its split is applied, of which photos may be gone
        of_run.check_data(pack.fingerprint, recipe.run.data)
    near = _near_duplicates(pack.hashes, recipe.run.cache)
    groups = near if given is None else unite(given, near)
    if options.split:
        held_out = split_by_file(options.split, pack.names, others=pack.left_out)
    else:
        held_out = split_by_groups(groups, share=1 - options.train_share, seed=recipe.run.seed)
    weights = _sample_weights(options, pack)
    train = np.flatnonzero(~held_out if weights is None else ~held_out & (weights > 0))
    if not len(train):
        raise UserError(f"--sample-weights {options.sample_weights} leaves no photo to train on; raise some weights")
    shape = _shape(pack, train, options.flip_indices)
    if shape.unknown:
        raise UserError(
            f"{table}: {len(shape.unknown)} points are missing in every photo that is trained on, "
            f"number {shape.unknown[0]} for one; remove their columns, or, if held-out photos have these points, "
            "hold out other photos (--split FILE)"
        )
    train = np.delete(train, shape.empty)
    if options.flip_indices in ("auto", "none"):
        partners, symmetry = shape.partners, shape.symmetry
    else:
        partners = read_flip_indices(Path(options.flip_indices), pack.values.shape[1])
        symmetry = f"partners from {options.flip_indices}"
    return TrainingData(
        pack=pack,
        train=train,
        validation=np.flatnonzero(held_out),
        groups=groups,
        grouping=describe_groups(given, near),
        test=test,
        flip_indices=None if partners is None else np.array(partners),
        symmetry=symmetry,
        mean_shape=np.array(shape.mean),
        roi=roi,
        weights=weights,
        boxes=boxes,
        num_empty=len(shape.empty),
    )


def open_train_photos(recipe: Recipe) -> Pack:
    """The photos of train alone, checked no more than `load_training_data` does. Raises UserError as that does."""
    return _open_contest(recipe, read_boxes(recipe.photos.boxes))[2]


def _sample_weights(options, pack):
    """The weights that a file gives the photos; it may also name those that --limit-photos or a fault leaves out."""
    if not options.sample_weights:
        return None
    others = None if options.limit_photos else pack.left_out
    return read_sample_weights(options.sample_weights, pack.names, others=others)


def _open_contest(recipe, boxes):
    """The train table's path, the ROI, the packs of train and of the test (None without one), and the numbers of the
    groups of `groups.csv` (None without it).
    """
    root = contest.find_contest(recipe.run.data)
    table, asked, groups = root / contest.LANDMARKS, root / contest.TEST_POINTS, root / contest.GROUPS
    faults = Faults()
    roi, pack = _open_train(recipe, table, faults, boxes)
    num_points = contest.count_points(table)
    test = given = None
    if num_points and asked.parent.exists():
        seen = recipe
        if boxes:  # it is predicted as boxes show it; whole, it is only compared with train
            seen = replace(recipe, photos=replace(recipe.photos, size=min(COMPARED, recipe.photos.size)))
        test = _open(seen, asked, partial(contest.read_test_points, num_points=num_points), faults, roi)
    if os.path.lexists(groups):
        given = contest.read_groups(groups, pack.names.tolist() if pack else [], faults)
    faults.refuse()
    assert pack is not None
    return table, roi, pack, test, given


def _open_train(recipe, table, faults, boxes):
    """The ROI and the pack of the photos of train; the table is read at most once."""
    landmarks, options = ReadOnce(partial(contest.read_landmarks, scratch=recipe.run.cache)), recipe.photos
    take, limit = landmarks.take, options.limit_photos
    if limit:
        take = partial(read_few, landmarks.take, limit=limit)
    if options.roi == "auto":
        roi = find_roi(
            table,
            landmarks.look,
            resize=options.resize,
            cache=recipe.run.cache,
            check_photos=recipe.run.check_photos,
            boxes=boxes,
        )
    else:
        roi = shares_of(options.roi)
    return roi, _open(recipe, table, take, faults, roi, limit=limit, boxes=boxes)


def leaks(data: TrainingData) -> list[str]:
    """What may make a score too good, a line each: a user's split that cuts groups, and test photos that are known."""
    lines = []
    crossing = data.validation[np.isin(data.groups[data.validation], data.groups[data.train])]
    if len(crossing):
        lines.append(
            f"--split holds out {len(crossing):,} photos of which near-duplicates or others of their group are trained "
            f"on: {_first(data.pack.names[crossing])}"
        )
    if data.test:
        groups = _near_duplicates(np.concatenate([data.pack.hashes, data.test.hashes]), data.pack.folder.parent)
        known = np.isin(groups[len(data.pack) :], groups[: len(data.pack)])
        if known.any():
            names = _first(data.test.names[known])
            lines.append(f"{known.sum():,} photos of the test are near-duplicates of photos of train: {names}")
    return lines


def _first(names):
    return ", ".join(names[:NUM_NAMED].tolist()) + (" …" if len(names) > NUM_NAMED else "")


def load_test_data(recipe: Recipe, num_points: int, *, boxes: Boxes | None = None) -> tuple[contest.Table, Pack]:
    """The table of the test photos and their pack, which has the same rows except for broken photos that are skipped.

    boxes: of the test's photos. The recipe's boxes are of other photos, which may have the same names.

    Raises UserError with every fault of the data.
    """
    path = contest.find_contest(recipe.run.data, contest.TEST_POINTS) / contest.TEST_POINTS
    read_asked = partial(contest.read_test_points, num_points=num_points)
    faults = Faults()
    shares = shares_shown(recipe.photos, in_boxes=boxes is not None)
    pack = _open(recipe, path, read_asked, faults, shares, boxes=boxes)
    faults.refuse()
    assert pack is not None
    table = read_asked(path, faults)  # the pack may be from a time when it was read for a network of more points
    faults.refuse()
    return table, pack


def _open(recipe, path, read_table, faults, roi, *, limit=None, boxes=None):
    return open_pack(
        path,
        read_table,
        cache=recipe.run.cache,
        roi=RegionOfInterest.of(roi, recipe.photos.size),
        resize=recipe.photos.resize,
        faults=faults,
        skip_bad_photos=recipe.run.skip_bad_photos,
        check_photos=recipe.run.check_photos,
        limit=limit,
        boxes=boxes,
        kind=recipe.photos.pack,
    )


def mean_shape_score(data: TrainingData) -> Scores:
    """The mean shape's score on the validation photos: the floor, from a network that does not look. Raises UserError
    if none of their points is known."""
    pack, samples = data.pack, data.validation

    def find():
        found = []
        for block in blocks(len(samples)):
            points = to_photo_coordinates(pack.photo_to_image[samples[block]], data.mean_shape)
            found.append(errors_of_photos(points, pack.values[samples[block]]))
        errors = PhotoErrors.together(found)
        if not errors.counts.any():
            raise UserError(
                f"none of the {len(samples):,} held-out photos has a known point, so nothing could be measured on "
                "them; hold out more (--train-share), or others (--split FILE)"
            )
        return scores_of(errors, data.groups[samples])

    of = key_of(str(SCORED), pack.fingerprint, pack.roi.matrix, samples, data.mean_shape, data.groups[samples])
    return kept(pack.folder.parent / f"floor-{of}.json", Scores, find)


def typical_spread(data: TrainingData) -> float:
    """The median `spread` of the training shapes, in pixels of the ROI; 0 if no photo has two points. For a photo with
    missing points, it is that of the others, scaled up by as much as the mean shape's grows with all of them."""
    points, known = _training_shapes(data)
    points, known = points[known.any(axis=1)], known[known.any(axis=1)]
    own, of_mean = spread(points), spread(np.where(known[:, :, None], data.mean_shape, np.nan))
    usable = (own > 0) & (of_mean > 0)
    return float(np.median(own[usable] / of_mean[usable]) * spread(data.mean_shape[None])[0]) if usable.any() else 0.0


def _training_shapes(data):
    """(N, K, 2) points of up to NUM_SHAPES training photos, in pixels of the ROI, and (N, K) whether they are known."""
    samples = data.train[:: math.ceil(len(data.train) / NUM_SHAPES)]
    points = transform_points(data.pack.photo_to_image[samples], data.pack.values[samples])
    return points, ~np.isnan(points).any(axis=2)


def spread(points: np.ndarray) -> np.ndarray:
    """(N,) the root mean square distance of (N, K, 2) points, some of which may be missing, from their middle."""
    middle = np.nanmean(points, axis=1, keepdims=True)
    return np.sqrt(np.nanmean(((points - middle) ** 2).sum(axis=2), axis=1))


def shape_components(data: TrainingData) -> np.ndarray:
    """(Q, K, 2) the ways in which the training shapes differ, in pixels of the ROI, largest first, each as long as its
    standard deviation: shifts, a scale and a rotation, which augmentation adds to, and what remains of them.

    The length is that of single shapes, which may be far larger than the mean of shapes that are turned at random."""
    points, known = _training_shapes(data)
    enough = known.sum(axis=1) >= 2
    there = known[enough].any(axis=0)  # the others, which few photos have, are assumed to stay where they are
    loadings = np.zeros((*data.mean_shape.shape, 0))
    if enough.any():
        found = fit_shapes(np.nan_to_num(points[enough][:, there]), known[enough][:, there]).loadings
        loadings = np.zeros((*data.mean_shape.shape, found.shape[2]))
        loadings[there] = found
    centred = data.mean_shape - data.mean_shape.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1).mean())
    if radius == 0:  # one point, for which the components that a head draws are as good
        return np.zeros((0, *centred.shape))
    size = typical_spread(data) or radius
    upright = centred * (size / radius)
    across = np.stack((-upright[:, 1], upright[:, 0]), axis=1)
    shifts = size * SHIFT * np.broadcast_to(np.eye(2)[:, None], (2, len(centred), 2))
    rest = size * loadings.transpose(2, 0, 1)
    return np.concatenate((shifts, TURN * np.stack((upright, across)), rest))


def _near_duplicates(hashes, cache):
    """`near_duplicate_groups` of the hashes, found once."""
    of = key_of(np.array([NEAR, NUM_SORTS, NUM_NEIGHBOURS]), hashes)
    return kept_numbers(cache / f"near-duplicates-{of}.i4", len(hashes), lambda: near_duplicate_groups(hashes))


@dataclass(frozen=True)
class _Shape:
    """What the training points tell: points that are missing in all photos, indices in `train` of photos without any,
    the mean shape, in pixels of the ROI, and the partners of the points, if they were wanted and found, and in a few
    words how.
    """

    unknown: list[int]
    empty: list[int]
    mean: list[tuple[float, float]]
    partners: list[int] | None
    symmetry: str


def _shape(pack, train, flip_indices):
    """Found once for the same points: it takes a look at all of them, and another for the partners."""
    wanted = flip_indices if flip_indices in ("auto", "none") else "none"

    def find():
        known, empty = np.zeros(pack.values.shape[1], bool), np.zeros(len(train), bool)
        for block in blocks(len(train)):
            missing = np.isnan(pack.values[train[block]]).any(axis=2)
            known |= ~missing.all(axis=0)
            empty[block] = missing.all(axis=1)
        if not known.all():
            return _Shape(np.flatnonzero(~known).tolist(), [], [], None, "")
        partners, symmetry = _flip_indices(wanted, pack, train)
        mean = mean_shape(pack.photo_to_image, pack.values, train)
        partners = None if partners is None else partners.tolist()
        return _Shape([], np.flatnonzero(empty).tolist(), mean.tolist(), partners, symmetry)

    of = key_of(str(FOUND), pack.fingerprint, pack.roi.matrix, train, wanted)
    return kept(pack.folder.parent / f"shape-{of}.json", _Shape, find)


def _flip_indices(wanted, pack, train):
    """The partners, and in a few words how they came about."""
    if wanted == "none":
        return None, "mirroring is off"
    try:
        partners = find_flip_indices(pack.values, train)
    except NoSymmetry as reason:
        return None, f"no left/right symmetry, mirroring is off: {reason}; --flip-indices FILE gives it: {FORMAT}"
    pairs = int((partners != np.arange(len(partners))).sum()) // 2
    return partners, f"found: {pairs} pairs of points, {len(partners) - 2 * pairs} on the axis"
