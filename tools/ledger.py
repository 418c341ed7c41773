"""The ledger of submissions: `python -m tools.ledger` shows all that lie below --runs and in this folder, the expected
score of each and the leaderboard's, and how well the one predicts the other.

`python -m tools.ledger score FILE 8.41` notes a submission's score on the leaderboard.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Interval
from scipy.stats import spearmanr
from tyro.conf import Positional

from pipeline.cli import parse_flags
from pipeline.errors import UserError, run_script
from pipeline.files import digest
from pipeline.inference.record import SUFFIX, note_leaderboard, read_record
from pipeline.inference.submission import read_submission

WIDE = (16, 4, 5, 8, 9, 17, 11, 8)  # characters of the columns
MOST = 1e300  # larger values do not count as numbers
BOUNDS = ("each run alone", "each submission alone")  # what records of earlier versions call a bound, with an interval
ENOUGH = 3  # submissions, from which on their order tells something


@dataclass(frozen=True)
class Options:
    submissions: Positional[tuple[Path, ...]] = ()
    """Submissions elsewhere, to show as well."""
    runs: Path = Path("runs")
    """Where run folders are."""


@dataclass(frozen=True)
class ScoreOptions:
    command: Positional[Literal["score"]]
    submission: Positional[Path]
    """The file that was submitted."""
    value: Positional[Annotated[float, Interval(ge=0, lt=float("inf"))]]
    """Its score on the leaderboard."""


@dataclass(frozen=True)
class Entry:
    """A submission. expected, low and high: its MSE on held-out photos, None where that is not known. is_bound: whether
    the expected MSE is an upper bound, as that of folds and blends is. leaderboard: what was noted for this very file.
    is_same: False if the file was changed after it was written or noted."""

    path: Path
    made: float
    runs: int
    views: int
    decimals: int | None
    expected: float | None
    low: float | None
    high: float | None
    is_bound: bool
    leaderboard: float | None
    is_same: bool


def find_entries(paths: Iterable[Path]) -> list[Entry]:
    """The entries of submissions that have a record, oldest first."""
    entries = [entry_of(path) for path in {path.resolve(): path for path in paths}.values()]
    return sorted((entry for entry in entries if entry), key=lambda entry: (entry.made, str(entry.path)))


def entry_of(path: Path) -> Entry | None:
    record = read_record(path)
    if record is None or not path.is_file():
        return None
    expected = _mapping(record.get("expected"))
    runs = [_mapping(run) for run in _list(record.get("runs"))]
    views = sum(len(_list(run.get("views"))) for run in runs)
    decimals = record.get("decimals")
    return Entry(
        path=path,
        made=path.stat().st_mtime,
        runs=len(runs or _list(record.get("submissions"))),
        views=views,
        decimals=decimals if isinstance(decimals, int) else None,
        expected=_number(expected.get("mse")),
        low=_number(expected.get("low")),
        high=_number(expected.get("high")),
        is_bound=expected.get("is_bound") is True or str(expected.get("of")).startswith(BOUNDS),
        leaderboard=_number(record.get("leaderboard")),
        is_same=record.get("content") in (None, digest(path.read_bytes())),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    """A value as a finite number, None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < MOST else None


def agreement(entries: list[Entry]) -> str:
    """How well the expected scores, those that are no bounds, predict those of the leaderboard, in a sentence."""
    both = [entry for entry in entries if entry.expected is not None and entry.leaderboard is not None]
    known = [entry for entry in both if not entry.is_bound]
    if both and not known:
        return "what is expected of folds and blends is an upper bound; no other submission has both scores"
    if not known:
        return "no submission has both; python -m tools.ledger score FILE VALUE notes what the leaderboard said"
    expected, said = (np.array([getattr(entry, name) for entry in known]) for name in ("expected", "leaderboard"))
    difference = said - expected
    spread = f" ± {difference.std(ddof=1):.3f}" if len(known) > 1 else ""
    within = [e for e in known if e.low is not None and e.high is not None and e.low <= (e.leaderboard or 0) <= e.high]
    parts = [f"the leaderboard is {difference.mean():+.3f}{spread} px² from what was expected"]
    if judged := sum(entry.low is not None and entry.high is not None for entry in known):
        parts.append(f"within the interval {len(within)} of {judged} times")
    if len(known) >= ENOUGH and np.ptp(expected) > 0 and np.ptp(said) > 0:
        parts.append(f"rank correlation {spearmanr(expected, said).statistic:.2f}")
    return f"{len(known)} of both: {', '.join(parts)}"


def print_ledger(entries: list[Entry]):
    titles = ("made", "runs", "views", "decimals", "expected", "95 %", "leaderboard", "differs")
    print("  ".join(f"{title:>{wide}}" for title, wide in zip(titles, WIDE, strict=True)) + "  file")
    for entry in entries:
        both = entry.expected is not None and entry.leaderboard is not None
        cells = (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made)),
            entry.runs or "",
            entry.views or "",
            "" if entry.decimals is None else entry.decimals,
            ("≤ " if entry.is_bound else "") + _shown(entry.expected),
            f"{entry.low:.2f} … {entry.high:.2f}" if entry.low is not None and entry.high is not None else "",
            _shown(entry.leaderboard),
            f"{entry.leaderboard - entry.expected:+.3f}" if both else "",  # type: ignore[operator]
        )
        changed = "" if entry.is_same else " (was changed since)"
        print("  ".join(f"{cell:>{wide}}" for cell, wide in zip(cells, WIDE, strict=True)) + f"  {entry.path}{changed}")
    print(f"\n{agreement(entries)}")


def _shown(value):
    return "" if value is None else f"{value:.3f}"


def main():
    if sys.argv[1:2] == ["score"]:
        noted = parse_flags(ScoreOptions, __doc__)
        read_submission(noted.submission)  # refuses what is none
        note_leaderboard(noted.submission, noted.value)
        print(f"noted       {noted.submission}: {noted.value:g}")
        return
    options = parse_flags(Options, __doc__)
    for path in options.submissions:
        if not path.is_file():
            raise UserError(f"{path} is not there; give a submission")
        if read_record(path) is None:
            print(f"left out    {path} has no record; python -m tools.ledger score {path} VALUE makes one")
    below = [*options.runs.rglob(f"*{SUFFIX}"), *Path().glob(f"*{SUFFIX}")]
    entries = find_entries([*(path.with_suffix("") for path in below), *options.submissions])
    if not entries:
        raise UserError(
            f"no submission with a record lies below {options.runs}/; predict.py writes them, or give --runs"
        )
    print_ledger(entries)


if __name__ == "__main__":
    run_script(main)
