"""Photos outside any contest: their points drawn on them and written as a table."""

from pathlib import Path

import cv2
import numpy as np

from augment import RegionOfInterest
from pipeline.blocks import blocks
from pipeline.data.drawing import PREDICTION, draw_points, scaled, write_picture
from pipeline.data.pack import Squares
from pipeline.data.photos import BrokenPhoto, read_photo
from pipeline.data.roi import shares_of
from pipeline.errors import UserError
from pipeline.inference.ensemble import Ensemble
from pipeline.inference.submission import write_submission

KINDS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
BLOCK = 8
SIDE = 1000  # of a picture, at most


def predict_photos(ensemble: Ensemble, path: Path, out: Path, *, decimals: int):
    """Writes a picture of each photo and `points.csv` into the folder `out`. What is broken, or no
    file, is named and left out.

    Raises UserError where there is no photo that can be read.
    """
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in KINDS) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"{path} holds no photo ({', '.join(sorted(KINDS))})")
    out.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    points: list[np.ndarray] = []
    for block in blocks(len(paths), BLOCK):
        photos = dict(_read(paths[block]))
        if photos:
            found = _predict(ensemble, photos)
            for (name, photo), one in zip(photos.items(), found, strict=True):
                write_picture(out / f"{name}.points.png", _picture(photo, one))
            names += photos
            points += list(found)
    if not names:
        raise UserError(f"none of the {len(paths):,} photos of {path} can be read")
    write_submission(out / "points.csv", names, np.stack(points), decimals=decimals)
    print(f"pictures    {out}/")
    print(f"points      {out / 'points.csv'}: {points[0].shape[0]} points on each of {len(names):,} photos")


def _read(paths):
    for path in paths:
        if not path.is_file():  # a folder, a link to nowhere, or a pipe, which would be waited for
            print(f"left out    {str(path)!r} is no file")
        elif path.name.encode(errors="ignore").decode() != path.name:
            print(f"left out    {str(path)!r} has a name that is not UTF-8, which no table can hold; rename it")
        else:
            try:
                yield path.name, read_photo(path)
            except BrokenPhoto as reason:
                print(f"left out    {reason}")


def _predict(ensemble, photos):
    packs = []
    for member in ensemble.members:
        options = member.recipe.photos
        roi = RegionOfInterest.of(shares_of(options.roi), options.size)
        packs.append(Squares.of(photos, roi, options.resize))
    return ensemble.predict_all(packs, np.arange(len(photos)))


def _picture(photo, points):
    scale = min(1.0, SIDE / max(photo.shape[:2]))
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else photo
    return draw_points(small, scaled(points, scale), PREDICTION)
