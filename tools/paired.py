"""Two runs on the photos that both held out, photo by photo: which is better, as far as that can be said."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from pipeline.inference.measured import Measured


@dataclass(frozen=True)
class Difference:
    """Of two runs on the photos that both held out: mse of the first less that of the second, with its interval."""

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
    """The paired difference of two runs, None where they held out fewer than two groups of photos in common."""
    row_of_name = {name: row for row, name in enumerate(second.names.tolist())}
    pairs = [(row, row_of_name[name]) for row, name in enumerate(first.names.tolist()) if name in row_of_name]
    pairs = [(a, b) for a, b in pairs if first.counts[a] == second.counts[b] > 0]
    if not pairs:
        return None
    a, b = np.array(pairs).T
    groups = np.unique(first.groups[a], return_inverse=True)[1]
    sums = np.bincount(groups, first.sums[a] - second.sums[b])
    counts = np.bincount(groups, first.counts[a])
    if len(sums) < 2:
        return None
    result = bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis) / c.sum(axis),
        paired=True,
        n_resamples=2000,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return Difference(*names, len(pairs), float(sums.sum() / counts.sum()), float(low), float(high))
