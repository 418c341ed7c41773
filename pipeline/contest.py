"""The contest's files, as they lie in the data folder, with all their quirks and every fault they can have.

    train/landmarks.csv    tab-separated: file_name, then x and y of each point, in pixels of the photo
    train/images/
    train/groups.csv       optional, tab-separated: file_name, group; a group is never split
    test/test_points.csv   tab-separated: file_name, point_index_list as JSON
    test/images/

How many points and how many listed indices there are is read from the files. Header names are not trusted,
only positions. An empty or NaN cell is a missing point. Coordinates may be negative or outside the photo.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.errors import Faults, UserError

LANDMARKS = "train/landmarks.csv"
GROUPS = "train/groups.csv"
FARTHEST = 1e5  # pixels; no photo is so large
TEST_POINTS = "test/test_points.csv"


@dataclass(frozen=True)
class Table:
    """Photos by name and the numbers of each: points (N, K, 2) float32 for train, indices (N, L) int32 for test."""

    names: list[str]
    values: np.ndarray


def find_contest(path: Path, table: str = LANDMARKS) -> Path:
    """The folder that holds the contest, known by one of its tables: `path`, or the one folder in it that does.

    Raises UserError when there is none, or more than one.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; --data takes the folder that holds {table}")
    if (path / table).exists():
        return path
    below = sorted(found.parents[1] for found in path.glob(f"*/{table}"))
    if len(below) == 1:
        return below[0]
    if below:
        raise UserError(f"{path} holds several contests; give --data one of {', '.join(map(str, below))}")
    raise UserError(f"{path / table} is missing; --data takes the folder that holds it")


def count_points(path: Path) -> int:
    """How many points the train table's header has; 0 where it is none."""
    with path.open("rb") as file:
        return _clean(file.readline()).count(b"\t") // 2


