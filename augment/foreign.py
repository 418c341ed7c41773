"""Any transform of albumentations 2.0.8 as an augmenter. The package is imported only if a recipe names one.

A transform that only changes pixels is kept as its own description and a seed, and replayed. One that moves points is
probed with some of them and becomes the matrix that moves them: the image then goes through the one warp of the chain,
with our resampling and border. One that moves points by no matrix (elastic, thin-plate, grid …) has no exact inverse
and is refused.
"""

import copy
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import torch

from augment.effects import Effect
from augment.geometry import matrices, transform_points

if TYPE_CHECKING:
    from augment.key import Key

MAX_RESIDUAL = 1e-2  # pixels; their keypoints are float32
NUM_PROBES = 20
PROBE_SIZE = (480, 640)


@dataclass(frozen=True, eq=False)
class Foreign(Effect):
    """An albumentations transform of pixels: its description as JSON, spec (B,), and the seed it is run with, (B,)."""

    spec: np.ndarray
    seed: np.ndarray
    neutral: ClassVar = {"spec": "", "seed": 0}

    def on_image(self, image, row):
        transform = _from_json(str(self.spec[row]))
        transform.set_random_seed(int(self.seed[row]))
        image[:] = transform(image=image)["image"]

    def on_tensor(self, images):
        """Applies it on the CPU, since albumentations supports no other device."""
        pixels = images.to(torch.uint8).cpu().permute(0, 2, 3, 1).contiguous().numpy()
        for row in np.flatnonzero(self.active()):
            self.on_image(pixels[row], row)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(images.device).float()


def albumentations() -> Any:
    """The package, which only those who use it need. Raises ValueError if it is not installed."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations as package
    except ImportError as error:
        raise ValueError("AlbumentationsAugmenter needs: pip install albumentations==2.0.8") from error
    return package


def parts_of(transform: Any) -> list[tuple[Any, bool]]:
    """The transforms of a sequence, each with whether it moves points.

    Raises ValueError for one that mixes the two, moves points by no matrix, or does not replay.
    """
    package = albumentations()
    if isinstance(transform, package.Compose | package.Sequential) and transform.p == 1:
        return [part for child in transform.transforms for part in parts_of(child)]
    leaves = [_always_applied(leaf) for leaf in _leaves(transform) if type(leaf) is not package.NoOp]
    moves = [_moves_points(leaf) for leaf in leaves]
    if len(set(moves)) > 1:
        name = type(transform).__name__
        raise ValueError(f"albumentations {name} draws among what moves points and what does not; give each its own")
    for leaf, moving in zip(leaves, moves, strict=True):
        if not moving:
            _check_pixels(leaf)
    return [(transform, any(moves))]


def probe(transform: Any, seed: int, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The (3, 3) matrix by which a transform with this seed moves points, and the size that it gives.

    Raises ValueError if no matrix does.
    """
    package = albumentations()
    name = f"albumentations {type(transform).__name__}"
    height, width = size
    grid = np.stack(np.meshgrid(np.linspace(0, width - 1, 5), np.linspace(0, height - 1, 5)), axis=-1).reshape(-1, 2)
    params = package.KeypointParams(format="xy", remove_invisible=False)
    composed = package.Compose([transform], keypoint_params=params)
    composed.set_random_seed(seed)
    try:
        result = composed(image=np.zeros((*size, 3), np.uint8), keypoints=grid)
    except _failures() as error:
        raise ValueError(f"{name} fails on a plain image of {height} x {width} pixels: {error}") from error
    moved = np.asarray(result["keypoints"], np.float64)
    if moved.shape != grid.shape or not np.isfinite(moved).all():
        raise ValueError(f"{name} moves points by no matrix: it loses some")
    solution = np.linalg.lstsq(np.column_stack((grid, np.ones(len(grid)))), moved, rcond=None)[0]
    matrix = matrices([tuple(solution[:, 0]), tuple(solution[:, 1])])[0]
    if _residual(matrix, grid, moved) > MAX_RESIDUAL:
        found = cv2.findHomography(grid, moved)[0]
        matrix = matrix if found is None else found * np.sign(found[2] @ (width / 2, height / 2, 1))
        if (residual := _residual(matrix, grid, moved)) > MAX_RESIDUAL:
            raise ValueError(
                f"{name} moves points by no matrix ({residual:.2f} px from the "
                "nearest one), so it has no exact inverse; use it on nothing that has points"
            )
    return matrix, result["image"].shape[:2]


def seeds(key: "Key") -> np.ndarray:
    """(B,) seeds for generators that have a state."""
    return (key.uniform(1)[:, 0] * 2**32).astype(np.int64)


def to_json(transform: Any) -> str:
    return json.dumps(albumentations().to_dict(albumentations().Compose([transform])))


@lru_cache(maxsize=64)
def _from_json(spec):
    return albumentations().from_dict(json.loads(spec))


@lru_cache(maxsize=256)
def check_at(spec: str, size: tuple[int, int]):
    """Raises ValueError for a transform of pixels that fails on images of a size, or changes their size."""
    transform = albumentations().from_dict(json.loads(spec))  # of its own: that of `_from_json` may be in use
    name = " and ".join(type(leaf).__name__ for leaf in _leaves(transform))
    where = f"albumentations {name}, on images of {size[0]} x {size[1]} pixels"
    for seed in range(NUM_PROBES):
        transform.set_random_seed(seed)
        try:
            changed = transform(image=np.full((*size, 3), 128, np.uint8))["image"]
        except _failures() as error:
            raise ValueError(f"{where}, fails: {str(error).strip().splitlines()[0]}") from error
        if changed.shape[:2] != size:
            raise ValueError(f"{where}, gives {changed.shape[0]} x {changed.shape[1]} pixels")


def _residual(matrix, points, moved):
    return np.abs(transform_points(matrix[None], points[None])[0] - moved).max()


def _leaves(transform):
    children = getattr(transform, "transforms", None)
    return [transform] if children is None else [leaf for child in children for leaf in _leaves(child)]


def _always_applied(leaf):
    """The same transform with probability 1, so that what it does only now and then is checked too."""
    sure = copy.deepcopy(leaf)
    sure.p = 1
    return sure


def _moves_points(leaf):
    package = albumentations()
    dropouts = package.CoarseDropout.__mro__[1]  # they cover pixels; the points stay where they are
    if not isinstance(leaf, package.DualTransform) or isinstance(leaf, dropouts | package.PixelDropout):
        return False
    found = [probe(leaf, seed, PROBE_SIZE) for seed in range(NUM_PROBES)]
    return any(size != PROBE_SIZE or not np.allclose(matrix, np.eye(3), atol=1e-4) for matrix, size in found)


def _check_pixels(leaf):
    """Raises ValueError for what cannot be replayed from its description, or gives anything but pixels."""
    name = f"albumentations {type(leaf).__name__}"
    plain = np.full((*PROBE_SIZE, 3), 128, np.uint8)
    try:
        changed = _from_json(to_json(leaf))(image=plain)["image"]
    except _failures() as error:
        raise ValueError(f"{name} cannot be replayed from its description: {error}") from error
    if getattr(changed, "dtype", None) != plain.dtype or changed.shape != plain.shape:
        raise ValueError(f"{name} does not give uint8 pixels of the same size; leave it out")


def _failures():
    """What a transform may raise."""
    too_large = albumentations().augmentations.crops.transforms.CropSizeError
    return ValueError, TypeError, RuntimeError, LookupError, AttributeError, cv2.error, too_large
