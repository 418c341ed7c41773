"""Augmenters that move points: by a matrix, so that a chain of them is a matrix and has an exact inverse."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from augment import geometry
from augment.augmenters import Augmenter, Range
from augment.transform import Transform

POSITIVE = (1e-3, np.inf)


@dataclass(frozen=True, kw_only=True)
class AffineAugmenter(Augmenter):
    """Turns, scales, stretches and shifts about the centre of the image.

    rotation: degrees, clockwise. scale: factor. stretch: width over height, at the same area.
    shift_x, shift_y: shares of the width and of the height.
    """

    rotation: Range = 0.0
    scale: Range = 1.0
    stretch: Range = 1.0
    shift_x: Range = 0.0
    shift_y: Range = 0.0
    bounds: ClassVar = {"scale": POSITIVE, "stretch": POSITIVE}
    factors: ClassVar = ("scale", "stretch")

    def view(self, key, size, drawn):
        wider = drawn["stretch"] ** 0.5
        linear = geometry.rotation(drawn["rotation"]) @ geometry.scaling(drawn["scale"] * wider, drawn["scale"] / wider)
        shift = geometry.translation(drawn["shift_x"] * size[1], drawn["shift_y"] * size[0])
        return Transform.of(shift @ geometry.about_centre(linear, size), size)


@dataclass(frozen=True, kw_only=True)
class MirrorAugmenter(Augmenter):
    """Mirrors left and right. Points then need the flip indices: see `Transform.move`."""

    probability: float = 0.5

    def view(self, key, size, drawn):
        return Transform.of(np.tile(geometry.mirror(size[1]), (len(key.samples), 1, 1)), size)


@dataclass(frozen=True, kw_only=True)
class CropAugmenter(Augmenter):
    """Cuts out a ROI and enlarges it to the size of the image.

    share: of the height and width. x, y: where the ROI lies, from 0 (left, top) to 1 (right, bottom).
    """

    share: Range = 1.0
    x: Range = (0.0, 1.0)
    y: Range = (0.0, 1.0)
    bounds: ClassVar = {"share": (0.01, 1), "x": (0, 1), "y": (0, 1)}

    def view(self, key, size, drawn):
        left, top = (drawn[side] * (1 - drawn["share"]) * size[axis] - 0.5 for side, axis in (("x", 1), ("y", 0)))
        zoom = geometry.scaling(1 / drawn["share"], 1 / drawn["share"])
        return Transform.of(geometry.translation(-0.5, -0.5) @ zoom @ geometry.translation(-left, -top), size)


@dataclass(frozen=True, kw_only=True)
class PerspectiveAugmenter(Augmenter):
    """Tilts the image plane, as a face that turns aside: what is nearer is larger.

    tilt_x, tilt_y: 0.1 makes the right (lower) edge smaller by a factor of 1.1 and the other one larger by 1 / 0.9.
    """

    tilt_x: Range = 0.0
    tilt_y: Range = 0.0
    bounds: ClassVar = {"tilt_x": (-0.45, 0.45), "tilt_y": (-0.45, 0.45)}

    def view(self, key, size, drawn):
        tilt = geometry.matrices(
            [(1, 0, 0), (0, 1, 0), (2 * drawn["tilt_x"] / size[1], 2 * drawn["tilt_y"] / size[0], 1)]
        )
        return Transform.of(geometry.about_centre(tilt, size), size)
