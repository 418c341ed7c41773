"""Augmenters borrowed from albumentations; see `foreign.py` for what becomes of them."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from augment import foreign
from augment.augmenters import check_probability
from augment.foreign import Foreign
from augment.key import Key
from augment.transform import Transform

PLACE = "AlbumentationsAugmenter.transforms"


@dataclass(frozen=True, eq=False)
class AlbumentationsAugmenter:
    """Any transform or `Compose` of albumentations 2.0.8 that moves points by a matrix, or not at all.

    With a `seed` it always draws the same. Raises ValueError at once, with the reason, for any other transform.
    """

    transform: Any
    probability: float = 1.0
    seed: int | None = None
    parts: list[tuple[Any, bool]] = field(init=False)

    def __post_init__(self):
        check_probability("AlbumentationsAugmenter.probability", self.probability)
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise ValueError(f"AlbumentationsAugmenter.seed: {self.seed!r} is not a whole number of at least 0")
        object.__setattr__(self, "parts", foreign.parts_of(self.transform))

    @classmethod
    def parse(
        cls, transforms: list | None = None, probability: float = 1.0, seed: int | None = None
    ) -> "AlbumentationsAugmenter":
        """From plain data: a list of {class: {argument: value}}; composites have a list of these as `transforms`."""
        return cls(foreign.albumentations().Compose(_parse_all(transforms)), probability, seed)

    def draw(self, key: Key, size: tuple[int, int]) -> Transform:
        if self.seed is not None:
            key = Key(self.seed, 0, np.zeros(len(key.samples), np.int64))
        view = Transform.identity(len(key.samples), size)
        for index, (transform, moves) in enumerate(self.parts):
            seeds = foreign.seeds(key.child(index))
            if moves:
                found = [foreign.probe(transform, int(seed), view.size) for seed in seeds]
                sizes = {given for _, given in found}
                if len(sizes) > 1:
                    raise ValueError(f"albumentations {type(transform).__name__} gives images of several sizes")
                following = Transform.of(np.stack([matrix for matrix, _ in found]), view.size, sizes.pop())
            else:
                spec = np.full(len(seeds), foreign.to_json(transform))
                following = Transform.identity(len(seeds), view.size).with_effect(Foreign(spec, seeds))
            view = view.then(following)
        return view if self.probability == 1 else view.where(key.uniform(1)[:, 0] < self.probability)


def check_sizes(sampler: Any, sizes: Iterable[int]):
    """Raises ValueError for an augmenter, or one within it, with a transform of pixels that fails on square images of
    one of these sizes. Images may be shown smaller than they are drawn for, and effects run on them as they are shown.
    """
    for inner in getattr(sampler, "augmenters", ()):
        check_sizes(inner, sizes)
    still = [transform for transform, moves in getattr(sampler, "parts", ()) if not moves]
    for transform, size in product(still, sizes):
        foreign.check_at(foreign.to_json(transform), (size, size))


def _parse_all(entries):
    if not isinstance(entries, list):
        raise ValueError(f"{PLACE}: found {entries!r}, allowed is a list of {{class: {{argument: value}}}}")
    return [_parse(entry) for entry in entries]


def _parse(entry):
    package = foreign.albumentations()
    ((name, arguments),) = entry.items() if isinstance(entry, dict) and len(entry) == 1 else [(None, None)]
    if not isinstance(name, str) or not isinstance(arguments, dict | None):
        raise ValueError(f"{PLACE}: {entry!r} is not {{class: {{argument: value}}}}")
    kind = getattr(package, name, None)
    if not (isinstance(kind, type) and issubclass(kind, package.BasicTransform | package.BaseCompose)):
        raise ValueError(f"{PLACE}: albumentations {package.__version__} has no {name!r}")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in (arguments or {}).items()}
    if "transforms" in arguments:
        arguments["transforms"] = _parse_all(entry[name]["transforms"])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Argument")  # it only warns of arguments that it does not know or take
        try:
            return kind(**arguments)
        except (TypeError, ValueError, NotImplementedError, UserWarning) as error:
            raise ValueError(f"{PLACE}: {name}: {_reason(error)}") from error


def _reason(error):
    """One line of an error; pydantic has the field on its second line and the reason on its third."""
    first, *others = str(error).splitlines()
    return f"{others[0]}: {others[1].split('[type=')[0].strip()}" if len(others) > 1 else first
