"""Scores a submission against labels in the same form: `python -m pipeline.score submission.csv truth.csv`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pipeline.errors import UserError, run_script
from pipeline.flags import parse_flags
from pipeline.metrics import Scores, score
from pipeline.submission import read_submission


@dataclass(frozen=True)
class Options:
    submission: Positional[Path]
    """The submission."""
    truth: Positional[Path]
    """The labels, in the form of a submission; rows may be in any order."""


def score_submission(submission: Path, truth: Path) -> Scores:
    """MSE per coordinate and NME. Raises UserError when the two are not of the same photos and number of points."""
    names, points = read_submission(submission)
    true_names, true_points = read_submission(truth)
    if sorted(names) != sorted(true_names) or points.shape != true_points.shape:
        raise UserError(
            f"{submission} has {points.shape[1]} points on each of {len(names):,} photos, {truth} has "
            f"{true_points.shape[1]} on {len(true_names):,}; both must be of the same photos"
        )
    row_of = {name: row for row, name in enumerate(names)}
    return score(points[[row_of[name] for name in true_names]], true_points)


def main():
    options = parse_flags(Options, __doc__)
    print(score_submission(options.submission, options.truth))


if __name__ == "__main__":
    run_script(main)
