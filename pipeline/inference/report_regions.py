"""A run's regions of points as its report shows them: where they lie and how far off they are."""

from dataclasses import dataclass

import numpy as np

from pipeline.data.regions import Regions, find_regions, read_regions, region_errors
from pipeline.runs import Run


@dataclass(frozen=True)
class Region:
    """points: indices. middle: (x, y) in the frame of the mean shape. error: RMS, in pixels, NaN where unknown."""

    name: str
    points: np.ndarray
    middle: tuple[float, float]
    error: float


def regions_of_run(run: Run, mean_shape: np.ndarray) -> Regions:
    """The regions whose errors a run has reported, or, for a run of an earlier version, those that are found in its
    (K, 2) mean shape. Raises UserError if its regions.json was changed to something else."""
    if run.regions.exists():
        return read_regions(run.regions, len(mean_shape), flag="")
    return find_regions(mean_shape)


def with_errors(regions: Regions, mean_shape: np.ndarray, errors: np.ndarray, counts: np.ndarray) -> list[Region]:
    """Regions with the root mean square of their coordinates' errors, from those of the points, (K,), which are NaN
    where unknown, and (K,) numbers of the coordinates that each is of."""
    known = np.where(np.isfinite(errors), counts, 0)
    squares = region_errors(np.nan_to_num(errors) ** 2 * known, known, regions)
    return [Region(name, points, _middle(mean_shape[points]), squares[name] ** 0.5) for name, points in regions.items()]


def _middle(points):
    """The point that is nearest to their mean; the mean itself may lie beside a curved region, such as a jaw."""
    x, y = points[((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return float(x), float(y)
