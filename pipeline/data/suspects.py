"""Labels that may be wrong, ranked: what each check measures becomes a score, and a photo has the highest of its own.

A score is how many robust standard deviations the logarithm of a measure lies above its median over all photos, so that
checks in different units can be ranked together, and a contest of hard photos has no more suspects than one of easy
ones. A hard photo can score like a wrong label, so nothing is left out automatically.
"""

from dataclasses import dataclass, field

import numpy as np

from pipeline.data.sample_weights import NAME, WEIGHT
from pipeline.files import csv_text

EXPLAINED = 0.25  # of the squared error, which a reason leaves at most
FEW = 0.1  # of the points
LEAST = 3.5  # the score from which on a photo is a suspect
TO_DEVIATION = 1.4826  # median absolute deviations of a normal distribution in a standard deviation
MIN_SPREAD = 0.1  # of a logarithm: if nearly all photos are alike, a little more is not suspect
MIN_PHOTOS = 20  # to take a median of
HARMLESS = 0.02  # of the size of a shape: labels of duplicates that are this close agree
SPREAD = 0.3  # of the logarithm of how far labels of the same pixels differ


@dataclass(frozen=True)
class Suspect:
    """sample: its place in the pack. reasons: what speaks against its label, strongest first. error: root mean square
    against the prediction, in pixels of the photo, NaN without one. duplicates: names of photos like it."""

    sample: int
    score: float
    reasons: list[str]
    error: float = float("nan")
    duplicates: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str:
        return "; ".join(self.reasons)


def robust_scores(measured: np.ndarray) -> np.ndarray:
    """(N,) robust standard deviations above the median, of logarithms if all are positive; NaN stays NaN, and all are
    NaN if too few are known to have a median."""
    known = np.isfinite(measured)
    if known.sum() < MIN_PHOTOS:
        return np.full(len(measured), np.nan)
    positive = (measured[known] > 0).all()  # losses that are likelihoods may not be
    values = np.log(measured) if positive else measured
    middle = np.median(values[known])
    spread = TO_DEVIATION * np.median(np.abs(values[known] - middle))
    return (values - middle) / max(spread, MIN_SPREAD if positive else 1e-12)


def duplicate_scores(exact: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(N,) scores of how far a label lies from those of its exact and of its near duplicates, (N,) each in sizes of the
    shape. Labels of near ones may differ, as they do in films; those of the same pixels should not."""
    own = np.log(exact.clip(min=HARMLESS) / HARMLESS) / SPREAD
    return np.fmax(own, robust_scores(near.clip(min=HARMLESS)))


def rank(scores: np.ndarray, *, listed: np.ndarray, count: int) -> np.ndarray:
    """The photos whose (C, N) scores of C checks reach LEAST in any, those that are to be `listed` anyway, and as many
    more as make up `count`, highest score first; none about which nothing is known."""
    highest = np.where(np.isnan(scores), -np.inf, scores).max(axis=0)
    order = np.argsort(-highest, kind="stable")
    order = order[np.isfinite(highest[order]) | np.isin(order, listed)]
    taken = (highest[order] >= LEAST) | np.isin(order, listed)
    taken[:count] = True
    return order[taken]


def reason_of(points: np.ndarray, truth: np.ndarray, flip_indices: np.ndarray | None) -> str:
    """In a few words, the repair that leaves at most a quarter of the squared error of (K, 2) points; empty if there is
    none."""
    squares = np.nansum((points - truth) ** 2, axis=1)
    known = np.isfinite(truth).all(axis=1)
    most = EXPLAINED * squares.sum()
    if known.sum() < 2 or not most:
        return ""
    if flip_indices is not None and np.nansum((points[flip_indices] - truth) ** 2) <= most:
        return "left and right are exchanged"
    worst = np.sort(squares)[::-1]
    few = max(1, int(FEW * known.sum()))
    if worst[few:].sum() <= most:
        far = np.argsort(-squares, kind="stable")[:few]
        return f"few points are far off: {', '.join(map(str, sorted(far.tolist())))}"
    found, true = points[known], truth[known]
    right, down = (round(value) for value in (true - found).mean(axis=0))
    around, wanted = found - found.mean(axis=0), true - true.mean(axis=0)
    if ((around - wanted) ** 2).sum() <= most:
        return f"all points are shifted by ({right}, {down})"
    scale = (around * wanted).sum() / max((around**2).sum(), 1e-9)
    if ((scale * around - wanted) ** 2).sum() <= most:
        return f"all points are scaled by {scale:.2f} and shifted by ({right}, {down})"
    return ""


def errors_in_sizes(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) root mean squared distances of (N, K, 2) predicted and labelled points, in sizes of the predicted shape; NaN
    if either is not known."""
    known = np.isfinite(points + truth).all(axis=2)
    count = np.maximum(known.sum(axis=1), 1)
    squares = np.where(known[..., None], points - truth, 0) ** 2
    shapes = np.where(known[..., None], points, 0)
    centred = np.where(known[..., None], shapes - (shapes.sum(axis=1) / count[:, None])[:, None], 0)
    sizes = (centred**2).sum(axis=(1, 2)).clip(min=1e-9)
    return np.where(known.sum(axis=1) > 1, np.sqrt(squares.sum(axis=(1, 2)) / sizes), np.nan)


def suspects_table(suspects: list[Suspect], names: np.ndarray) -> str:
    """A row for each suspect, worst first, as `--sample-weights` takes it once some weights are edited."""
    rows = [[NAME, WEIGHT, "score", "reason", "rms_error_px", "duplicate_of"]]
    for each in suspects:
        score, error = (f"{value:.2f}" if np.isfinite(value) else "" for value in (each.score, each.error))
        rows.append([names[each.sample], "1", score, each.reason, error, " ".join(each.duplicates)])
    return csv_text(rows)
