"""The region of interest (ROI): the part of the fitted square that the network is shown, found from where the points
lie.

Photos of a contest often have a wide margin around the face, much the same in all of them. A network that is shown
only what lies within sees the face larger in an image of the same size. As data, the ROI is (left, top, side) in shares
of the square's side.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from augment import RegionOfInterest
from augment.fit import pixels_within
from pipeline.data.boxes import Boxes
from pipeline.data.cache import claimed, known_key
from pipeline.data.contest import Table
from pipeline.data.cores import map_with_all_cores, num_cores
from pipeline.data.photos import BrokenPhoto, read_photo
from pipeline.errors import Faults
from pipeline.files import write_text
from pipeline.precedence import WHOLE
from pipeline.progress import progress
from pipeline.recipe import PhotoOptions

Shares = tuple[float, float, float]
NUM_PHOTOS = 2000  # to look at
READ = 0.9  # share of these that must be readable for the result to be kept
CUT = 0.005  # share of the photos that may have a point beyond one side of the ROI
MARGIN = 0.05  # of what holds the points, on each side
LARGEST, SMALLEST = 0.9, 0.5  # sides: more is not worth what it cuts, less would make packs over four times as large
DECIMALS = 4


def shares_of(roi: Literal["auto", "whole"] | Shares) -> Shares:
    """The ROI of a recipe as shares; no run has "auto", which is still to be found."""
    assert roi != "auto"
    return WHOLE if roi == "whole" else roi


def shares_shown(options: PhotoOptions, *, in_boxes: bool) -> Shares:
    """What a run is shown of a square, as shares. options: the run's, whose ROI is no longer "auto". in_boxes: of the
    square around a box, of which a run that was trained on whole photos is shown everything: its ROI is of photos."""
    trained_on_photos = not (options.boxes or options.locates)
    return WHOLE if in_boxes and trained_on_photos else shares_of(options.roi)


def region_of(options: PhotoOptions, *, in_boxes: bool = False) -> RegionOfInterest:
    """The same as a region of images of the run's size."""
    return RegionOfInterest.of(shares_shown(options, in_boxes=in_boxes), options.size)


def find_roi(
    table: Path,
    read_table: Callable[[Path, Faults], Table],
    *,
    resize: str,
    cache: Path,
    check_photos: bool = False,
    boxes: Boxes | None = None,
) -> Shares:
    """The smallest ROI that holds the points of nearly all photos of the train table, with a margin; if that is not
    worth it, the whole square.

    It is found once for the same table and photos, and kept in the cache. Naming faults is left to the pack.
    """
    settings = (resize, NUM_PHOTOS, CUT, MARGIN, LARGEST, SMALLEST, *([f"boxes {boxes.key}"] if boxes else []))
    known = cache / f"roi-{known_key(table, *settings, cache=cache, check_photos=check_photos)}.json"
    with claimed(known):
        if known.exists() and (roi := _read_roi(known)):
            return roi
        rows = read_table(table, faults := Faults())
        if faults.lines:
            return WHOLE
        points = points_in_square(table.parent / "images", rows.names, rows.values, resize, boxes)
        roi = roi_of(points)
        if len(points) >= READ * min(NUM_PHOTOS, len(shown(rows.names, boxes))):
            write_text(known, json.dumps(roi))
        return roi


def _read_roi(path) -> Shares | None:
    """What was found before, or None and a message if the file is damaged."""
    try:
        left, top, side = TypeAdapter(Shares).validate_json(path.read_bytes())
    except ValueError:
        left = top = side = 0.0
    if SMALLEST <= side <= 1 and all(0 <= start <= 1 - side + 2 * 10.0**-DECIMALS for start in (left, top)):
        return left, top, side
    print(f"{path} is damaged; the ROI is found anew")
    return None


def describe_roi(roi: Shares) -> str:
    left, top, side = roi
    start = f"from {left:.0%} of its width and {top:.0%} of its height"
    return "the whole square" if side == 1 else f"{side:.0%} of the square's side, {start}"


def roi_of(points: np.ndarray) -> Shares:
    """The ROI of (N, K, 2) points of N photos, in shares of the square's side; NaN where one is missing."""
    known = points[np.isfinite(points).any(axis=1).all(axis=1)]
    if not len(known):
        return WHOLE
    low = np.quantile(np.nanmin(known, axis=1), CUT, axis=0)
    high = np.quantile(np.nanmax(known, axis=1), 1 - CUT, axis=0)
    side = (1 + 2 * MARGIN) * (high - low).max()
    if side > LARGEST:
        return WHOLE
    side = max(side, SMALLEST)
    left, top = np.clip((low + high - side) / 2, 0, 1 - side).round(DECIMALS).tolist()
    return left, top, round(float(side), DECIMALS)


def shown(names: list[str], boxes: Boxes | None) -> np.ndarray:
    """The rows of the photos that are shown: all, or those with a box."""
    return np.arange(len(names)) if boxes is None else np.flatnonzero([name in boxes.of_photo for name in names])


def points_in_square(
    photos: Path, names: list[str], points: np.ndarray, resize: str, boxes: Boxes | None = None
) -> np.ndarray:
    """(N, K, 2) points of photos that are evenly spread over the table, in shares of the fitted square's side.

    Photos that cannot be read are left out, and if there are boxes, those that have none.
    """
    rows = shown(names, boxes)
    rows = rows[np.unique(np.linspace(0, max(len(rows) - 1, 0), min(NUM_PHOTOS, len(rows))).astype(int))]
    frames = map_with_all_cores(partial(_frame, photos, boxes), [names[row] for row in rows], ahead=16 * num_cores())
    found = []
    with progress(len(rows), "where the points lie", unit="photo") as bar:
        for row, frame in zip(rows, frames, strict=True):
            bar.update()
            if frame is not None:
                corner, size = frame
                side = size.max() if resize == "letterbox" else size.min()
                found.append((points[row] - corner + 0.5 - size / 2) / side + 0.5)
    return np.array(found).reshape(-1, *points.shape[1:])


def _frame(photos, boxes, name):
    """The corner (left, top) and the (width, height) of what is shown of a photo, None for a broken one."""
    try:
        height, width = read_photo(photos / name).shape[:2]
        shown = (0, 0, width, height)
        if boxes:
            shown = pixels_within(boxes.square(name), height, width)
    except (BrokenPhoto, ValueError):  # the latter from its box; the pack names it
        return None
    corner = np.array(shown[:2])
    return corner, np.array(shown[2:]) - corner
