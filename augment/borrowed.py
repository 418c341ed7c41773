"""Augmenters borrowed from albumentations; see `foreign.py` for what becomes of them."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from augment import foreign
from augment.foreign import Foreign
from augment.key import Key
from augment.view import View


@dataclass(frozen=True, eq=False)
class AlbumentationsAugmenter:
    """Any transform or `Compose` of albumentations 2.0.8 with a matrix or without influence on points.

    Raises ValueError at once, with the reason, for one that has neither.
    """

    transform: Any
    probability: float = 1.0
    parts: list[tuple[Any, bool]] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "parts", foreign.parts_of(self.transform))

    @classmethod
    def parse(cls, transforms: list, probability: float = 1.0) -> "AlbumentationsAugmenter":
        """From plain data: a list of {class: {argument: value}}; composites have a list of these as `transforms`."""
        return cls(foreign.albumentations().Compose([_parse(entry) for entry in transforms]), probability)

    def draw(self, key: Key, size: tuple[int, int]) -> View:
        view = View.identity(len(key.samples), size)
        for place, (transform, moves) in enumerate(self.parts):
            seeds = foreign.seeds(key.child(place))
            if moves:
                found = [foreign.probe(transform, int(seed), view.size) for seed in seeds]
                sizes = {given for _, given in found}
                if len(sizes) > 1:
                    raise ValueError(f"albumentations {type(transform).__name__} gives images of several sizes")
                following = View.of(np.stack([matrix for matrix, _ in found]), view.size, sizes.pop())
            else:
                spec = np.full(len(seeds), foreign.to_json(transform))
                following = View.identity(len(seeds), view.size).with_effect(Foreign(spec, seeds))
            view = view.then(following)
        return view if self.probability == 1 else view.only(key.uniform(1)[:, 0] < self.probability)


def _parse(entry):
    package = foreign.albumentations()
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise ValueError(f"AlbumentationsAugmenter.transforms: {entry!r} is not {{class: {{argument: value}}}}")
    ((name, arguments),) = entry.items()
    kind = getattr(package, name, None)
    if not (isinstance(kind, type) and issubclass(kind, package.BasicTransform | package.BaseCompose)):
        raise ValueError(f"AlbumentationsAugmenter.transforms: albumentations {package.__version__} has no {name!r}")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in (arguments or {}).items()}
    if "transforms" in arguments:
        arguments["transforms"] = [_parse(child) for child in arguments["transforms"]]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Argument")  # what it does not know or take it only warns of
        try:
            return kind(**arguments)
        except (TypeError, ValueError, UserWarning) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"AlbumentationsAugmenter.transforms: {name}: {reason}") from error
