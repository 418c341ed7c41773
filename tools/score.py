"""Scores a submission against labels in the same form: `python -m tools.score submission.csv truth.csv`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from pipeline.cli import parse_flags
from pipeline.errors import UserError, run_script
from pipeline.inference.submission import read_in_order, read_submission
from pipeline.metrics import mse_of_photos, score, tail


@dataclass(frozen=True)
class Options:
    submission: Positional[Path]
    """The submission to score."""
    truth: Positional[Path]
    """The labels, in the form of a submission; rows may be in any order, and an empty cell is a missing point."""


def read_both(submission: Path, truth: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, K, 2) predicted and true points, the truth with NaN for missing points.

    Raises UserError if the two are not of the same photos and number of points.
    """
    names, true_points = read_submission(truth, gaps=True)
    if np.isnan(true_points).all():
        raise UserError(f"{truth} has no points: all its cells are empty")
    return read_in_order(submission, names, true_points.shape[1], of=truth), true_points


def main():
    options = parse_flags(Options, __doc__)
    predicted, truth = read_both(options.submission, options.truth)
    print(score(predicted, truth))
    labelled = ~np.isnan(truth).all(axis=(1, 2))
    errors = mse_of_photos(predicted, truth)[labelled]
    if of_worst := tail(errors):
        print(f"{of_worst}; the photo in the middle has {np.median(errors):.3f} px²")


if __name__ == "__main__":
    run_script(main)
