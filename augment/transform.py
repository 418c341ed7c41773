"""A `Transform`: one draw of an augmentation for a batch of images, as plain data.

It can be applied, composed, inverted, written to JSON and read back, and always does the same. Points are moved by one
matrix per image, so a chain is one warp. Everything else is an effect; effects run after the warp, in order.
"""

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from augment.effects import Blur, Colour, Effect, Jpeg, LowResolution, Noise, Tone
from augment.foreign import Foreign
from augment.geometry import IDENTITY, mirror, resize, transform_points
from augment.overlay import Overlay
from augment.warp import each_image, grid_sample, on_device, output_to_source, warp_image

EFFECTS = {kind.__name__: kind for kind in (Blur, Colour, Foreign, Jpeg, LowResolution, Noise, Overlay, Tone)}


@dataclass(frozen=True, eq=False)
class Transform:
    """What happens to each of B images.

    geometry: (B, 3, 3) float64, source pixel -> output pixel.
    source, size: (height, width) before and after.
    effects: what is done to the warped image, in order, with neighbours merged where they can be.
    """

    geometry: np.ndarray
    source: tuple[int, int]
    size: tuple[int, int]
    effects: tuple[Effect, ...] = ()

    @classmethod
    def identity(cls, batch: int, size: tuple[int, int]) -> "Transform":
        return cls.of(np.repeat(IDENTITY[None], batch, axis=0), size)

    @classmethod
    def of(cls, geometry: np.ndarray, source: tuple[int, int], size: tuple[int, int] | None = None) -> "Transform":
        """A view of matrices alone; the size stays as it is unless one is given."""
        height, width = source
        return cls(geometry, (height, width), (height, width) if size is None else (size[0], size[1]))

    def with_effect(self, effect: Effect) -> "Transform":
        """The view, and then an effect."""
        return Transform(self.geometry, self.source, self.size, _joined(self.effects, (effect,)))

    @property
    def placement(self) -> "Transform":
        """The view without its effects: where things go, and not how they look."""
        return Transform.of(self.geometry, self.source, self.size)

    def __len__(self) -> int:
        return len(self.geometry)

    @cached_property
    def mirrored(self) -> np.ndarray:
        """(B,) bool: whether left and right are swapped.

        That is the determinant's sign if the last row is positive for the points of the frame, as it is for all
        augmenters, and for products and inverses of their matrices.
        """
        return np.linalg.det(self.geometry) < 0

    @property
    def varies(self) -> bool:
        """Whether any image has a different view than the first one."""
        arrays = [self.geometry, *(array for effect in self.effects for array in vars(effect).values())]
        return any((array != array[:1]).any() for array in arrays)

    def where(self, chosen: np.ndarray) -> "Transform":
        """The view of the images where the (B,) mask is true; the others stay as they are."""
        if self.size != self.source and not chosen.all():
            raise ValueError("what changes the size of the image does so to all images or to none")
        geometry = np.where(chosen[:, None, None], self.geometry, IDENTITY)
        return Transform(geometry, self.source, self.size, tuple(effect.where(chosen) for effect in self.effects))

    def unmirrored(self) -> "Transform":
        """The view with mirrored images mirrored once more, for points whose partners are not known."""
        again = Transform.of(np.tile(mirror(self.size[1]), (len(self), 1, 1)), self.size)
        return self.then(again.where(self.mirrored)) if self.mirrored.any() else self

    def then(self, following: "Transform") -> "Transform":
        """The view that does this one and then `following`, in one warp."""
        assert self.size == following.source, f"a view of {following.source} cannot follow one that gives {self.size}"
        if following.size == self.size and len(following) == len(self) and (following.geometry == IDENTITY).all():
            return Transform(self.geometry, self.source, self.size, _joined(self.effects, following.effects))
        seen = tuple(effect.through(following.geometry, self.size) for effect in self.effects)
        return Transform(
            following.geometry @ self.geometry, self.source, following.size, _joined(seen, following.effects)
        )

    def resized(self, size: tuple[int, int]) -> "Transform":
        """The view with its images stretched to (height, width)."""
        if size == self.size:
            return self
        return self.then(Transform.of(np.repeat(resize(self.size, size), len(self), axis=0), self.size, size))

    def inverse(self) -> "Transform":
        """The view that brings points back, and images as far as their content is still there.

        Raises ValueError if it cannot: for a matrix that squeezes the image flat, a colour map that loses a colour, or
        an effect other than colour. `view.placement.inverse()` brings points back whatever the effects.
        """
        effects = [effect for effect in self.effects if effect.active().any()]
        colours = [effect.inverse() for effect in reversed(effects) if isinstance(effect, Colour)]
        if len(colours) < len(effects):
            lost = next(effect for effect in effects if not isinstance(effect, Colour))
            raise ValueError(f"{type(lost).__name__} cannot be undone; the placement of the view can")
        if not (np.linalg.cond(self.geometry) < 1e10).all():
            raise ValueError("the geometry of this view has no inverse")
        return Transform(np.linalg.inv(self.geometry), self.size, self.source, _joined((), colours))

    def warp(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, *source) uint8 images to (B, 3, *size): one resampling, then the effects.

        On the CPU the result is in channels-last order.
        """
        assert images.dtype == torch.uint8
        expected = (len(self), 3, *self.source)
        assert tuple(images.shape) == expected, f"images of {tuple(images.shape)} for a view of {expected}"
        return self._warp_with_opencv(images) if images.device.type == "cpu" else self.warp_with_torch(images)

    def _warp_with_opencv(self, images):
        active = [(effect, effect.active().tolist()) for effect in self.effects]
        ways = output_to_source(self.geometry, self.source, self.size)

        def change(row, source, target):
            warp_image(source, target, *ways[row])
            for effect, rows in active:
                if rows[row]:
                    effect.on_image(target, row)

        return each_image(change, images, self.size)

    def warp_with_torch(self, images: torch.Tensor) -> torch.Tensor:
        """`warp` on any device; an effect computes only the images that it changes."""
        warped = grid_sample(images.float(), self.geometry, self.size).round_()
        for effect in self.effects:
            active = effect.active()
            if len(active) and active.all():
                warped = effect.on_tensor(warped)
            elif active.any():
                rows = on_device(np.flatnonzero(active), warped.device)
                warped[rows] = effect.at(active).on_tensor(warped[rows])
        return warped.to(torch.uint8)

    def move(self, points: np.ndarray, flip_indices: np.ndarray | None = None) -> np.ndarray:
        """(B, K, 2) points of the source to points of the output, float64, in pixels.

        Points of a mirrored image also change their numbers: `flip_indices[k]` is the point that k becomes.
        Without them, a mirrored view raises ValueError.
        """
        moved = transform_points(self.geometry, points)
        if self.mirrored.any():
            if flip_indices is None:
                raise ValueError(
                    "a mirrored view moves points only with the flip indices, the left/right partner of each"
                )
            for row in np.flatnonzero(np.broadcast_to(self.mirrored, len(moved))):
                moved[row] = moved[row].take(flip_indices, axis=0)  # six times as fast as an index
        return moved

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(B, K) bool: which points of the output lie in its frame. A missing point does not."""
        height, width = self.size
        with np.errstate(invalid="ignore"):
            within = (points >= -0.5) & (points <= (width - 0.5, height - 0.5))
        return within[..., 0] & within[..., 1]

    def to_json(self) -> str:
        effects = [
            {"kind": type(effect).__name__} | {name: np.asarray(array).tolist() for name, array in vars(effect).items()}
            for effect in self.effects
        ]
        fields = {"geometry": self.geometry.tolist(), "source": self.source, "size": self.size, "effects": effects}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "Transform":
        fields = json.loads(text)
        effects = [
            EFFECTS[effect.pop("kind")](**{name: np.array(array) for name, array in effect.items()})
            for effect in fields["effects"]
        ]
        view = cls.of(np.array(fields["geometry"], np.float64), fields["source"], fields["size"])
        return Transform(view.geometry, view.source, view.size, tuple(effects))


def _joined(effects, following):
    """The effects in order, with neighbours merged where they can be."""
    joined = list(effects)
    for effect in following:
        merged = joined[-1].merged(effect) if joined else None
        if merged is None:
            joined.append(effect)
        else:
            joined[-1] = merged
    return tuple(joined)
