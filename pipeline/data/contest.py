"""The contest's files, as they lie in the data folder, with all their quirks and every fault they can have.

    train/landmarks.csv    tab-separated: file_name, then x and y of each point, in pixels of the photo
    train/images/
    train/groups.csv       optional, tab-separated: file_name, group; a group is never split
    test/test_points.csv   tab-separated: file_name, point_index_list as JSON
    test/images/

The number of points and of listed indices is read from the files. Header names are not trusted,
only positions. An empty or NaN cell is a missing point. Coordinates may be negative or outside the photo.
"""

import codecs
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.allocator import keep_freed_memory
from pipeline.data.cells import MAX_SHOWN, parse_row
from pipeline.data.cores import map_with_all_cores, num_cores
from pipeline.data.rows import Lines, compact, parse_rows, read_lines, write_at
from pipeline.errors import Faults, UserError
from pipeline.files import PHOTO_SUFFIXES, check_regular
from pipeline.progress import progress

LANDMARKS = "train/landmarks.csv"
GROUPS = "train/groups.csv"
TEST_POINTS = "test/test_points.csv"
LONGEST = 4096  # bytes of a path
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
PLAIN_NAME = re.compile(rb"\w[\w-]*\.\w+", re.ASCII)  # of most photos; other names take longer to check


@dataclass(frozen=True)
class Table:
    """Photos by name and the numbers of each: points (N, K, 2) float32 for train, indices (N, L) int32 for test."""

    names: list[str]
    values: np.ndarray


def find_contest(path: Path, table: str = LANDMARKS) -> Path:
    """The folder that holds the contest, known by one of its tables: `path`, or the one folder in it that has it.

    Raises UserError if there is none, or more than one.
    """
    if not os.path.isdir(path):  # unlike that of pathlib, it is false where a folder may not be looked into
        raise UserError(f"{path} is not a folder that can be read; --data takes the folder that holds {table}")
    if os.path.exists(path / table):
        return path
    below = sorted(found.parents[1] for found in path.glob(f"*/{table}"))
    if len(below) == 1:
        return below[0]
    if below:
        raise UserError(f"{path} holds several contests; give --data one of {', '.join(map(str, below))}")
    raise UserError(f"{path / table} is missing; --data takes the folder that holds it")