def read_landmarks(path: Path, faults: Faults) -> Table:
    """The train table: (N, K, 2) float32 points in pixels of the photos, NaN where a point is missing.

    Faults are added, a line each; rows that have one are left out of what is returned.
    """
    with path.open("rb") as file:
        num_cells = _clean(file.readline()).count(b"\t")
        if num_cells == 0 or num_cells % 2:
            faults.add(
                f"{path} line 1: {num_cells + 1} columns; a file name and then x and y of each point are expected"
            )
            return Table([], np.empty((0, 0, 2), np.float32))
        num_rows = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 24), b"")) + 1
    values = np.empty((num_rows, num_cells), np.float32)
    names = _Names(path, faults)
    with path.open("rb") as file, tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name) as bar:
        bar.update(len(file.readline()))
        for number, line in enumerate(file, start=2):
            bar.update(len(line))
            name, _, cells = _clean(line).partition(b"\t")
            if not name and not cells:
                continue
            row = _parse_row(cells, num_cells, f"{path} line {number}", faults)
            if names.accept(name, number) and row is not None:
                values[len(names.kept)] = row
                names.keep()
    if not names.kept and not faults.lines:
        faults.add(f"{path} has a header and no photos")
    return Table(names.kept, values[: len(names.kept)].reshape(-1, num_cells // 2, 2))


def read_test_points(path: Path, faults: Faults, *, num_points: int) -> Table:
    """The test table: (N, L) int32 indices of the points that are asked, in the order that is asked."""
    rows: list[np.ndarray] = []
    names = _Names(path, faults)
    for number, line in _lines(path, faults):
        name, _, text = line.partition(b"\t")
        indices = _parse_indices(text, num_points, f"{path} line {number}", faults)
        if indices and rows and len(indices) != len(rows[0]):
            faults.add(f"{path} line {number}: {len(indices)} indices, but {len(rows[0])} in the rows above")
            indices = None
        if names.accept(name, number) and indices:
            rows.append(np.array(indices, np.int32))
            names.keep()
    if not rows and not faults.lines:
        faults.add(f"{path} has a header and no photos")
    return Table(names.kept, np.array(rows, np.int32).reshape(len(rows), len(rows[0]) if rows else 0))


def read_groups(path: Path, names: list[str], faults: Faults) -> np.ndarray:
    """(N,) int: a number for the group of each of `names`."""
    group_of: dict[str, str] = {}
    for number, line in _lines(path, faults):
        cells = line.decode("utf-8", "replace").split("\t")
        if len(cells) != 2:
            faults.add(f"{path} line {number}: {len(cells)} columns; file_name and group are expected")
        elif group_of.setdefault(cells[0], cells[1]) != cells[1]:
            faults.add(f"{path} line {number}: {cells[0]} is in a second group; a photo has one")
    if without := [name for name in names if name not in group_of]:
        faults.add(
            f"{path}: {len(without):,} photos of {LANDMARKS} have no group, {without[0]} for one; "
            "add their rows, or remove the file"
        )
    return np.unique(np.array([group_of.get(name, "") for name in names]), return_inverse=True)[1]


class _Names:
    """The names of a table as they are read: each one once, and a plain path below the folder of photos."""

    def __init__(self, path: Path, faults: Faults):
        self.path, self.faults = path, faults
        self.kept: list[str] = []
        self.line_of: dict[str, int] = {}
        self.current = ""

    def accept(self, name: bytes, number: int) -> bool:
        self.current = name.decode("utf-8", "replace")
        place = f"{self.path} line {number}"
        if not self.current or ".." in Path(self.current).parts or Path(self.current).is_absolute():
            self.faults.add(f"{place}: {self.current!r} is not the name of a photo in the folder images")
        elif (first := self.line_of.setdefault(self.current, number)) != number:
            self.faults.add(f"{place}: {self.current} stands in line {first} already; remove one of the two")
        else:
            return True
        return False

    def keep(self):
        self.kept.append(self.current)


def _lines(path, faults):
    """The lines of a small table below its header, numbered as an editor numbers them."""
    lines = path.read_bytes().split(b"\n")
    if b"\t" not in lines[0]:
        faults.add(f"{path} line 1: not a tab-separated header of two columns")
        return
    for number, line in enumerate(lines[1:], start=2):
        if cleaned := _clean(line):
            yield number, cleaned


def _clean(line):
    return line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")


def _parse_row(cells, num_cells, place, faults):
    """The numbers of a row, or None and a fault. What is plain is parsed at once, what is not cell by cell."""
    if (found := cells.count(b"\t") + 1) != num_cells:
        faults.add(f"{place}: {found} numbers where the header has {num_cells}")
        return None
    if b" " not in cells:
        for kind in (np.int64, np.float64):
            try:
                row = np.fromstring(cells, dtype=kind, sep="\t")
            except ValueError:
                continue
            if len(row) == num_cells and not (np.abs(row) > FARTHEST).any():
                return row
    try:
        return [_parse_cell(cell, column) for column, cell in enumerate(cells.split(b"\t"), start=2)]
    except ValueError as error:
        faults.add(f"{place}, {error}")
        return None


def _parse_cell(cell, column):
    text = cell.strip().decode("utf-8", "replace")
    if text == "":
        return np.nan
    try:
        number = float(text)
    except ValueError:
        number = np.inf
    if np.isinf(number) or "_" in text:
        raise ValueError(f"column {column}: {text!r} is not a number; leave the cell empty if the point is missing")
    if abs(number) > FARTHEST:
        raise ValueError(f"column {column}: {text} is no place in a photo; empty the cell if the point is missing")
    return number


def _parse_indices(text, num_points, place, faults):
    try:
        indices = json.loads(text)
    except ValueError:
        indices = None
    if not (isinstance(indices, list) and indices and all(type(index) is int for index in indices)):
        faults.add(
            f"{place}: {text[:60].decode('utf-8', 'replace')!r} is not a list of point indices such as [3, 41, 7]"
        )
    elif not all(0 <= index < num_points for index in indices):
        wrong = next(index for index in indices if not 0 <= index < num_points)
        faults.add(f"{place}: index {wrong} is not one of the {num_points} points 0..{num_points - 1}")
    else:
        return indices
    return None
