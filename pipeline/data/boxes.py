"""Boxes: which part of each photo is looked at, for photos with several people, or with people far away.

    file_name,left,top,right,bottom

in pixels of the photo, separated by commas or tabs. The network is shown the square about a box, with a margin, as if
it were the photo; points stay in pixels of the whole photo.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from augment.fit import Box, square_around
from pipeline.errors import UserError
from pipeline.files import digest, read_bytes

MARGIN = 0.25  # on each side of a box, as a share of its longer side
COLUMNS = ["file_name", "left", "top", "right", "bottom"]


@dataclass(frozen=True)
class Boxes:
    """Boxes by the names of photos, which may have several. source: their file or flag. key: tells them from others."""

    source: str
    of_photo: dict[str, list[Box]]
    key: str

    def squares(self, name: str) -> list[Box]:
        """What is shown of a photo, for each of its boxes."""
        return [square_around(box, MARGIN) for box in self.of_photo.get(name, [])]

    def square(self, name: str) -> Box:
        """What is shown of a photo that has one box. Raises ValueError where it has none, or several."""
        squares = self.squares(name)
        if len(squares) != 1:
            what = f"{len(squares)} boxes" if squares else "no box"
            raise ValueError(f"it has {what} in {self.source}; a photo of a contest needs one")
        return squares[0]


def read_boxes(path: Path | None) -> Boxes | None:
    """The boxes of a file, None without one. Raises UserError, with the line, for what is no table of boxes."""
    if path is None:
        return None
    content = read_bytes(path)
    found: dict[str, list[Box]] = {}
    for name, box in _parse(path, content):
        found.setdefault(name, []).append(box)
    return Boxes(str(path), found, digest(content)[:16])


def boxes_of_one(name: str, box: Box) -> Boxes:
    """The box of one photo."""
    return Boxes("--box", {name: [box]}, str(box))


def _parse(path, content):
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a table of boxes: it is not UTF-8") from error
    rows = csv.reader(lines, delimiter="\t" if lines and "\t" in lines[0] else ",")
    if [cell.strip().lower() for cell in next(rows, [])] != COLUMNS:
        raise UserError(f"{path} line 1: the columns of a table of boxes are {', '.join(COLUMNS)}")
    for number, row in enumerate(rows, start=2):
        if row:
            try:
                left, top, right, bottom = map(float, "x" if "_" in "".join(row[1:]) else row[1:])  # 1_0 is no number
            except ValueError:
                left = top = right = bottom = 0.0
            if not -1e6 < left < right < 1e6 or not -1e6 < top < bottom < 1e6:
                raise UserError(f"{path} line {number}: {row} is not a name and left < right, top < bottom in pixels")
            yield row[0], (left, top, right, bottom)
