"""Fitted weights of what is merged, the views of a run or several runs: they are fitted and judged on held-out photos,
saved, and loaded again as long as they belong to the same.

A part is a view, or a run. Shapes: V parts, N photos, K points.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.errors import UserError
from pipeline.files import may_write, sealed, unsealed, write_text
from pipeline.inference.uncertainty import Calibration, calibrate
from pipeline.inference.weights import CHOSEN, fit_weights
from pipeline.metrics import Scores, score

DECIMALS = 5  # of weights, as they are saved and used


@dataclass(frozen=True)
class Parts:
    """What each part finds in held-out photos.

    points: (V, N, K, 2) in pixels of the photos. counts: (V, N, K) bool, where a part predicts a point. seconds: (V,)
    that a part takes per photo. truth: (N, K, 2), NaN where a point is missing. groups: (N,) numbers.
    """

    names: list[str]
    points: np.ndarray
    counts: np.ndarray
    seconds: np.ndarray
    truth: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class FittedWeights:
    """weights: (V,) or (V, K), 0 for a part that is left out. kind: where they come from. calibration: of the
    deviations that go with them. expected: the score of what they merge, out of fold."""

    weights: np.ndarray
    kind: str
    calibration: Calibration
    expected: Scores | None = None


@dataclass(frozen=True)
class SavedWeights:
    """What is read from every file of weights; each kind of file adds what its weights belong to."""

    weights: list[float] | list[list[float]]
    kind: str
    calibration: Calibration
    scores: list[dict[str, Any]] = field(default_factory=list, kw_only=True)


Saved = TypeVar("Saved", bound=SavedWeights)


def fit_and_judge(
    parts: Parts, *, prune: bool, spread_of: Callable[[np.ndarray], np.ndarray]
) -> tuple[FittedWeights, list[dict[str, Any]]]:
    """The weights, and a row of scores for each part and for each kind of weights, judged out of fold.

    prune: leave out parts that are not worth their time. spread_of: from weights to (N, K) standard deviations of
    whatever is merged, which are calibrated.
    """
    errors = parts.points - parts.truth
    fit = fit_weights(errors, parts.counts, parts.groups, prune=prune)
    weights = fit.weights.round(DECIMALS)  # so that the next prediction is the same
    calibration = calibrate(fit.out_of_fold[CHOSEN], spread_of(weights), parts.groups)
    used = np.array([part.any() for part in weights]) if prune else np.ones(len(weights), bool)

    def row(name, errors, seconds):
        scores = score(errors + parts.truth, parts.truth, parts.groups)
        return {"part": name, **{key: round(value, 4) for key, value in vars(scores).items()}, "seconds": seconds}

    rows = [row(*part) for part in zip(parts.names, errors, parts.seconds.tolist(), strict=True)]
    for kind, found in fit.out_of_fold.items():
        rows.append(row(kind, found, float(parts.seconds[used if kind == CHOSEN else ...].sum())))
    return FittedWeights(weights, fit.kind, calibration, expected_of(rows)), rows


def expected_of(rows: list[dict[str, Any]]) -> Scores | None:
    """The scores of the chosen weights among the rows of `fit_and_judge`, None if they have none."""
    names = [field.name for field in fields(Scores)]
    chosen = [row for row in rows if row.get("part") == CHOSEN and all(type(row.get(name)) is float for name in names)]
    return Scores(**{name: chosen[0][name] for name in names}) if chosen else None


def save_weights(path: Path, fitted: FittedWeights, *, of: dict[str, Any], about: dict[str, Any]):
    """Keeps the weights for next time, if the folder is writable. of: what they belong to, by which `load_weights`
    knows them. about: what else a reader of the file wants to know.
    """
    if not may_write(path.parent):
        print(f"weights     are not kept for next time: {path.parent} may not be written")
        return
    own = {"weights": fitted.weights.tolist(), "kind": fitted.kind, "calibration": vars(fitted.calibration)}
    write_text(path, sealed(of | own | about))


def load_weights(
    path: Path, kind: type[Saved], *, of: dict[str, Any], num_parts: int, num_points: int
) -> FittedWeights | None:
    """The weights that were saved, None if there are none or they belong to something else.

    Raises UserError if the file is damaged.
    """
    if not path.exists():
        return None
    saved = unsealed(path, kind)
    if any(getattr(saved, name) != value for name, value in of.items()):
        return None
    checked = _checked(path, saved.weights, num_parts, num_points)
    return FittedWeights(checked, saved.kind, saved.calibration, expected_of(saved.scores))


def _checked(path, weights, num_parts, num_points):
    """(V,) or (V, K) convex weights from a file."""
    found = np.array(weights, float)
    if found.shape not in ((num_parts,), (num_parts, num_points)) or not (
        (found >= 0).all() and np.allclose(found.sum(axis=0), 1, atol=1e-3)
    ):
        raise UserError(f"{path} is damaged: its weights are not shares of {num_parts} parts; delete it")
    return found


def print_scores(title: str, rows: list[dict[str, Any]]):
    """Prints a table of what parts score, and by how much each differs from the first."""
    wide = max(len(title), *(len(row["part"]) for row in rows))
    print(f"\n{title:{wide}}      MSE   change            95 %    NME %   ms/photo")
    for row in rows:
        change = row["mse"] / rows[0]["mse"] - 1
        interval = f"{row['low']:.2f} … {row['high']:.2f}"
        print(
            f"{row['part']:{wide}} {row['mse']:8.3f} {change:8.1%} {interval:>15} {row['nme']:8.3f} "
            f"{1000 * row['seconds']:10.2f}"
        )
