"""Kaggle's "Facial Keypoints Detection": CSV files with the photo as text, `training.csv` and `test.csv`;
https://www.kaggle.com/c/facial-keypoints-detection/data.

Coordinates are pixel indices, counted from 0; an empty cell is a missing point. Predictions are written as the contest
wants them: a row for each row of `IdLookupTable.csv`, which lies beside `test.csv`, and clipped to the photo.
"""

import math
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import csv_text, write_text
from tools.formats.instance import Answer, Format, Instance, Source
from tools.formats.reading import named_columns, number, read_rows


def read(source: Path, photos: Path | None) -> Source:
    """training.csv, or test.csv, which has a column ImageId and no points."""
    rows = read_rows(source)
    names = [name.strip()[:-2] for name in rows[0] if name.strip().endswith("_x")]
    columns = named_columns(rows, source, ["image", *(f"{name}_y".lower() for name in names)])
    instances = []
    for index, row in enumerate(rows[1:], start=1):
        where = f"row {index + 1}"
        points = {}
        for name in names:
            x, y = (number(row[columns[f"{name}_{axis}".lower()]], source, where) for axis in "xy")
            if x is not None and y is not None:
                points[name] = (x, y)
        image_id = row[columns["imageid"]].strip() if "imageid" in columns else str(index)
        photo = _photo(row[columns["image"]], source, where)
        side = len(photo)
        about = {"image_id": image_id, "side": side}
        instances.append(Instance(f"{source.stem}-{image_id}.png", photo, points, about=about))
    return Source(instances, names)


def _photo(text, source, where):
    """(side, side, 3) pixels of a square photo."""
    try:
        values = np.array(text.split(), np.int64)
    except ValueError:
        values = np.array([-1])
    side = math.isqrt(len(values))
    if not side or side**2 != len(values) or values.min() < 0 or values.max() > 255:
        raise UserError(f"{source} {where}: Image is not the {len(values)} pixels of a square, of 0 to 255")
    return np.repeat(values.astype(np.uint8).reshape(side, side, 1), 3, axis=2)


def write(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    table = source.parent / "IdLookupTable.csv"
    rows = read_rows(table)
    columns = named_columns(rows, table, ["rowid", "imageid", "featurename"])
    answer_of = {answer.about["image_id"]: answer for answer in answers}
    lines = [["RowId", "Location"]]
    for row in rows[1:]:
        answer = answer_of.get(row[columns["imageid"]].strip())
        name, _, axis = row[columns["featurename"]].strip().rpartition("_")
        if answer is None or name not in point_names or axis not in ("x", "y"):
            raise UserError(f"{table} RowId {row[columns['rowid']]} asks for what was not predicted: {row}")
        value = float(answer.points[point_names.index(name), "xy".index(axis)])
        lines.append([row[columns["rowid"]], f"{min(max(value, 0), answer.about['side']):.4f}"])
    write_text(out, csv_text(lines))


FORMAT = Format(read, write)
