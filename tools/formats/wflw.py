"""WFLW's lists: a row for each face, with x and y of its 98 points, a box (left, top, right, bottom), six attributes
and the photo's name, separated by spaces; https://wywu.github.io/projects/LAB/WFLW.html. Pixels are counted from 0.

Other numbers of points work too. Predictions are written as such a list, with the boxes and attributes as they were.
"""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import read_bytes, write_text
from tools.formats.instance import Answer, Format, Instance, Source, numbered
from tools.formats.reading import number

BEHIND = 11  # cells after the points


def read(source: Path, photos: Path | None) -> Source:
    usual = source.parent / "WFLW_images"
    folder = photos or (usual if usual.is_dir() else source.parent)
    instances: list[Instance] = []
    count = 0
    for line, text in enumerate(read_bytes(source).decode("utf-8", "replace").splitlines(), start=1):
        if not (cells := text.split()):
            continue
        num_points, odd = divmod(len(cells) - BEHIND, 2)
        if odd or num_points < 1 or (instances and num_points != count):
            wanted = f"{2 * count + BEHIND}" if instances else "x and y of each point, 10 numbers and a name"
            raise UserError(f"{source} line {line} has {len(cells)} cells; {wanted} are expected")
        count = num_points
        values = [number(cell, source, f"line {line}") for cell in cells[:-1]]
        points = {str(i): (values[2 * i], values[2 * i + 1]) for i in range(count)}
        known = {name: (x, y) for name, (x, y) in points.items() if x is not None and y is not None}
        box = tuple(float(value or 0) for value in values[2 * count : 2 * count + 4])
        instances.append(Instance(cells[-1], folder / cells[-1], known, box=box, about=cells[-BEHIND:]))  # type: ignore[arg-type]
    return Source(instances, numbered(count))


def write(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    rows = [
        " ".join([*(f"{value:.6f}" for value in answer.points.ravel().tolist()), *answer.about]) for answer in answers
    ]
    write_text(out, "".join(f"{row}\n" for row in rows))


FORMAT = Format(read, write)
