"""Boxes: which part of each photo to look at, for photos with several people, or with people far away.

    file_name,left,top,right,bottom

in pixels of the photo, separated by commas or tabs. The network is shown the square around a box, with a margin, as if
it were the photo; points stay in pixels of the whole photo.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from augment.fit import Box, square_around
from pipeline.errors import UserError
from pipeline.files import csv_text, digest, read_bytes

MARGIN = 0.25  # on each side of a box, as a share of its longer side
COLUMNS = ["file_name", "left", "top", "right", "bottom"]


@dataclass(frozen=True)
class Boxes:
    """Boxes by the names of photos, which may have several. source: their file or flag. key: tells them from others."""

    source: str
    of_photo: dict[str, list[Box]]
    key: str

    def squares(self, name: str) -> list[Box]:
        """What to show of a photo, for each of its boxes."""
        return [square_around(box, MARGIN) for box in self.of_photo.get(name, [])]

    def square(self, name: str) -> Box:
        """What to show of a photo that has one box. Raises ValueError if it has none, or several."""
        squares = self.squares(name)
        if len(squares) != 1:
            what = f"{len(squares)} boxes" if squares else "no box"
            raise ValueError(f"it has {what} in {self.source}; a photo of a contest needs one")
        return squares[0]


def read_boxes(path: Path | None) -> Boxes | None:
    """The boxes of a file, None without one. Raises UserError, with the line, if it is not a table of boxes."""
    if path is None:
        return None
    content = read_bytes(path)
    found: dict[str, list[Box]] = {}
    for name, box in _parse(path, content):
        found.setdefault(name, []).append(box)
    return Boxes(str(path), found, digest(content)[:16])


def boxes_table(boxes: Boxes) -> str:
    """The text of a file with these boxes, to a tenth of a pixel."""
    rows = ([name, *(f"{edge:.1f}" for edge in box)] for name, own in boxes.of_photo.items() for box in own)
    return csv_text([COLUMNS, *rows])


def boxes_of_one(name: str, box: Box) -> Boxes:
    """The box of one photo."""
    return Boxes("--box", {name: [box]}, str(box))


def _parse(path, content):
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a table of boxes: it is not UTF-8") from error
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        if [cell.strip().lower() for cell in next(rows, [])] != COLUMNS:
            raise UserError(f"{path} line 1: the columns of a table of boxes are {', '.join(COLUMNS)}")
        for row in rows:
            if row:
                yield row[0], _box(row, f"{path} line {rows.line_num}")
    except csv.Error as error:
        raise UserError(f"{path} line {rows.line_num}: {error}; a quotation mark may be missing") from error


def _box(row, where):
    try:
        left, top, right, bottom = map(float, row[1:])
    except ValueError:
        left = top = right = bottom = 0.0
    is_box = -1e6 < left < right < 1e6 and -1e6 < top < bottom < 1e6
    if not is_box or "_" in "".join(row[1:]):  # Python accepts 1_0 as a number
        raise UserError(f"{where}: {row} is not a name and left < right, top < bottom in pixels")
    return left, top, right, bottom
