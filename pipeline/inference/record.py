"""What a submission was made of, written beside it, so that another one does not take its place unnoticed.

submission.csv
submission.csv.json     runs, checkpoints, views, weights, decimals …
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from pipeline.files import check_regular, write_text


def keep_earlier(path: Path, record: dict[str, Any]) -> Path | None:
    """Moves a table that was made of something else than `record` out of the way, and gives its new path.

    A table that was made of the same is left, to be replaced.
    """
    if not path.exists() or path.stat().st_size == 0 or _read_record(path) == json.loads(json.dumps(record)):
        return None
    made = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
    names = [f"{path.stem}_{made}{again}{path.suffix}" for again in ("", *(f"-{number}" for number in range(2, 100)))]
    kept = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    if os.path.lexists(_record_path(path)):
        _record_path(path).rename(_record_path(kept))
    return path.rename(kept)


def write_record(path: Path, record: dict[str, Any]):
    """Notes what the table at `path` was made of."""
    write_text(_record_path(path), json.dumps(record, indent=1))


def _record_path(path):
    return path.with_name(f"{path.name}.json")


def _read_record(path):
    """The record, None where there is none that can be read: then the table is taken to be another."""
    try:
        check_regular(_record_path(path))
        return json.loads(_record_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
