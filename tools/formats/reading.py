"""Reads the files of formats, JSON and tables; a fault is one line that names the file and what is wrong."""

import csv
import io
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UserError
from pipeline.files import parse_json, read_bytes

Content = TypeVar("Content")


def read_json(path: Path, kind: type[Content], *, what: str) -> Content:
    """A JSON file as a value of a type; if it is not one, the error says `what` it should be."""
    return parse_json(path, read_bytes(path), kind, what=what)


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a table separated by commas, tabs or semicolons, whichever its first line has most of.

    Raises UserError if it is not text, or a row has a different number of cells than the first.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        first = text.partition("\n")[0]
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=max(",\t;", key=first.count), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table in UTF-8: {error}") from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise UserError(f"{path} is no table: it has no rows below a header; give a CSV, or the format that it has")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise UserError(f"{path} row {number} has {len(row)} cells, the header {len(rows[0])}")
    return rows


def number(text: Any, path: Path, where: str) -> float | None:
    """A cell as a number, None if it is empty. Raises UserError, which says `where` it is, for anything else."""
    if str(text).strip().lower() in ("", "nan"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("inf")
    if abs(value) == float("inf"):
        raise UserError(f"{path} {where}: {str(text)[:40]!r} is no number; leave it empty if the point is missing")
    return value


def named_columns(rows: list[list[str]], path: Path, needed: list[str]) -> dict[str, int]:
    """The columns of a table by name. Raises UserError if one of those needed is not there."""
    columns = {name.strip().lower(): index for index, name in enumerate(rows[0])}
    if missing := [name for name in needed if name not in columns]:
        raise UserError(f"{path} line 1 has no column {missing[0]!r}; it needs {', '.join(needed)}")
    return columns
