"""DeepLabCut and lightning-pose: a CSV with headers of scorer, individuals (if there are several), bodyparts and
coords; https://deeplabcut.github.io/DeepLabCut. Pixels are counted from 0; an empty cell is a missing point.

The photo's name is in one column, or in three: folder, video and file. Photos of one video are a group.
"""

from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import csv_text, write_text
from tools.formats.instance import Answer, Format, Instance, Source, in_order
from tools.formats.reading import number, read_rows

HEADERS = ("scorer", "individuals", "bodyparts", "coords")


def read(source: Path, photos: Path | None) -> Source:
    rows = read_rows(source)
    headers, num_index = _headers(rows, source)
    parts, coords = headers["bodyparts"], headers["coords"]
    individuals = headers.get("individuals", [""] * len(parts))
    folders = {Path("/".join(row[:num_index])).parent for row in rows[len(headers) :]}
    instances = []
    for line, row in enumerate(rows[len(headers) :], start=len(headers) + 1):
        name = "/".join(row[:num_index])
        for individual in in_order(individuals):
            cells: dict[str, dict[str, float | None]] = {}
            for whose, part, coord, cell in zip(individuals, parts, coords, row[num_index:], strict=True):
                if whose == individual and coord in ("x", "y"):
                    cells.setdefault(part, {})[coord] = number(cell, source, f"row {line}")
            points = {part: (xy.get("x"), xy.get("y")) for part, xy in cells.items()}
            known = {part: (x, y) for part, (x, y) in points.items() if x is not None and y is not None}
            about = {"index": row[:num_index], "individual": individual}
            photo = _find(source, photos, name, bare=len(folders) == 1)
            group = "" if (parent := str(Path(name).parent)) == "." else parent  # a video
            instances.append(Instance(name, photo, known, group=group, about=about))
    some = {instance.name for instance in instances if instance.points}
    kept = [one for one in instances if one.points or one.name not in some]  # animals that are not in the picture
    return Source(kept, in_order(parts))


def _headers(rows, source):
    """The cells of each header by its name, and how many columns name the photo."""
    headers = {row[0].strip(): row for row in rows[: len(HEADERS)] if row[0].strip() in HEADERS}
    if not {"scorer", "bodyparts", "coords"} <= headers.keys():
        raise UserError(f"{source} has no headers scorer, bodyparts and coords; it is not of DeepLabCut")
    scorer = headers["scorer"]
    num_index = next((index for index, cell in enumerate(scorer) if index and cell.strip()), len(scorer))
    return {kind: [cell.strip() for cell in row[num_index:]] for kind, row in headers.items()}, num_index


def _find(source, photos, name, *, bare):
    """The photo: names start at the project's folder, and the table lies some levels below it. bare: whether the name
    without its folder says enough, as that of a frame of one video does."""
    folders = [photos] if photos else [source.parent, *source.parent.parents]
    places = [folder / name for folder in folders]
    if photos and bare:
        places += [photos / Path(name).name]
    return next((place for place in places if place.exists()), places[0])


def write(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    """A table with the headers of the one that was read, and its labels replaced."""
    rows = read_rows(source)
    headers, _ = _headers(rows, source)
    individuals = headers.get("individuals", [""] * len(headers["coords"]))
    columns = list(zip(individuals, headers["bodyparts"], headers["coords"], strict=True))
    values: dict[tuple[str, ...], dict[tuple[str, str, str], str]] = {}
    for answer in answers:
        row = values.setdefault(tuple(answer.about["index"]), {})
        for name, point in zip(point_names, np.asarray(answer.points).tolist(), strict=True):
            for axis, value in zip("xy", point, strict=True):
                row[answer.about["individual"], name, axis] = f"{value:.3f}"
    labels = ([*index, *(row.get(column, "") for column in columns)] for index, row in values.items())
    write_text(out, csv_text([*rows[: len(headers)], *labels]))


FORMAT = Format(read, write)
