"""Augmenters: what draws views. Parameters are constants or (low, high) ranges; a draw is a function of its key.

    augmenter = Chain((AffineAugmenter(rotation=(-15, 15)), MirrorAugmenter(probability=0.5)))
    view = augmenter.draw(Key(seed=0, epoch=3, samples=ids), size=(128, 128))

This file has what they share and what combines them; the augmenters are in `geometric.py` and `photometric.py`.
"""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Protocol

import numpy as np

from augment.key import Key
from augment.transform import Transform

Range = float | tuple[float, float]
Drawn = Mapping[str, np.ndarray]


class Sampler(Protocol):
    """Anything that draws views; `size` is the (height, width) of the images that come in."""

    def draw(self, key: Key, size: tuple[int, int]) -> Transform: ...


@dataclass(frozen=True, kw_only=True)
class Augmenter:
    """Draws the view that does nothing, and holds what its subclasses share: probability and ranges.

    A subclass names its parameters as fields, with their bounds in `bounds`, and turns one value of each into a view in
    `view`. Parameters in `factors` are drawn evenly in their logarithm.
    """

    probability: float = 1.0
    bounds: ClassVar[dict[str, tuple[float, float]]] = {}
    factors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_probability(f"{type(self).__name__}.probability", self.probability)
        for parameter in self.parameters():
            value = getattr(self, parameter)
            name = f"{type(self).__name__}.{parameter}"
            numbers = value if isinstance(value, tuple) else (value, value)
            if len(numbers) != 2 or not all(map(is_number, numbers)) or not numbers[0] <= numbers[1]:
                raise ValueError(f"{name}: {value!r} is not a number or a range [low, high]")
            low, high = numbers
            least, most = self.bounds.get(parameter, (-np.inf, np.inf))
            if not least <= low <= high <= most:
                allowed = f"between {least:g} and {most:g}" if most < np.inf else f"at least {least:g}"
                raise ValueError(f"{name}: {value!r} is not {allowed}")

    @classmethod
    def parameters(cls) -> list[str]:
        return [field.name for field in dataclasses.fields(cls) if field.name != "probability"]

    def draw(self, key: Key, size: tuple[int, int]) -> Transform:
        """Draws for a whole batch at once; with probability 1 - `probability` a sample is left as it is."""
        parameters = self.parameters()
        numbers = key.uniform(1 + len(parameters)).T
        drawn = {p: self._between(p, number) for p, number in zip(parameters, numbers[1:], strict=True)}
        view = self.view(key, size, drawn)
        return view if self.probability == 1 else view.where(numbers[0] < self.probability)

    def view(self, key: Key, size: tuple[int, int], drawn: Drawn) -> Transform:
        """The view of `drawn`, a (B,) array for each parameter; other random numbers come from children of the key."""
        return Transform.identity(len(key.samples), size)

    def _between(self, parameter, number):
        low, high = ends(getattr(self, parameter))
        return low * (high / low) ** number if parameter in self.factors else low + (high - low) * number


@dataclass(frozen=True)
class Chain:
    """Draws from each augmenter in turn and composes the views: still one warp."""

    augmenters: tuple[Sampler, ...]

    def draw(self, key: Key, size: tuple[int, int]) -> Transform:
        view = Transform.identity(len(key.samples), size)
        for index, augmenter in enumerate(self.augmenters):
            view = view.then(augmenter.draw(key.child(index), view.size))
        return view


@dataclass(frozen=True, kw_only=True)
class RandomAugmenter:
    """Draws, for each sample, one of its augmenters, with probabilities in proportion to `weights`."""

    augmenters: tuple[Sampler, ...]
    weights: tuple[float, ...] = ()
    probability: float = 1.0

    def __post_init__(self):
        weights = self.weights or (1.0,) * len(self.augmenters)
        if not self.augmenters:
            raise ValueError("RandomAugmenter.augmenters: at least one is needed")
        if len(weights) != len(self.augmenters) or not all(map(is_number, weights)) or min(weights) < 0:
            raise ValueError(
                f"RandomAugmenter.weights: {list(weights)} are not {len(self.augmenters)} numbers of at least 0"
            )
        if sum(weights) <= 0:
            raise ValueError("RandomAugmenter.weights: at least one has to be above 0")
        check_probability("RandomAugmenter.probability", self.probability)

    def draw(self, key: Key, size: tuple[int, int]) -> Transform:
        numbers = key.uniform(2).T
        shares = np.cumsum(self.weights or (1.0,) * len(self.augmenters))
        choice = np.searchsorted(shares / shares[-1], numbers[1], side="right").clip(max=len(shares) - 1)
        choice[numbers[0] >= self.probability] = -1
        view = Transform.identity(len(key.samples), size)
        for index, augmenter in enumerate(self.augmenters):
            view = view.then(augmenter.draw(key.child(index), size).where(choice == index))
        return view


def is_number(value: object) -> bool:
    """Whether it is a finite number that a float can hold, and not a truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max  # type: ignore[operator]


def check_probability(name: str, value: object):
    """Raises ValueError, which names it, for anything but a number from 0 to 1."""
    if not (is_number(value) and 0 <= value <= 1):  # type: ignore[operator]
        raise ValueError(f"{name}: {value!r} is not a number between 0 and 1")


def ends(value: Range) -> tuple[float, float]:
    """The ends of a range; a constant is both."""
    return value if isinstance(value, tuple) else (value, value)
