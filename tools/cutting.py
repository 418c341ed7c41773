"""Instances as photos of their own: cut by a box with a margin, or whole."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augment.fit import pixels_within, square_around
from pipeline.data.drawing import encoded
from pipeline.data.photos import BrokenPhoto, read_photo
from tools.formats.instance import Box, Instance

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Cut:
    """by: "box", "points" or "never". margin: around the box on each side, as a share of its longer side."""

    by: str
    margin: float

    def box_of(self, instance: Instance) -> Box | None:
        """The square to keep, None for the whole photo: a box of no extent, such as a placeholder of zeros or that of a
        single point, says nothing."""
        box = instance.box if self.by == "box" else None
        if self.by == "points" and instance.points:
            places = np.array(list(instance.points.values()))
            box = (*places.min(axis=0).tolist(), *places.max(axis=0).tolist())
        if box is None or max(box[2] - box[0], box[3] - box[1]) <= 0:
            return None
        return square_around(box, self.margin)


@dataclass(frozen=True)
class Piece:
    """An instance, the name of its photo in the contest's folder, and the box to cut out, None for all of it."""

    name: str
    instance: Instance
    box: Box | None


def write_piece(piece: Piece, images: Path) -> tuple[int, int] | BrokenPhoto:
    """Writes a photo, and returns the corner (left, top) in pixels of the one that it was cut from, or why it failed.

    A whole photo is copied as it is; one that is cut is turned as its EXIF says.
    """
    path, photo = images / piece.name, piece.instance.photo
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(photo, Path) and piece.box is None:
            read_photo(photo)
            shutil.copyfile(photo, path)
            return 0, 0
        pixels = read_photo(photo) if isinstance(photo, Path) else photo
    except BrokenPhoto as error:
        return error
    height, width = pixels.shape[:2]
    try:
        left, top, right, bottom = pixels_within(piece.box or (0, 0, width, height), height, width)
    except ValueError as error:
        return BrokenPhoto(f"{piece.instance.photo} cannot be cut: {error}")
    path.write_bytes(encoded(pixels[top:bottom, left:right], path.suffix, quality=JPEG_QUALITY))
    return left, top
