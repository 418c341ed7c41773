"""Regions of points that errors are reported for: named in a file, or found from which points lie next to each other.

Points are strung along the edges of what they outline, such as an eye or a jaw. Two are linked if they are about as
close as either is to its own neighbours; a region is what a chain of links connects. Nothing is assumed about what the
points are.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from pipeline.errors import UserError
from pipeline.files import read_plain

Regions = dict[str, np.ndarray]  # the numbers of their points by name
OF_REGION = "validation_mse_"  # followed by the name of a region: its column in the table of epochs

REACH = 1.9  # times the distance from the nearest neighbour, for the point whose neighbour is nearer
FEW = 0.02  # of the points; a region of fewer, or of less than three, joins the nearest one
MOST = 16  # regions that are found
MAX_RANGES = 2  # of numbers in a name
MAX_NAME = 40  # characters
TAKES = 'a JSON object of names and the numbers of their points, such as {"jaw": [0, 1, 2], "nose": [3, 4]}'


def regions_of(path: Path | None, mean_shape: np.ndarray) -> Regions:
    """The regions that the file names, or those that are found in the (K, 2) mean shape. Raises UserError as
    `read_regions` does."""
    return find_regions(mean_shape) if path is None else read_regions(path, len(mean_shape))


def find_regions(mean_shape: np.ndarray) -> Regions:
    """Every point in one region, from the neighbours in the (K, 2) mean shape; regions in the order of their points."""
    distances = cdist(mean_shape, mean_shape)
    near = np.sort(distances, axis=1)[:, min(1, len(mean_shape) - 1)]
    linked = distances <= REACH * np.minimum(near, near[:, None])
    number = _joined(connected_components(linked, directed=False)[1], mean_shape)
    firsts = np.sort(np.unique(number, return_index=True)[1])
    return {name_of(points): points for points in (np.flatnonzero(number == number[first]) for first in firsts)}


def _joined(number, mean_shape):
    """Joins regions that are too small, or too many, with those whose points are nearest."""
    least = max(3, FEW * len(number))
    sizes = np.bincount(number)
    while len(sizes) > 1 and (sizes.min() < least or len(sizes) > MOST):
        smallest = sizes.argmin()
        others = np.flatnonzero(number != smallest)
        apart = cdist(mean_shape[number == smallest], mean_shape[others])
        number = np.where(number == smallest, number[others[apart.min(axis=0).argmin()]], number)
        number = np.unique(number, return_inverse=True)[1]
        sizes = np.bincount(number)
    return number


def name_of(points: np.ndarray) -> str:
    """The numbers of the points, which are in order, as few ranges."""
    parts = np.split(points, np.flatnonzero(np.diff(points) > 1) + 1)
    ranges = [f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return "+".join(ranges[:MAX_RANGES]) + ("+…" if len(ranges) > MAX_RANGES else "")


def read_regions(path: Path, num_points: int, *, flag: str = "--regions") -> Regions:
    """The regions of a JSON file. They may share points and need not include all of them.

    Raises UserError of one line if it is not such a file, or names a point that does not exist.
    """
    where = f"{flag} {path}".strip()
    found = read_plain(path, said=where, takes=TAKES)
    if not isinstance(found, dict) or not found:
        raise UserError(f"{where}: it names no regions; it takes {TAKES}")
    for name, points in found.items():
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise UserError(f"{where}: {name[:MAX_NAME]!r} is no name; give one of 1 to {MAX_NAME} characters")
        if not isinstance(points, list) or not points:
            raise UserError(f"{where}: {name} has no list of points; it takes {TAKES}")
        if wrong := [point for point in points if type(point) is not int or not 0 <= point < num_points]:
            raise UserError(
                f"{where}: {name} names {str(wrong[0])[:20]!r}; points are numbers from 0 to {num_points - 1}"
            )
        if len(set(points)) < len(points):
            raise UserError(f"{where}: {name} names a point twice; name each once")
    return {name: np.array(points) for name, points in found.items()}


def regions_text(regions: Regions) -> str:
    """The regions as `read_regions` reads them, a line each."""
    rows = (
        f" {json.dumps(name, ensure_ascii=False)}: {json.dumps(points.tolist())}" for name, points in regions.items()
    )
    return "{\n" + ",\n".join(rows) + "\n}\n"


def region_errors(errors: np.ndarray, counts: np.ndarray, regions: Regions) -> dict[str, float]:
    """The mean squared error of each region, from (K,) sums of squared errors and (K,) numbers of coordinates; NaN
    if none of its points is known."""
    sums = {name: (float(errors[points].sum()), int(counts[points].sum())) for name, points in regions.items()}
    return {name: total / count if count else float("nan") for name, (total, count) in sums.items()}


def describe_regions(row: dict[str, Any], *, shown: int = 6) -> str:
    """The mean squared error of each region in a row of the table of epochs, worst first, in a few words: of more than
    `shown` regions, the worst ones and the best.
    """
    found = {name.removeprefix(OF_REGION): error for name, error in row.items() if name.startswith(OF_REGION)}
    known = {name: error for name, error in found.items() if not math.isnan(error)}
    said = [f"{name} {known[name]:.1f}" for name in sorted(known, key=known.__getitem__, reverse=True)]
    return ", ".join(said) if len(said) <= shown else f"{', '.join(said[: shown - 1])} … {said[-1]}"
