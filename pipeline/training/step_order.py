"""Which photos each step takes, and which of these are this rank's.

The order continues from pass to pass over the training photos, and differs in each. It does not depend on how many
ranks share a step.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.data.loader import epoch_order
from pipeline.ranks import Ranks


class Steps(NamedTuple):
    """Consecutive steps of one pass over the photos: the number of the pass, that of the first step, and this rank's
    samples of each."""

    number: int
    first: int
    own: list[np.ndarray]


class StepOrder:
    """samples: the photos that are trained on. batch_size: of a step, over all ranks. mixes: whether each photo is
    mixed with the one before it in the step."""

    def __init__(self, samples: np.ndarray, *, seed: int, batch_size: int, ranks: Ranks, mixes: bool):
        self.samples, self.seed, self.batch_size, self.ranks, self.mixes = samples, seed, batch_size, ranks, mixes
        self.steps_per_pass = len(self.of_pass(0))
        self._known: tuple[int, list[np.ndarray]] = -1, []

    def of_pass(self, number: int) -> list[np.ndarray]:
        """The samples of each step of a pass, over all ranks."""
        return epoch_order(self.samples, seed=self.seed, epoch=number, batch_size=self.batch_size)

    def of_step(self, step: int) -> np.ndarray:
        """The samples of a step, over all ranks."""
        number, index = divmod(step, self.steps_per_pass)
        if self._known[0] != number:
            self._known = number, self.of_pass(number)
        return self._known[1][index]

    def following(self, step: int, count: int) -> Iterator[Steps]:
        """The next `count` steps from `step` on."""
        end = step + count
        while step < end:
            number, done = divmod(step, self.steps_per_pass)
            order = self.of_pass(number)[done:][: end - step]
            yield Steps(number, step, [self._own(samples) for samples in order])
            step += len(order)

    def _own(self, samples):
        """This rank's part of a step. With mixup it includes the photo before it, which is mixed into its first one."""
        if self.ranks.num_ranks == 1:
            return samples
        part = self.ranks.part(len(samples))
        before = [samples[part.start - 1]] if self.mixes else []
        return np.concatenate([before, samples[part]]).astype(samples.dtype)
