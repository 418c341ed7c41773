"""Photos outside any contest: their points drawn on them and written as a table."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from augment import transform_points
from augment.fit import Box, pixels_within
from pipeline.blocks import blocks
from pipeline.data.boxes import Boxes
from pipeline.data.drawing import PREDICTION, draw_points, scaled, write_picture
from pipeline.data.pack import Squares
from pipeline.data.photos import BrokenPhoto, read_photo
from pipeline.data.roi import region_of
from pipeline.errors import UserError
from pipeline.files import PHOTO_SUFFIXES, free_name
from pipeline.inference.ensemble import Ensemble
from pipeline.inference.submission import write_submission

BLOCK = 8
SIDE = 1000  # of a picture, at most
EDGE = 1.0  # pixels of the network's image from its edge
NUM_SAID = 5  # photos
DRAWN = ".points.png"  # behind the name of a photo
LONGEST = 235  # bytes of a photo's name: with what is added while its picture is written, file systems take 255


@dataclass(frozen=True)
class Shown:
    """A photo, or what is in a box on it. name: of its row of points. file: of the photo."""

    name: str
    file: str
    photo: np.ndarray
    box: Box | None


def predict_photos(ensemble: Ensemble, path: Path, out: Path, *, decimals: int, boxes: Boxes | None = None):
    """Writes a picture of each photo and `points.csv` into the folder `out`. What is broken, or not a file, is named
    and left out. With boxes, each box has a row, and a photo without any is left out.

    Raises UserError if no photo can be read.
    """
    paths = sorted(filter(_is_photo, path.iterdir())) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"{path} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
    out.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    points: list[np.ndarray] = []
    at_edge: list[str] = []
    for block in blocks(len(paths), BLOCK):
        shown = [one for name, photo in _read(paths[block]) for one in _parts(name, photo, boxes)]
        if shown:
            found, touching = _predict(ensemble, shown)
            for name in dict.fromkeys(one.file for one in shown):
                own = [row for row, one in enumerate(shown) if one.file == name]
                write_picture(out / f"{name}{DRAWN}", _picture(shown[own[0]].photo, np.concatenate(found[own])))
            names += [one.name for one in shown]
            points += list(found)
            at_edge += touching
    if not names:
        raise UserError(f"of the {len(paths):,} photos of {path} all were left out, for the reasons above")
    print(f"pictures    {out}/")
    table = _write_points(out / "points.csv", names, np.stack(points), decimals=decimals)
    print(f"points      {table}: {points[0].shape[0]} points on each of {len(names):,} photos")
    _print_at_edge(at_edge)


def _is_photo(path):
    """Whether a file of a folder is a photo, and none of the pictures that were drawn there before."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.endswith(DRAWN)


def _write_points(path, names, points, *, decimals):
    """Writes the table, and keeps an earlier one with other rows."""
    earlier = path.rename(free_name(path)) if path.exists() else None
    write_submission(path, names, points, decimals=decimals)
    if earlier and earlier.read_bytes() == path.read_bytes():
        earlier.unlink()
    elif earlier:
        print(f"earlier     the table of other photos, or by other runs, is now {earlier}")
    return path


def _read(paths):
    for path in paths:
        if not path.is_file():  # a folder, a link to nowhere, or a pipe, which would be waited for
            print(f"left out    {str(path)!r} is no file")
        elif path.name.encode(errors="ignore").decode() != path.name:
            print(f"left out    {str(path)!r} has a name that is not UTF-8, which no table can hold; rename it")
        elif len(path.name.encode()) > LONGEST:
            print(f"left out    {str(path)!r} has a name that is too long for that of its picture; rename it")
        else:
            try:
                yield path.name, read_photo(path)
            except BrokenPhoto as reason:
                print(f"left out    {reason}")


def _parts(name, photo, boxes):
    """The photo, or each of its boxes. A photo without one is named and left out."""
    if boxes is None:
        return [Shown(name, name, photo, None)]
    squares = boxes.squares(name)
    parts = []
    for number, square in enumerate(squares):
        try:
            pixels_within(square, *photo.shape[:2])
        except ValueError as reason:
            print(f"left out    {name!r}: {reason}")
        else:
            parts.append(Shown(name if len(squares) == 1 else f"{name}#{number}", name, photo, square))
    if not squares:
        print(f"left out    {name!r} has no box in {boxes.source}")
    return parts


def _predict(ensemble, shown):
    """(N, K, 2) points of what is shown, and a line for each that has points at the edge of what the network sees."""
    packs = []
    photos = {one.name: one.photo for one in shown}
    given = {one.name: one.box for one in shown if one.box}
    for member in ensemble.members:
        options = member.recipe.photos
        squares = given or (member.locator.squares(photos) if member.locator else {})
        packs.append(Squares.of(photos, region_of(options, in_boxes=bool(given)), options.resize, squares))
    found = ensemble.predict_all(packs, np.tile(np.arange(len(shown)), (len(packs), 1)))
    seen = transform_points(packs[0].photo_to_image, found)
    outside = ((seen < EDGE) | (seen > packs[0].roi.size - 1 - EDGE)).any(axis=2).sum(axis=1)
    count = found.shape[1]
    return found, [f"{one.name}: {few} of {count}" for one, few in zip(shown, outside, strict=True) if few]


def _print_at_edge(lines):
    if lines:
        more = f" … and {len(lines) - NUM_SAID:,} more photos" if len(lines) > NUM_SAID else ""
        print(f"edge        points touch the edge of what the network is shown: {'; '.join(lines[:NUM_SAID])}{more}")
        print("            what is to be found may reach beyond it: give --box or --boxes about it, or cut the photo")


def _picture(photo, points):
    scale = min(1.0, SIDE / max(photo.shape[:2]))
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else photo
    return draw_points(small, scaled(points, scale), PREDICTION)
