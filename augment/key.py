"""Randomness as a pure function: the numbers of a draw depend on (seed, epoch, sample id) and on nothing else.

A generator with a state would give a sample different numbers if the batch, the number of workers or the rank changed.
Here each number is a hash of what it belongs to. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014), computed for a whole batch at once.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Key:
    """What a draw for a batch depends on: `samples` is the (B,) array of the samples' ids.

    `path` tells the augmenters of a chain apart, so that each has numbers of its own.
    """

    seed: int
    epoch: int
    samples: np.ndarray
    path: tuple[int, ...] = ()

    def child(self, index: int) -> "Key":
        return replace(self, path=(*self.path, index))

    def uniform(self, count: int) -> np.ndarray:
        """(B, count) independent numbers in [0, 1)."""
        words = (self.seed, self.epoch, *self.path)
        state = _mix((_state(words) ^ np.asarray(self.samples).astype(np.uint64)) + GOLDEN_GAMMA)
        counters = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_GAMMA
        return (_mix(state[:, None] + counters) >> np.uint64(11)) * 2.0**-53


@lru_cache(maxsize=4096)
def _state(words: tuple[int, ...]) -> np.ndarray:
    """(1,) what all samples have in common: the words, mixed in one after the other."""
    if not words:
        return np.zeros(1, np.uint64)
    return _mix((_state(words[:-1]) ^ np.uint64(words[-1] % 2**64)) + GOLDEN_GAMMA)


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: a bijection of 64-bit words in which every bit depends on every bit."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
