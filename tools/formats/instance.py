"""What all formats share: a labelled object on a photo, as its format has it, and a prediction to write back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Box = tuple[float, float, float, float]
Name = TypeVar("Name", str, tuple[str, ...])


@dataclass(frozen=True)
class Instance:
    """One face, body or other object on a photo.

    name: of the photo, a relative path. photo: its file, or its (height, width, 3) pixels if the format holds them.
    points: (x, y) by name in the coordinates of the format, without those that are missing. hidden: names of points
    that are known but covered. box: left, top, right, bottom. group: what must not be on both sides of a split.
    about: what the way back needs, as plain data.
    """

    name: str
    photo: Path | np.ndarray
    points: dict[str, tuple[float, float]]
    hidden: frozenset[str] = frozenset()
    box: Box | None = None
    group: str = ""
    about: Any = None


@dataclass(frozen=True)
class Source:
    """All instances of a file or folder, and the names of the points in order."""

    instances: list[Instance]
    point_names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """A prediction: (K, 2) points in the coordinates of the format, and what the instance kept for the way back."""

    name: str
    points: np.ndarray
    about: Any


@dataclass(frozen=True)
class Format:
    """read: takes a source and the folder of its photos, or None for where they usually lie.

    write: takes the source that was read, where to write, the predictions, and the names of the points.
    first_pixel: where the centre of the first pixel lies in the format's coordinates: 0 or 1 if pixels are counted
    from there, and ½ if lengths are measured from the corner of the photo.
    """

    read: Callable[[Path, Path | None], Source]
    write: Callable[[Path, Path, list[Answer], list[str]], None]
    first_pixel: float = 0.0


def numbered(count: int) -> list[str]:
    """Names for points that have none."""
    return [str(number) for number in range(count)]


def in_order(names: Iterable[Name]) -> list[Name]:
    """Each name once, in the order of its first use."""
    return list(dict.fromkeys(names))
