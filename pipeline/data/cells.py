"""One row of numbers as text, with what is wrong and where; `rows.py` reads plain rows faster."""

import numpy as np

from pipeline.data.rows import FARTHEST

MAX_SHOWN = 60  # characters of what is wrong
DIGITS_AND_TABS = b"0123456789\t"


def parse_row(cells, num_cells, path, number, faults):
    """The numbers of a row, or None and a fault."""
    if (found := cells.count(b"\t") + 1) != num_cells:
        faults.add(f"{path} line {number}: {found} numbers where the header has {num_cells}", where=f"line {number}")
        return None
    row = _parse_at_once(cells, num_cells)
    if row is not None:
        return row
    try:
        return _parse_one_by_one(cells)
    except ValueError as error:
        faults.add(f"{path} line {number}, {error}", where=f"line {number}")
        return None


def _parse_at_once(cells, num_cells):
    """What `_parse_one_by_one` gives, faster; None if that has to look.

    numpy's parser takes any white space for the end of a cell, so it is used only for digits, tabs and leading signs.
    """
    whole = not (b"\t" + cells).replace(b"\t-", b"\t").translate(None, DIGITS_AND_TABS)
    if b"_" in cells:  # Python accepts 1_000 as a number
        return None
    try:
        if whole:
            row = np.fromstring(cells, dtype=np.int64, sep="\t")
        else:
            row = np.array([float(cell) if cell else np.nan for cell in cells.split(b"\t")])
    except ValueError:
        return None
    return row if len(row) == num_cells and not ((row < -FARTHEST) | (row > FARTHEST)).any() else None


def _parse_one_by_one(cells):
    """The numbers of a row. Raises ValueError with the column and what is wrong there."""
    return [_parse_cell(cell, column) for column, cell in enumerate(cells.split(b"\t"), start=2)]


def _parse_cell(cell, column):
    text = cell.strip().decode("utf-8", "replace")
    if text == "":
        return np.nan
    try:
        number = float(text)
    except ValueError:
        number = np.inf
    shown = text[:MAX_SHOWN]
    if np.isinf(number) or "_" in text:
        raise ValueError(f"column {column}: {shown!r} is not a number; leave the cell empty if the point is missing")
    if abs(number) > FARTHEST:
        raise ValueError(f"column {column}: {shown} is no position in a photo; empty the cell if the point is missing")
    return number
