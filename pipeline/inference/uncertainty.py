"""How far a prediction may be off: from the spread of views and runs, and the scale that a network has learned,
calibrated on held-out photos.

The model is a normal error with variance floor + factor * spread^2 for each coordinate; both numbers maximise the
likelihood on photos whose truth is known.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

NUM_BINS = 5
MAX_FITTED = 200_000  # coordinates: enough for two numbers


@dataclass(frozen=True)
class Calibration:
    """floor, in squared pixels of the photo, and factor. table: how well it holds, on photos it was not fitted on.

    A row of the table is a fifth of the points, by expected error: expected and found root mean square error, and
    the shares of coordinates within one and within two standard deviations (68 % and 95 % of a normal error).
    """

    floor: float
    factor: float
    table: list[dict[str, float]]

    def deviation(self, variance: np.ndarray) -> np.ndarray:
        """Standard deviation of the error of each coordinate, from the variance over views and runs."""
        return np.sqrt(self.floor + self.factor * variance)


def calibrate(errors: np.ndarray, spreads: np.ndarray, groups: np.ndarray) -> Calibration:
    """Calibrates on (N, K, 2) errors and (N, K) standard deviations over views. Missing points (NaN) do not count."""
    order = np.unique(groups, return_inverse=True)[1]
    floor, factor = _fit(errors, spreads)
    expected = np.sqrt(floor + factor * spreads**2)
    for half in (0, 1):
        known = order % 2 != half
        if np.isfinite(errors[known]).any():  # each half is judged by a fit to the other, if that has any truth
            of_half = _fit(errors[known], spreads[known])
            expected[~known] = np.sqrt(of_half[0] + of_half[1] * spreads[~known] ** 2)
    return Calibration(floor, factor, _table(errors, expected))


def mean_calibration(calibrations: list[Calibration | None]) -> Calibration | None:
    """The mean of the runs' own, for runs that held out no photo in common, such as folds; None if one has none."""
    known = [calibration for calibration in calibrations if calibration]
    if len(known) < len(calibrations):
        return None
    if len(known) == 1:
        return known[0]
    return Calibration(
        float(np.mean([calibration.floor for calibration in known])),
        float(np.mean([calibration.factor for calibration in known])),
        [],
    )


def calibration_of_merge(runs: Calibration, within: float, between: float) -> Calibration:
    """The calibration of what runs merge to, from theirs: they held out no photo in common to measure it on.

    within: mean variance over the views of a run. between: mean variance of the runs around their merge. The error of a
    mean of runs is the mean of their errors minus their variance (Krogh and Vedelsby, 1995); both numbers are scaled so
    that this is what is expected overall, while the points on which runs differ stay the doubtful ones.
    """
    single = runs.floor + runs.factor * within
    scale = max(single - between, 0.1 * single) / (single + runs.factor * between)
    return Calibration(scale * runs.floor, scale * runs.factor, [])


def print_calibration(calibration: Calibration):
    """Prints how well deviations predict errors: a table of held-out points, a fifth per row, the surest first."""
    if calibration.table:
        print("\npixels: expected  found   within one (68 %)   within two (95 %)")
        for row in calibration.table:
            within = f"{row['within one']:15.1%} {row['within two']:19.1%}"
            print(f"{row['expected']:16.2f} {row['found']:6.2f} {within}")
        print()
    else:
        print("            from the runs' own calibrations: they held out no photo in common to judge their merge by")


def _fit(errors, spreads):
    squares = errors**2
    there = np.isfinite(squares)
    variances = np.broadcast_to(spreads[..., None] ** 2, errors.shape)[there].astype(np.float64)
    squares = squares[there]
    if len(squares) > MAX_FITTED:
        chosen = np.random.default_rng(0).choice(len(squares), MAX_FITTED, replace=False)
        squares, variances = squares[chosen], variances[chosen]

    def minus_likelihood(logs):
        floor, factor = np.exp(logs)
        expected = floor + factor * variances
        return float((np.log(expected) + squares / expected).mean())

    typical = max(float(squares.mean()), 1e-9)
    if variances.max() <= 0:  # one view alone: its spread says nothing
        return typical, 1.0
    start = np.log([typical / 2, typical / 2 / max(float(variances.mean()), 1e-9)])
    found = minimize(minus_likelihood, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-6})
    floor, factor = np.exp(found.x)
    return float(floor), float(factor)


def _table(errors, expected):
    there = np.isfinite(errors).all(axis=2)
    sizes, squares = expected[there], (errors[there] ** 2)
    rows = []
    for part in filter(len, np.array_split(np.argsort(sizes, kind="stable"), NUM_BINS)):
        ratio = np.sqrt(squares[part]) / sizes[part, None]
        rows.append(
            {
                "expected": round(float(np.sqrt((sizes[part] ** 2).mean())), 4),
                "found": round(float(np.sqrt(squares[part].mean())), 4),
                "within one": round(float((ratio < 1).mean()), 4),
                "within two": round(float((ratio < 2).mean()), 4),
            }
        )
    return rows
