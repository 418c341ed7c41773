"""Merges finished submissions of the same test: `python -m tools.blend a.csv b.csv … --output merged.csv`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Interval
from tyro.conf import Positional, arg

from pipeline.cli import parse_flags
from pipeline.errors import UserError, run_script
from pipeline.files import check_outputs, digest
from pipeline.inference.merge import blend
from pipeline.inference.record import expected_of_mean, keep_earlier, read_record, write_record
from pipeline.inference.submission import read_in_order, read_submission, verify_submission, write_submission

MIN_VALUES = 300  # below that, integers may be chance


@dataclass(frozen=True)
class Options:
    submissions: Positional[tuple[Path, ...]]
    """The submissions to merge, all of the same test."""
    output: Annotated[Path, arg(metavar="FILE")] = Path("merged.csv")
    """Where to write the merged submission."""
    weights: Annotated[tuple[float, ...], arg(metavar="FLOAT …")] = ()
    """A weight for each submission; by default all count alike."""
    merge: Literal["weighted", "median", "power", "rank"] = "weighted"
    """How to merge the submissions; rank weights them by the order in which they are given, best first."""
    power: Annotated[float, Gt(0)] = 2.0
    """The power of the power mean; 1 is the weighted mean."""
    decimals: Annotated[int, Interval(ge=0, le=6)] = 2
    """Decimals of the values written; 0 gives integers."""


def read_submissions(paths: tuple[Path, ...]) -> tuple[list[str], np.ndarray]:
    """The names and the (S, N, L, 2) points of submissions, in the order of the first one's rows.

    Raises UserError if they are not of the same test.
    """
    if len(paths) < 2:
        raise UserError(f"{len(paths)} submissions; at least two are needed")
    names, first = read_submission(paths[0])
    others = [read_in_order(path, names, first.shape[1], of=paths[0]) for path in paths[1:]]
    return names, np.stack([first, *others])


def truncated(points: np.ndarray) -> np.ndarray:
    """(S,) bool: which of (S, N, L, 2) submissions are integers that were cut off instead of rounded.

    Values that were cut off lie half a pixel to the left of and above those that are not integers; rounded ones do not.
    If all submissions are integers, there is no way to tell.
    """
    whole = integers(points)
    if points[0].size < MIN_VALUES or whole.all():
        return np.zeros(len(points), bool)
    offsets = np.median(points - np.median(points[~whole], axis=0), axis=(1, 2))
    return whole & (offsets < -0.25).all(axis=1)


def integers(points: np.ndarray) -> np.ndarray:
    """(S,) bool: which of (S, N, L, 2) submissions are whole numbers."""
    return (points == np.floor(points)).all(axis=(1, 2, 3))


def expected(options: Options, weights: np.ndarray) -> dict[str, Any] | None:
    """What is expected of a weighted mean, from the records beside the submissions, if each has one of that file."""
    if options.merge not in ("weighted", "rank"):
        return None
    records = [(read_record(path) or {}, digest(path.read_bytes())) for path in options.submissions]
    parts = [record.get("expected") if record.get("content") == content else None for record, content in records]
    known = [part if isinstance(part, dict) else None for part in parts]
    return expected_of_mean(known, weights.tolist(), of="each submission alone: the mean, above which none can be")


def main():
    options = parse_flags(Options, __doc__)
    check_outputs({"--output": options.output}, inputs={str(path): path for path in options.submissions})
    names, points = read_submissions(options.submissions)
    if options.weights and options.merge in ("median", "rank"):
        raise UserError(f"--weights: --merge {options.merge} has no use for them; leave one of the two out")
    weights = np.array(options.weights or [1.0] * len(points))
    if len(weights) != len(points) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise UserError(f"--weights: {len(weights)} given, {len(points)} numbers of at least 0 are needed, one above 0")
    if options.merge == "rank":
        weights = np.arange(len(points), 0, -1.0)
    for path, cut in zip(options.submissions, truncated(points), strict=True):
        if cut:
            print(f"warning: {path} was cut off to integers, which moves each point by half a pixel; write it anew")
    if integers(points).all():
        print("warning: all are whole numbers; whether some were cut off instead of rounded cannot be told")
    merged = blend(points, weights, method=options.merge, power=options.power)
    record = {
        "submissions": [[str(path.resolve()), digest(path.read_bytes())] for path in options.submissions],
        "weights": weights.tolist(),
        "merge": options.merge,
        "power": options.power,
        "decimals": options.decimals,
    }
    kept = keep_earlier(options.output, record)
    write_submission(options.output, names, merged, decimals=options.decimals)
    verify_submission(options.output, names, merged, decimals=options.decimals)
    write_record(options.output, record, expected=expected(options, weights), kept=kept)
    print(f"submission  {options.output}: {len(points)} merged, {len(names):,} photos, read back and verified")


if __name__ == "__main__":
    run_script(main)
