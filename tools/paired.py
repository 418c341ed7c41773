"""Two runs on the photos that both held out, photo by photo: which is better, as far as that can be told."""

from dataclasses import dataclass

import numpy as np

from pipeline.inference.measured import Measured
from pipeline.metrics import ratio_interval


@dataclass(frozen=True)
class Difference:
    """Two runs on the photos that both held out: mse of the first minus that of the second, with its interval."""

    first: str
    second: str
    photos: int
    mse: float
    low: float
    high: float

    def __str__(self) -> str:
        said = f"{self.mse:+.3f} px² ({self.low:+.3f} … {self.high:+.3f}) on {self.photos:,} photos"
        if self.low > 0 or self.high < 0:
            better, worse = (self.second, self.first) if self.low > 0 else (self.first, self.second)
            return f"{better} is better than {worse}: {said}"
        return f"{self.first} and {self.second} cannot be told apart: {said}"


def difference(names: tuple[str, str], first: Measured, second: Measured) -> Difference | None:
    """The paired difference of two runs, None if they held out fewer than two groups of photos in common. Photos of the
    same name whose labels differ are of other contests, or of one before and after a label was mended."""
    row_of_name = {name: row for row, name in enumerate(second.names.tolist())}
    pairs = [(row, row_of_name[name]) for row, name in enumerate(first.names.tolist()) if name in row_of_name]
    pairs = [(a, b) for a, b in pairs if first.counts[a] == second.counts[b] > 0]
    if len(first.labels) and len(second.labels):
        pairs = [(a, b) for a, b in pairs if first.labels[a] == second.labels[b]]
    if not pairs:
        return None
    a, b = np.array(pairs).T
    sums, counts = first.sums[a] - second.sums[b], first.counts[a]
    low, high = ratio_interval(sums, counts, first.groups[a], num_resamples=2000)
    if np.isnan(low):
        return None
    return Difference(*names, len(pairs), float(sums.sum() / counts.sum()), low, high)
