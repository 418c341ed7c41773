"""The window: the part of the fitted square that the network is shown, found from where the training points lie.

Photos of a contest often have a wide margin around the face, much the same in all of them. A network that is shown
what lies within sees the face larger at the same price. As data it is (left, top, side) in shares of the square's side.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.contest import read_landmarks
from pipeline.errors import Faults
from pipeline.files import write_text
from pipeline.pack import claimed, content_key, map_with_all_cores
from pipeline.photos import BrokenPhoto, read_photo

Shares = tuple[float, float, float]
WHOLE: Shares = (0.0, 0.0, 1.0)
NUM_PHOTOS = 2000  # that are looked at
CUT = 0.005  # share of the photos that may have a point beyond one side of the window
MARGIN = 0.05  # of what holds the points, on each side
LARGEST, SMALLEST = 0.9, 0.5  # sides: more is not worth what it cuts, less would be a pack of more than four times
DECIMALS = 4


def settled(window: Literal["auto", "whole"] | Shares) -> Shares:
    """The window of a recipe as shares; one that is still to be found is of no run."""
    assert window != "auto"
    return WHOLE if window == "whole" else window


def find_window(table: Path, *, fit: str, cache: Path) -> Shares:
    """The smallest window that holds the points of nearly all training photos, with a margin; else the whole square.

    It is found once for the same table and photos, and kept in the cache. Faults are left to the pack to name.
    """
    known = cache / f"window-{content_key(table, fit, NUM_PHOTOS, CUT, MARGIN, LARGEST, SMALLEST)}.json"
    with claimed(known):
        if not known.exists():
            rows = read_landmarks(table, faults := Faults())
            if faults.lines:
                return WHOLE
            found = window_of(points_in_square(table.parent / "images", rows.names, rows.values, fit))
            write_text(known, json.dumps(found))
    left, top, side = json.loads(known.read_text())
    return left, top, side


def describe_window(window: Shares) -> str:
    left, top, side = window
    place = f"from {left:.0%} of its width and {top:.0%} of its height"
    return "the whole square" if side == 1 else f"{side:.0%} of the square's side, {place}"


def window_of(points: np.ndarray) -> Shares:
    """The window of (N, K, 2) points of N photos, in shares of the square's side; NaN where one is missing."""
    known = points[np.isfinite(points).any(axis=(1, 2))]
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


def points_in_square(photos: Path, names: list[str], points: np.ndarray, fit: str) -> np.ndarray:
    """(N, K, 2) points of photos that are evenly spread over the table, in shares of the fitted square's side."""
    places = np.unique(np.linspace(0, len(names) - 1, NUM_PHOTOS).astype(int))
    sizes = map_with_all_cores(_size, [photos / names[place] for place in places], "where the points lie")
    found = []
    for place, size in zip(places, sizes, strict=True):
        if size is not None:
            found.append((points[place] + 0.5 - size / 2) / (size.max() if fit == "pad" else size.min()) + 0.5)
    return np.array(found).reshape(-1, *points.shape[1:])


def _size(path):
    """(width, height) of a photo, None of a broken one."""
    try:
        return np.array(read_photo(path).shape[1::-1])
    except BrokenPhoto:
        return None
