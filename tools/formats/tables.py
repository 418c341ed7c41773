"""Plain tables, separated by commas, tabs or semicolons; pixels are counted from 0, an empty cell is a missing point.

wide: a row for each instance: `file_name`, and x and y of each point in turn.
long: a row for each point: `file_name`, `point`, `x`, `y`, and `instance` if a photo has several instances.
Either may have the columns `group` and `left`, `top`, `right`, `bottom`, and long ones `visible` (0 if covered).
"""

from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import csv_text, write_text
from tools.formats.instance import Answer, Box, Format, Instance, Source, in_order
from tools.formats.reading import named_columns, number, read_rows

BOX = ["left", "top", "right", "bottom"]
OTHERS = ["file_name", "group", *BOX]


def read_wide(source: Path, photos: Path | None) -> Source:
    rows = read_rows(source)
    columns = named_columns(rows, source, ["file_name"])
    pairs = _pairs(rows[0], source)
    instances = []
    for line, row in enumerate(rows[1:], start=2):
        places = {name: [number(row[i], source, f"row {line}") for i in both] for name, both in pairs.items()}
        points = {name: (x, y) for name, (x, y) in places.items() if x is not None and y is not None}
        name = row[columns["file_name"]]
        group = row[columns["group"]] if "group" in columns else ""
        box = _box_of(row, columns, source, line)
        instances.append(Instance(name, _photo(source, photos, name), points, box=box, group=group, about=name))
    return Source(instances, list(pairs))


def _pairs(header, source):
    """The columns of x and y of each point, by its name, which is what the names of the two columns share."""
    indices = [index for index, name in enumerate(header) if name.strip().lower() not in OTHERS]
    if not indices or len(indices) % 2:
        raise UserError(
            f"{source} line 1 has {len(indices)} columns of coordinates; x and y of each point are expected"
        )
    pairs: dict[str, tuple[int, int]] = {}
    for x, y in zip(indices[::2], indices[1::2], strict=True):
        name = header[x].strip()
        short = name[:-1].rstrip("_. ") if name.lower().endswith("x") else name
        if header[y].strip()[: len(short)] != short or short in pairs:
            raise UserError(f"{source} line 1: {name!r} and {header[y]!r} do not look like x and y of one point")
        pairs[short or str(len(pairs))] = (x, y)
    return pairs


def _is_visible(cell, source, where):
    """From true or false, or a number as pandas writes them, 0 for hidden; an empty cell is visible."""
    said = {"true": 1.0, "false": 0.0}.get(cell.strip().lower())
    return (number(cell, source, where) if said is None else said) != 0


def _box_of(row, columns, source, line) -> Box | None:
    if not all(name in columns for name in BOX):
        return None
    left, top, right, bottom = (number(row[columns[name]], source, f"row {line}") for name in BOX)
    if left is None or top is None or right is None or bottom is None:
        return None
    return left, top, right, bottom


def _photo(source, photos, name):
    usual = source.parent / "images"
    return (photos or (usual if usual.is_dir() else source.parent)) / name


def write_wide(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    header = ["file_name", *(f"{name}_{axis}" for name in point_names for axis in "xy")]
    write_text(out, csv_text([header, *([answer.about, *_cells(answer.points)] for answer in answers)]))


def read_long(source: Path, photos: Path | None) -> Source:
    rows = read_rows(source)
    columns = named_columns(rows, source, ["file_name", "point", "x", "y"])
    grouped: dict[tuple[str, str], list[tuple[int, list[str]]]] = {}
    for line, row in enumerate(rows[1:], start=2):
        which = row[columns["instance"]] if "instance" in columns else ""
        grouped.setdefault((row[columns["file_name"]], which), []).append((line, row))
    instances = [_of_long(key, own, columns, source, photos) for key, own in grouped.items()]
    return Source(instances, in_order([row[columns["point"]] for row in rows[1:] if row[columns["point"]]]))


def _of_long(key, rows, columns, source, photos):
    name, which = key
    points, hidden = {}, set()
    for line, row in rows:
        point = row[columns["point"]]
        x, y = (number(row[columns[axis]], source, f"row {line}") for axis in "xy")
        if point in points:
            raise UserError(
                f"{source} row {line}: {point!r} of {name} stands above already; a column instance tells them"
            )
        if point and x is not None and y is not None:
            points[point] = (x, y)
            if "visible" in columns and not _is_visible(row[columns["visible"]], source, f"row {line}"):
                hidden.add(point)
    line, row = rows[0]
    group = row[columns["group"]] if "group" in columns else ""
    box = _box_of(row, columns, source, line)
    return Instance(name, _photo(source, photos, name), points, frozenset(hidden), box, group, about=[name, which])


def write_long(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    several = any(answer.about[1] for answer in answers)
    rows = [["file_name", *(["instance"] if several else []), "point", "x", "y"]]
    for answer in answers:
        first = answer.about if several else answer.about[:1]
        for point, place in zip(point_names, answer.points, strict=True):
            rows.append([*first, point, *_cells(place)])
    write_text(out, csv_text(rows))


def _cells(points):
    return [f"{value:.3f}" for value in np.asarray(points).ravel().tolist()]


WIDE, LONG = Format(read_wide, write_wide), Format(read_long, write_long)
