"""300-W and iBUG: a .pts file beside each photo, with pixels counted from 1 as in MATLAB;
https://ibug.doc.ic.ac.uk/resources/facial-point-annotations.

    version: 1
    n_points: 68
    {
    446.000 91.000
    …
    }
"""

from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import PHOTO_SUFFIXES, read_bytes, write_text
from tools.formats.instance import Answer, Format, Instance, Source, numbered
from tools.formats.reading import number


def read(source: Path, photos: Path | None) -> Source:
    """An instance for each photo below a folder; those without a .pts have no points."""
    if not source.is_dir():
        raise UserError(f"{source} is no folder; give the one in which the photos and their .pts files lie")
    folder = photos or source
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    labels = [source / path.relative_to(folder).with_suffix(".pts") for path in found]
    if alone := sorted(set(source.rglob("*.pts")) - set(labels)):
        raise UserError(f"{alone[0]} has no photo of its name in {folder} ({len(alone):,} such files)")
    instances = [
        Instance(str(path.relative_to(folder)), path, parse(label) if label.exists() else {}, about=label.stem)
        for path, label in zip(found, labels, strict=True)
    ]
    return Source(instances, numbered(max((len(instance.points) for instance in instances), default=0)))


def parse(path: Path) -> dict[str, tuple[float, float]]:
    """The points of a file. Raises UserError if it is not a .pts file, or does not have as many as it says."""
    head, opened, body = read_bytes(path).decode("utf-8", "replace").partition("{")
    said = [line.partition(":")[2].strip() for line in head.splitlines() if line.strip().startswith("n_points")]
    lines = body.partition("}")[0].split("\n")
    rows = [line.split() for line in lines if line.strip()]
    if not opened or "}" not in body or any(len(row) != 2 for row in rows):
        raise UserError(f"{path} is no .pts file: rows of x and y between {{ and }} are expected")
    if said and said != [str(len(rows))]:
        raise UserError(f"{path} says n_points: {said[0]}, and has {len(rows)}")
    points = {str(index): [number(cell, path, f"point {index}") for cell in row] for index, row in enumerate(rows)}
    return {name: (x, y) for name, (x, y) in points.items() if x is not None and y is not None}


def write(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    """Writes a folder with a file for each photo."""
    for answer in answers:
        path = out / Path(answer.name).with_suffix(".pts")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = "\n".join(f"{x:.3f} {y:.3f}" for x, y in np.asarray(answer.points).tolist())
        write_text(path, f"version: 1\nn_points: {len(point_names)}\n{{\n{rows}\n}}\n")


FORMAT = Format(read, write, first_pixel=1.0)
