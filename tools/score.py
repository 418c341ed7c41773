"""Scores a submission against labels in the same form: `python -m tools.score submission.csv truth.csv`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from pipeline.cli import parse_flags
from pipeline.errors import UserError, run_script
from pipeline.inference.submission import read_in_order, read_submission
from pipeline.metrics import Scores, score


@dataclass(frozen=True)
class Options:
    submission: Positional[Path]
    """The submission to score."""
    truth: Positional[Path]
    """The labels, in the form of a submission; rows may be in any order, an empty cell is a missing point."""


def score_submission(submission: Path, truth: Path) -> Scores:
    """MSE per coordinate and NME. Raises UserError when the two are not of the same photos and number of points."""
    names, true_points = read_submission(truth, gaps=True)
    if np.isnan(true_points).all():
        raise UserError(f"{truth} has no points: all its cells are empty")
    return score(read_in_order(submission, names, true_points.shape[1], of=truth), true_points)


def main():
    options = parse_flags(Options, __doc__)
    print(score_submission(options.submission, options.truth))


if __name__ == "__main__":
    run_script(main)
