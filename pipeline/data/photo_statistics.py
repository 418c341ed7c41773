"""What photos look like in a few numbers, and whether train and test can be told apart by them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from augment import fit_photo
from pipeline.data.cores import map_with_all_cores
from pipeline.data.photos import BrokenPhoto, read_photo
from pipeline.errors import UserError
from pipeline.progress import progress

STATISTICS = ("width", "height", "aspect", "black bars", "brightness", "contrast", "colour", "sharpness", "kilobytes")
BLACK = 16  # of 255; a row or a column whose pixels are all darker is a bar
GREY = 3.0  # of 255, the mean difference between channels below which a photo is grey
SMALL = 128  # pixels, the side to which a photo is resized before its sharpness is measured
AHEAD = 64  # photos that are decoded before they are taken
FOLDS = 5
MIN_PHOTOS = 50  # of either side, to tell them apart
SURE = 3.0  # standard errors
SEEN = 0.6  # area under the curve, from which on a shift is worth mentioning


@dataclass(frozen=True)
class Looked:
    """Photos that were looked at. rows: (M,) of the table. statistics: (M, S), as STATISTICS names them. tiles:
    (M, T, T, 3) uint8, fitted into squares. photo_to_tile: (M, 3, 3)."""

    rows: np.ndarray
    statistics: np.ndarray
    tiles: np.ndarray
    photo_to_tile: np.ndarray

    def column(self, name: str) -> np.ndarray:
        return self.statistics[:, STATISTICS.index(name)]


def look_at(photos: Path, names: list[str], *, count: int, side: int, description: str) -> Looked:
    """Looks at `count` photos that are evenly spread over the names; those that cannot be read are left out.

    Raises UserError if none can be read.
    """
    rows = np.unique(np.linspace(0, len(names) - 1, count).astype(int))
    kept = []
    with progress(len(rows), description, unit="photo") as bar:
        found = map_with_all_cores(lambda row: _look(photos / names[row], side), rows.tolist(), ahead=AHEAD)
        for row, one in zip(rows.tolist(), found, strict=True):
            kept += [] if one is None else [(row, *one)]
            bar.update()
    if not kept:
        raise UserError(f"{photos}: none of the {len(rows):,} photos that were looked at can be read")
    return Looked(*(np.array(column) for column in zip(*kept, strict=True)))


def _look(path, side):
    """The statistics, the tile and its matrix, or None for a broken photo."""
    try:
        photo = read_photo(path)
    except BrokenPhoto:
        return None
    tile, matrix = fit_photo(photo, side, "letterbox")
    return statistics_of(photo, path.stat().st_size), tile, matrix


def statistics_of(photo: np.ndarray, num_bytes: int) -> list[float]:
    """The numbers of STATISTICS for a (H, W, 3) uint8 photo: its sides in pixels, width over height, the share of it in
    black bars, mean and deviation of its brightness and the mean difference between its channels, of 255, the logarithm
    of the variance of its Laplacian, and the size of its file."""
    height, width = photo.shape[:2]
    inner = without_bars(photo)
    pixels = inner[:: max(1, len(inner) // 256), :: max(1, inner.shape[1] // 256)].astype(np.float32)
    grey = pixels.mean(axis=2)
    small = cv2.resize(inner, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    edges = cv2.Laplacian(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    return [
        float(width),
        float(height),
        width / height,
        1 - inner.shape[0] * inner.shape[1] / (width * height),
        float(grey.mean()),
        float(grey.std()),
        float((pixels.max(axis=2) - pixels.min(axis=2)).mean()),
        float(np.log1p(edges.var())),
        num_bytes / 1000,
    ]


def without_bars(photo: np.ndarray) -> np.ndarray:
    """The part of a photo within its black bars; all of it if it is black."""
    bright = photo.max(axis=2) >= BLACK
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    if not len(rows):
        return photo
    return photo[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@dataclass(frozen=True)
class Shift:
    """auc: of a classifier of train and test, on other groups of photos than it was fitted on, 0.5 for chance; `error`
    is its standard error. by_statistic: the same for each statistic alone, at least 0.5."""

    auc: float
    error: float
    by_statistic: dict[str, float]

    @property
    def is_seen(self) -> bool:
        return self.auc >= SEEN and self.auc - 0.5 > SURE * self.error


def shift_between(train: np.ndarray, test: np.ndarray, groups: np.ndarray) -> Shift | None:
    """How well (M, S) statistics tell train from test; None if either has too few photos or groups.

    groups: (M of train + M of test,): photos of one are fitted or judged together. The classifier adds up a curve for
    each statistic, so it cannot learn single photos by heart.
    """
    from sklearn.linear_model import LogisticRegression  # these are slow to import
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, SplineTransformer

    values = np.concatenate((train, test))
    side = np.repeat((0, 1), (len(train), len(test)))
    num_train, num_test = (len(np.unique(groups[side == each])) for each in (0, 1))
    if min(len(train), len(test)) < MIN_PHOTOS or min(num_train, num_test) < 2 * FOLDS:
        return None
    ranks = QuantileTransformer(n_quantiles=min(200, len(values) // 2), random_state=0)
    classifier = make_pipeline(ranks, SplineTransformer(n_knots=5), LogisticRegression(C=1.0, max_iter=1000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    found = cross_val_predict(classifier, values, side, groups=groups, cv=folds, method="decision_function")
    single = (roc_auc_score(side, column) for column in values.T)
    return Shift(
        auc=float(roc_auc_score(side, found)),
        error=_standard_error(num_train, num_test),
        by_statistic={name: max(float(auc), 1 - float(auc)) for name, auc in zip(STATISTICS, single, strict=True)},
    )


def _standard_error(num_train, num_test):
    """Standard error of the area under the curve if the two sides do not differ, from the variance of ranks. Groups are
    counted, not photos: those of a group may be all alike."""
    return float(np.sqrt((num_train + num_test + 1) / (12 * num_train * num_test)))
