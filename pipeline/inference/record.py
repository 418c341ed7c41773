"""What a submission was made of, written beside it, so that another one does not replace it unnoticed, and what it is
worth: here, and on the leaderboard. All records together are a ledger: `python -m tools.ledger`.

submission.csv
submission.csv.json     runs, checkpoints, views, weights, decimals …, and NOTES
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import check_regular, digest, free_name, write_text

NOTES = ("expected", "content", "leaderboard")  # about the table, not what it was made of
SUFFIX = ".csv.json"


def keep_earlier(path: Path, record: dict[str, Any]) -> Path | None:
    """Moves a table that was made of something other than `record`, or has a score of the leaderboard, out of the way,
    and returns its new path.

    Any other is left, to be replaced.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    earlier = read_record(path)
    if earlier and "leaderboard" not in earlier and _without_notes(earlier) == json.loads(json.dumps(record)):
        return None
    kept = free_name(path)
    if os.path.lexists(record_path(path)):
        record_path(path).rename(record_path(kept))
    return path.rename(kept)


def write_record(path: Path, record: dict[str, Any], *, expected: dict[str, Any] | None, kept: Path | None = None):
    """Notes what the table at `path` was made of, and what is expected of it.

    kept: where `keep_earlier` has moved the one before. If it is the same to the byte, it is removed, and its score of
    the leaderboard is that of the new one; otherwise it is said where it is.
    """
    notes: dict[str, Any] = {"expected": expected, "content": digest(path.read_bytes())}
    earlier = read_record(kept or path) or {}
    is_same = earlier.get("content") == notes["content"]
    if is_same and "leaderboard" in earlier:
        notes["leaderboard"] = earlier["leaderboard"]
    write_text(record_path(path), json.dumps(record | notes, indent=1))
    if not kept:
        return
    is_copy = is_same and digest(kept.read_bytes()) == notes["content"]
    if is_copy and _without_notes(earlier) == json.loads(json.dumps(record)):
        kept.unlink()
        record_path(kept).unlink()
    else:
        print(f"earlier     the submission that was there has other values or was made otherwise; it is now {kept}")


def expected_of_mean(
    expected: Sequence[Mapping[str, Any] | None], weights: Sequence[float], *, of: str
) -> dict[str, Any] | None:
    """What is expected of a weighted mean of tables, from what is known about each; None if one is not known.

    It is the mean of what is expected of them, which is an upper bound and has no interval: a square is convex, so that
    no mean errs more than its parts do on average (Jensen). of: in words, what it is of.
    """
    values = [part.get("mse") if part else None for part in expected]
    if not all(isinstance(value, int | float) for value in values):
        return None
    mse = float(np.average(np.array(values, float), weights=weights))
    return {"mse": round(mse, 4), "low": None, "high": None, "is_bound": True, "of": of}


def note_leaderboard(path: Path, score: float):
    """Notes the leaderboard's score of the table at `path`. What was known of another table in its place, such as the
    one before it was edited, is forgotten."""
    content, record = digest(path.read_bytes()), read_record(path) or {}
    if record.get("content") not in (None, content):
        record = {}
    write_text(record_path(path), json.dumps(record | {"content": content, "leaderboard": score}, indent=1))


def record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def read_record(path: Path) -> dict[str, Any] | None:
    """The record, None if there is none that can be read: then the table is taken to be another."""
    try:
        check_regular(record_path(path))
        record = json.loads(record_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _without_notes(record):
    return record and {name: value for name, value in record.items() if name not in NOTES}