def count_points(path: Path) -> int:
    """How many points the train table's header has; 0 if there is no header."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return _clean(file.readline()).count(b"\t") // 2


def read_landmarks(path: Path, faults: Faults, *, scratch: Path | None = None) -> Table:
    """The train table: (N, K, 2) float32 points in pixels of the photos, NaN where a point is missing.

    It is read once, as a stream, by all cores; the numbers lie in a file without a name in the folder `scratch`, or in
    the system's folder for such files, as long as the table is used. Faults are added, a line each; rows with a fault
    are left out of what is returned.
    """
    nothing = Table([], np.empty((0, 0, 2), np.float32))
    if not _can_be_read(path, faults):
        return nothing
    names = _Names(path, faults)
    with path.open("rb") as file, tempfile.TemporaryFile(dir=scratch) as numbers:
        header = file.readline()
        num_cells = _clean(header).count(b"\t")
        if num_cells == 0 or num_cells % 2:
            faults.add(
                f"{path} line 1: {num_cells + 1} columns; a file name and then x and y of each point are expected"
            )
            return nothing
        if not _is_header(header, path, faults):
            return nothing
        keep_freed_memory()
        with progress(path.stat().st_size, path.name, unit="B") as bar:
            bar.update(len(header))
            parse = partial(_parse_lines, num_cells=num_cells, path=path, numbers=numbers)
            rows = _accepted(map_with_all_cores(parse, read_lines(file), ahead=2 * num_cores()), names, faults, bar)
            num_rows = compact(numbers, rows, 4 * num_cells)
        if not num_rows:
            if not faults.lines:
                faults.add(f"{path} has a header and no photos")
            return nothing
        values = np.memmap(numbers, np.float32, "r", shape=(num_rows, num_cells // 2, 2))
    return Table(names.kept, values)


@dataclass(frozen=True)
class _Parsed:
    """The result of parsing lines: the name of each, None for an empty one, and the faults of its numbers, if any."""

    lines: Lines
    names: Sequence[bytes | None]
    faults: dict[int, Faults]


def _parse_lines(lines, num_cells, path, numbers):
    """Parses lines and writes their numbers into the file, each row at the place of its line."""
    rows = parse_rows(lines, num_cells)
    if rows is not None and rows.plain.all():
        write_at(numbers, 4 * num_cells * lines.first, rows.numbers.data)
        return _Parsed(lines, rows.names, {})
    names: list[bytes | None] = []
    faults: dict[int, Faults] = {}
    for index, line in enumerate(lines.text.split(b"\n")[:-1]):
        name, _, cells = _clean(line).partition(b"\t")
        names.append(name if _clean(line) else None)
        row = rows.numbers[index] if rows is not None and rows.plain[index] else None
        if row is None and _clean(line):
            row = parse_row(cells, num_cells, path, lines.first + index + 2, faults.setdefault(index, Faults()))
        if row is not None:
            faults.pop(index, None)
            write_at(numbers, 4 * num_cells * (lines.first + index), np.array(row, np.float32).data)
    return _Parsed(lines, names, faults)


def _accepted(parsed, names, faults, bar):
    """The numbers of the rows without a fault, counted from 0 below the header."""
    for block in parsed:
        bar.update(len(block.lines.text))
        for row, name in enumerate(block.names, start=block.lines.first):
            wrong = block.faults.get(row - block.lines.first)
            if wrong:
                faults.extend(wrong)
            if name is not None and names.accept(name, row + 2) and not wrong:
                names.keep()
                yield row


def read_test_points(path: Path, faults: Faults, *, num_points: int) -> Table:
    """The test table: (N, L) int32 indices of the points that are asked for, in the order asked."""
    rows: list[np.ndarray] = []
    names = _Names(path, faults)
    for number, line in _lines(path, faults):
        name, _, text = line.partition(b"\t")
        try:
            indices = _parse_indices(text, num_points, len(rows[0]) if rows else None)
        except ValueError as error:
            faults.add(f"{path} line {number}: {error}", where=f"line {number}")
            indices = []
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
        where = f"line {number}"
        cells = line.decode("utf-8", "replace").split("\t")
        if len(cells) != 2:
            faults.add(f"{path} {where}: {len(cells)} columns; file_name and group are expected", where=where)
        elif group_of.setdefault(cells[0], cells[1]) != cells[1]:
            faults.add(f"{path} {where}: {cells[0]!r} is in a second group; a photo has one", where=where)
    if without := [name for name in names if name not in group_of]:
        faults.add(
            f"{path}: {len(without):,} photos of {LANDMARKS} have no group, {without[0]} for one; "
            "add their rows, or remove the file"
        )
    groups = [group_of.get(name, "") for name in names]
    number_of = {group: number for number, group in enumerate(sorted(set(groups)))}
    return np.array([number_of[group] for group in groups], int)


class _Names:
    """The names of a table as they are read: each only once, and a plain path below the folder of photos."""

    def __init__(self, path: Path, faults: Faults):
        self.path, self.faults = path, faults
        self.kept: list[str] = []
        self.line_of: dict[str, int] = {}
        self.current = ""

    def accept(self, name: bytes, number: int) -> bool:
        self.current = name.decode("utf-8", "replace")
        if not _is_name(name):
            reason = f"{self.current[:MAX_SHOWN]!r} is not the name of a photo in the folder images"
        elif (first := self.line_of.setdefault(self.current, number)) != number:
            reason = f"{self.current!r} stands in line {first} already; remove one of the two"
        else:
            return True
        self.faults.add(f"{self.path} line {number}: {reason}", where=f"line {number}")
        return False

    def keep(self):
        self.kept.append(self.current)


def _is_name(name):
    """Whether it is a plain path below a folder, in UTF-8 and without control characters: splits list one per line."""
    if PLAIN_NAME.fullmatch(name):
        return True
    try:
        path = Path(name.decode("utf-8"))
    except UnicodeDecodeError:
        return False
    plain = 0 < len(name) <= LONGEST and not CONTROL.search(name)
    return plain and ".." not in path.parts and not path.is_absolute()


def _can_be_read(path, faults):
    try:
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(len(codecs.BOM_UTF16))
    except OSError as error:
        faults.add(f"{path} cannot be read: {error.strerror}")
        return False
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        faults.add(f"{path} is in UTF-16; save it as UTF-8")
        return False
    return True


def _lines(path, faults):
    """The lines of a small table below its header, numbered as an editor numbers them."""
    if not _can_be_read(path, faults):
        return
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    if b"\t" not in lines[0]:
        faults.add(f"{path} line 1: not a tab-separated header of two columns")
        return
    if not _is_header(lines[0], path, faults):
        return
    for number, line in enumerate(lines[1:], start=2):
        if cleaned := _clean(line):
            yield number, cleaned


def _is_header(line, path, faults):
    """Whether the first line, which is not read, is no row. The names in it may be any, but none is that of a photo."""
    name = line.partition(b"\t")[0].decode("utf-8", "replace")[:MAX_SHOWN]
    is_row = name.lower().endswith(PHOTO_SUFFIXES)
    if is_row:
        faults.add(f"{path} line 1 is the row of {name}, but the first line is a header, which is not read; add one")
    return not is_row


def _clean(line):
    return line.rstrip(b"\r\n")


def _parse_indices(text, num_points, num_asked):
    """The list of indices. Raises ValueError if it is not a list, or not of `num_asked`."""
    shown = text[:MAX_SHOWN].decode("utf-8", "replace")
    try:
        indices = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):  # json's parser recurses for each bracket
        indices = None
    if not (isinstance(indices, list) and indices and all(type(index) is int for index in indices)):
        raise ValueError(f"{shown!r} is not a list of point indices such as [3, 41, 7]")
    for index in indices:
        if not 0 <= index < num_points:
            raise ValueError(
                f"index {str(index)[:MAX_SHOWN]} is not one of the {num_points} points 0..{num_points - 1}"
            )
    if num_asked not in (None, len(indices)):
        raise ValueError(f"{len(indices)} indices, but {num_asked} in the rows above")
    return indices
