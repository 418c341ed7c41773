"""The submission: one row for each row of `test_points.csv`, in its order, with the points that it asks for.

    file_name,Point_M0_X,Point_M0_Y,Point_M1_X,…

M0, M1 … are indices in the photo's list of asked points. Values are rounded, never cut off: cutting to integers is
a bias of half a pixel, which cost 0.74 px² of an MSE of 12.5; see docs/experiments.md.
"""

import csv
import math
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.blocks import ROWS, blocks
from pipeline.errors import UserError
from pipeline.files import check_regular, replacing
from pipeline.metrics import check_finite


def write_submission(path: Path, names: list[str], points: np.ndarray, *, decimals: int):
    """Writes (N, L, 2) points in pixels of the photos, rounded to `decimals`.

    Raises UserError, and leaves what was there as it was, if one of them is not a number.
    """
    columns = [f"Point_M{index}_{axis}" for index in range(points.shape[1]) for axis in "XY"]
    with replacing(path) as file:
        for block in blocks(len(names)):
            check_finite(points[block], names[block])
            rounded = np.round(np.asarray(points[block], np.float64), decimals) + 0.0  # + 0.0 makes -0.0 plain
            index = pd.Index(names[block], name="file_name")
            table = pd.DataFrame(rounded.reshape(len(index), -1), index=index, columns=columns)
            table.to_csv(file, header=block.start == 0, float_format=f"%.{decimals}f")


def write_uncertainty(path: Path, names: list[str], deviations: np.ndarray, *, calibrated: bool):
    """Writes (N, L) deviations, in pixels of the photos, with the rows and columns of the submission.

    The header says what they are: Point_M0_SD, standard deviations of the error, or if they are not calibrated
    Point_M0_SPREAD, those of views and runs around their mean, which say nothing about the error that all share.
    """
    table = pd.DataFrame(deviations, index=pd.Index(names, name="file_name"))
    table.columns = [f"Point_M{index}_{'SD' if calibrated else 'SPREAD'}" for index in range(deviations.shape[1])]
    with replacing(path) as file:
        table.to_csv(file, float_format="%.3f")


def read_submission(path: Path, *, gaps: bool = False) -> tuple[list[str], np.ndarray]:
    """The names and the (N, L, 2) points of a submission, or of labels with `gaps`: NaN where a cell is empty or "nan".

    Raises UserError if the file is not a submission.
    """
    blocks_of_names, points = zip(*_read_in_blocks(path, gaps=gaps), strict=True)
    names = list(chain.from_iterable(blocks_of_names))
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{path} is not a submission: it has more than one row of {twice}")
    return names, np.concatenate(points)


def _read_in_blocks(path, *, gaps=False):
    """The names and the points of a block of rows at a time.

    Cells are counted row by row, since a row that was cut would otherwise have missing points.
    """
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            columns = len(header)
            if header and header[0] not in ("", "file_name") and any(map(_is_numeric, header[1:])):
                raise UserError(
                    f"{path} has no header, so its first photo would be lost; add a line such as file_name,Point_M0_X,…"
                )
            if columns < 3 or columns % 2 == 0:
                count = f"{max(columns - 1, 0)} columns of numbers"
                raise UserError(f"{path} is not a submission: {count}; x and y of each point are expected")
            parsed = (_parse_row(path, rows.line_num, row, columns, gaps=gaps) for row in rows if row)
            some = False
            while block := list(islice(parsed, ROWS)):
                some = True
                names, values = zip(*block, strict=True)
                yield list(names), np.stack(values).reshape(len(names), -1, 2)
            if not some:
                raise UserError(f"{path} is not a submission: it has a header and no rows")
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a submission: {str(error).splitlines()[0]}") from error


def _is_numeric(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _parse_row(path, number, row, columns, *, gaps):
    """The name and the numbers of a row that ends in the line of this number."""
    name, *cells = row
    where = f"{path} is not a submission: line {number}"
    if len(row) != columns:
        raise UserError(f"{where}: {len(row)} cells where the header has {columns}")
    try:
        values = np.array([float(cell.strip() or "nan") for cell in cells] if gaps else list(map(float, cells)))
    except ValueError as error:
        raise UserError(f"{where}: {name} has a value that is no number: {error}") from error
    if not (np.isfinite(values) | (gaps & np.isnan(values))).all() or "_" in "".join(cells):
        raise UserError(f"{where}: {name} has a value that is no number")
    return name, values


def read_in_order(path: Path, names: list[str], num_points: int, *, of: Path) -> np.ndarray:
    """The (N, L, 2) points of a submission in the order of `names`, which are those of the submission `of`.

    Raises UserError if the two are not of the same photos and number of points.
    """
    found_names, points = read_submission(path)
    if len(found_names) != len(names) or points.shape[1] != num_points:
        raise UserError(
            f"{path} has {points.shape[1]} points on each of {len(points):,} photos, {of} has {num_points} on "
            f"{len(names):,}; both must be of the same photos"
        )
    row_of = {name: row for row, name in enumerate(found_names)}
    if missing := [name for name in names if name not in row_of]:
        raise UserError(f"{path} has no row of {missing[0]!r}, which {of} has; both must be of the same photos")
    return points[[row_of[name] for name in names]]


def verify_submission(path: Path, names: list[str], points: np.ndarray, *, decimals: int):
    """Reads the file back and checks the names of `test_points.csv` in order, and the predicted points to rounding."""
    done = 0
    for found_names, found in _read_in_blocks(path):
        rows = slice(done, done + len(found))
        assert found_names == names[rows], f"{path}: the rows are not those of test_points.csv"
        assert found.shape == points[rows].shape, f"{path}: {found.shape[1]} points were read back, not those predicted"
        assert np.abs(found - points[rows]).max() <= 0.5001 * 10.0**-decimals, f"{path}: other values than predicted"
        done += len(found)
    assert done == len(names), f"{path}: {done:,} rows were read back, {len(names):,} were predicted"
