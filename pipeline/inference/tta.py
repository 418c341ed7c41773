"""The views of a prediction: fixed-parameter replays of augmenters, the same for every photo.

As plain data, a list of views, each a list of augmenters as in a recipe, with constants for ranges; [] is the photo
as it is. A view may be {"augment": [...], "weight": 2} to be weighted by hand.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from augment import Chain, Key, Transform, parse_augmenters
from augment.augmenters import is_number
from augment.borrowed import check_sizes
from pipeline.errors import UserError
from pipeline.files import read_plain

NUM_DRAWS = 64  # of a random view: they are never all the same by chance


class View(Protocol):
    """What is shown of each photo."""

    def of_block(self, block: slice, size: int) -> Transform:
        """The view of a block of the photos that are predicted, in images of `size` pixels."""


@dataclass(frozen=True)
class FixedView:
    """A chain that always draws the same view, its plain data, and its weight by hand."""

    plain: Any
    chain: Chain
    weight: float = 1.0

    @classmethod
    def identity(cls) -> "FixedView":
        return cls([], Chain(()))

    def of(self, batch: int, size: int) -> Transform:
        """The view of `batch` images of `size` pixels."""
        return self.chain.draw(Key(0, 0, np.zeros(batch, np.int64)), (size, size))

    def of_block(self, block: slice, size: int) -> Transform:
        return self.of(block.stop - block.start, size)

    @property
    def name(self) -> str:
        """Such as "Mirror, Affine rotation 8"."""
        parts = []
        for entry in self.plain:
            ((name, values),) = entry.items()
            said = [f"{parameter} {value}" for parameter, value in (values or {}).items() if parameter != "probability"]
            parts.append(" ".join([name.removesuffix("Augmenter"), *said]))
        return ", ".join(parts) or "as it is"


def parse_views(entries: Any, *, size: int, mirroring: bool, source: str) -> list[FixedView]:
    """Views from plain data, in a fixed order, so that the order in which they are given changes nothing.

    Mirrored views are left out if there are no flip indices. Raises UserError, naming `source` and the view, for one
    that is no list of augmenters, is random, changes the size or cannot be brought home.
    """
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{source}: found {entries!r}, allowed is a list of views, each a list of augmenters")
    views = [_parse_view(entry, size, f"{source}: view {index}") for index, entry in enumerate(entries)]
    usable = [view for view in views if mirroring or not view.of(1, size).mirrored.any()]
    if not usable:
        raise UserError(f"{source}: all views are mirrored, and this run has no flip indices")
    return sorted(usable, key=lambda view: (len(view.plain), json.dumps(view.plain), view.weight))


def read_views(path: Path) -> Any:
    """Plain data of views from a JSON file. Raises UserError if it cannot be read."""
    return read_plain(path, said=f"--views {path}", takes="a JSON list of views, each a list of augmenters")


def _has_random_probability(plain):
    """Whether plain data of augmenters has a probability between 0 and 1, however rarely it makes a difference; with a
    seed of its own, what is drawn is always the same."""
    if isinstance(plain, dict) and plain.get("seed") is None:
        probability = plain.get("probability", 1)
        return (is_number(probability) and 0 < probability < 1) or any(map(_has_random_probability, plain.values()))
    return isinstance(plain, list) and any(map(_has_random_probability, plain))


def _parse_view(entry, size, name):
    given = entry if isinstance(entry, dict) else {"augment": entry}
    if unknown := sorted(map(str, set(given) - {"augment", "weight"})):
        raise UserError(f"{name} has no {unknown[0]!r}, only augment and weight")
    plain, weight = given.get("augment"), given.get("weight", 1.0)
    if not is_number(weight) or weight <= 0:
        raise UserError(f"{name}: the weight {weight!r} is not a number above 0")
    try:
        chain = parse_augmenters(plain)
        drawn = chain.draw(Key(0, 0, np.arange(NUM_DRAWS)), (size, size))
        drawn.placement.inverse()
        check_sizes(chain, [size])
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    if drawn.size != (size, size):
        raise UserError(f"{name} changes the size of the image")
    if drawn.varies or _has_random_probability(plain):
        raise UserError(
            f"{name} is random; give each parameter a constant, the probability 1, and albumentations a seed"
        )
    return FixedView(plain, chain, float(weight))
