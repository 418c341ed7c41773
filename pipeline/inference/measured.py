"""What a run's best weights find in the photos that it held out: all that a report needs of photos and network, kept in
the run's folder, so that the report can be made again, and runs compared, from files alone.

held_out.npz    arrays of the fields of `Measured`
"""

import io
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from augment import transform_points
from augment.geometry import scale_of
from models import LandmarkNet
from pipeline.data.dataset import TrainingData
from pipeline.data.drawing import scaled
from pipeline.errors import UserError
from pipeline.files import check_regular, replacing
from pipeline.inference.predict import predict_views
from pipeline.inference.tta import FixedView, parse_views
from pipeline.metrics import point_errors, score, squared_error_sums
from pipeline.runtime import Runtime

NAME = "held_out.npz"
MAX_MEASURED = 4000  # photos; more take long and tell no more
WORST, MEDIAN, DOUBTFUL = 8, 4, 8  # photos that are shown
TILE = 256  # pixels, of a photo that is shown
# Of arrays; the others are numbers.
KINDS = {
    "names": "U", "kinds": "U", "counts": "i", "point_counts": "i", "groups": "i", "tiles": "u", "labels": "u",
}  # fmt: skip
ADDED = ("labels", "point_counts")  # files of earlier versions lack these


@dataclass(frozen=True)
class Measured:
    """N photos, K points, M photos that are shown, of S pixels.

    scores: mse, low, high and nme. names, sums and counts: for each photo the sum of its squared errors and how many
    coordinates are known; groups: what belongs together. point_errors: (K,) RMS, in pixels of the photos. point_counts:
    (K,) of how many coordinates; 1 in runs of earlier versions. mean_shape: (K, 2). shown: (M,) rows of the photos.
    kinds: (M,) why each is shown. tiles: (M, S, S, 3). predicted, truth: (M, K, 2) in pixels of the tiles. doubts: (N,)
    RMS distance of a photo's points from those of its mirror image, as a share of the image's side; of length 0 without
    mirroring. labels: (N,) what tells the points of a photo from others; of length 0 in runs of earlier versions.
    """

    scores: np.ndarray
    names: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    groups: np.ndarray
    point_errors: np.ndarray
    mean_shape: np.ndarray
    shown: np.ndarray
    kinds: np.ndarray
    tiles: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    doubts: np.ndarray
    labels: np.ndarray
    point_counts: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """(N,) mean squared errors, NaN for a photo without points."""
        return _means(self.sums, self.counts)


def _means(sums, counts):
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def measure(network: LandmarkNet, data: TrainingData, runtime: Runtime) -> Measured:
    """Predicts the held-out photos, as they are and mirrored, with a network in eval mode."""
    samples, pack = data.validation, data.pack
    if len(samples) > MAX_MEASURED:
        samples = np.sort(np.random.default_rng(0).choice(samples, MAX_MEASURED, replace=False))
    points, doubts = _predict(network, data, samples, runtime)
    truth, names = pack.values[samples].astype(np.float64), pack.names[samples]
    sums, counts = squared_error_sums(points, truth, names)
    scores = score(points, truth, data.groups[samples], names)
    errors_of_points, point_counts = point_errors(points, truth)
    rows, kinds = choose(_means(sums, counts), doubts)
    tiles = np.stack(
        [cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA) for image in pack.shown(samples[rows])]
    )
    to_tile = pack.photo_to_image[samples[rows]]
    factor = TILE / pack.roi.size
    return Measured(
        scores=np.array([scores.mse, scores.low, scores.high, scores.nme]),
        names=names,
        sums=sums,
        counts=counts,
        groups=data.groups[samples],
        point_errors=errors_of_points,
        point_counts=point_counts,
        mean_shape=data.mean_shape,
        shown=rows,
        kinds=kinds,
        tiles=tiles,
        predicted=scaled(transform_points(to_tile, points[rows]), factor),
        truth=scaled(transform_points(to_tile, truth[rows]), factor),
        doubts=doubts,
        labels=np.array([zlib.crc32(points.tobytes()) for points in pack.values[samples]], np.uint32),
    )


def _predict(network, data, samples, runtime):
    """(N, K, 2) points of the photos as they are, and the doubts of `Measured`."""
    pack = data.pack
    views = [FixedView.identity()]
    if data.flip_indices is not None:
        mirrored = [{"MirrorAugmenter": {"probability": 1}}]
        views += parse_views([mirrored], size=pack.roi.size, mirroring=True, source="the mirror image")
    points = np.empty((len(samples), data.num_points, 2))
    doubts = np.empty(len(samples) if len(views) > 1 else 0)
    blocks = predict_views(network, pack, samples, views, data.flip_indices, runtime=runtime, description="report")
    for found in blocks:
        block, seen = found.block, found.points
        points[block] = seen[0]
        if len(views) > 1:
            squares = ((seen[0] - seen[1]) ** 2).mean(axis=(1, 2))
            doubts[block] = np.sqrt(squares) * scale_of(pack.photo_to_image[samples[block]]) / pack.roi.size
    return points, doubts


def choose(errors: np.ndarray, doubts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the photos to show, and why: the worst, those in the middle, and the most doubtful. A photo without
    labels, whose error is NaN, can only be doubtful."""
    order = np.argsort(-errors, kind="stable")[: np.isfinite(errors).sum()]  # NaN is sorted last
    start = max(0, (len(order) - MEDIAN) // 2)
    chosen = {"worst": order[:WORST], "median": order[start : start + MEDIAN]}
    if len(doubts):
        chosen["doubtful"] = np.argsort(-doubts, kind="stable")[:DOUBTFUL]
    return np.concatenate(list(chosen.values())), np.repeat(list(chosen), [len(rows) for rows in chosen.values()])


def save_measured(folder: Path, measured: Measured):
    with replacing(folder / NAME) as file:
        np.savez_compressed(file, **vars(measured))


def load_measured(folder: Path) -> Measured | None:
    """What was measured of a run, None if nothing was. Raises UserError if the file is damaged."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        check_regular(path)
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            found = {each.name: arrays[each.name] for each in fields(Measured) if each.name not in ADDED}
            found["labels"] = arrays.get("labels", np.empty(0, np.uint32))
            found["point_counts"] = arrays.get("point_counts", np.ones(found["point_errors"].shape, int))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{path} is damaged: {error}; delete it, and make it anew: python -m tools.report RUN"
        ) from error
    if not _fit_together(found):
        raise UserError(f"{path} is damaged: its arrays do not fit together; delete it, and make it anew")
    return Measured(**found)


def _fit_together(found):
    """Whether arrays of a file are of one run, and of the types that they have here."""
    num_photos, num_points, num_shown = len(found["names"]), len(found["mean_shape"]), len(found["shown"])
    shapes = {
        "scores": (4,), "sums": (num_photos,), "counts": (num_photos,), "groups": (num_photos,),
        "point_errors": (num_points,), "point_counts": (num_points,), "mean_shape": (num_points, 2),
        "kinds": (num_shown,), "predicted": (num_shown, num_points, 2), "truth": (num_shown, num_points, 2),
    }  # fmt: skip
    right = all(found[name].shape == shape for name, shape in shapes.items())
    right &= all(len(found[name]) in (0, num_photos) for name in ("doubts", "labels"))
    right &= found["tiles"].shape[:1] == (num_shown,)
    right &= all(found[name].dtype.kind == KINDS.get(name, found[name].dtype.kind) for name in found)
    return right and bool(((found["shown"] >= 0) & (found["shown"] < num_photos)).all())
