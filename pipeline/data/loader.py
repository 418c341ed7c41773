"""Batches for training: photos of the pack, a view drawn for each, one warp, and the points where they went.

The order of an epoch and the draws are functions of (seed, epoch), so that a run can be resumed anywhere. The next
batch is prefetched while the network computes.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from augment import Chain, Key, RegionOfInterest, Transform, parse_augmenters, transform_points
from augment.borrowed import check_sizes
from augment.geometry import linear_part, scale_of
from augment.warp import on_device
from pipeline.data.pack import Pack
from pipeline.data.source import Source
from pipeline.errors import UserError
from pipeline.recipe import Recipe

NUM_PROBES = 64  # draws that show whether a chain keeps the size, and whether it mirrors

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Batch:
    """B augmented photos.

    images: (B, 3, S, S) uint8, or smaller ones that show the same. points: (B, K, 2) float32 in pixels of the images of
    S pixels, NaN where missing.
    inside: (B, K) bool, which of the points lie in the frame.
    linear: (B, 2, 2) float32, the linear part of the view in its middle, which turns a direction and may mirror it.
    scale: (B,) float32, pixels of the photo per pixel of the image, in the middle of the ROI.
    samples: (B,) indices in the pack.
    """

    images: torch.Tensor
    points: torch.Tensor
    inside: torch.Tensor
    linear: torch.Tensor
    scale: torch.Tensor
    samples: np.ndarray

    def part(self, rows: slice) -> "Batch":
        return Batch(*(value[rows] for value in vars(self).values()))

    def as_shown(self, shift: torch.Tensor) -> "Batch":
        """The batch with its points where the images show them, if labels are off by a shift of (2,) pixels in images
        of the photos as they are."""
        return replace(self, points=self.points - (self.linear @ shift)[:, None])


def parse_chain(recipe: Recipe) -> Chain:
    """The recipe's augmenters. Raises UserError for one that makes no sense, changes the size of the image, or fails on
    images of one of the recipe's sizes."""
    size = (recipe.photos.size, recipe.photos.size)
    try:
        chain = parse_augmenters(recipe.augmentation.augment)
        check_sizes(chain, {size[0], *(smaller for _, smaller in recipe.photos.progressive)})
        found = chain.draw(Key(0, 0, np.arange(NUM_PROBES)), size).size
    except ValueError as error:
        raise UserError(f"augment: {error}") from error
    if found != size:
        raise UserError(
            f"augment: its images have {found} pixels, but --size is {recipe.photos.size}; leave out what changes the "
            "size"
        )
    return chain


def mirrors(chain: Chain, size: int) -> bool:
    """Whether some views that the chain draws of images of a size are mirrored."""
    return bool(chain.draw(Key(0, 0, np.arange(NUM_PROBES)), (size, size)).mirrored.any())


def epoch_order(samples: np.ndarray, *, seed: int, epoch: int, batch_size: int) -> list[np.ndarray]:
    """The samples of an epoch in random order, cut into full batches; what is left over has its turn another time.

    A batch is that of all ranks, each of which takes a part of it.
    """
    order = np.random.default_rng((seed, epoch)).permutation(samples)
    num_batches = max(1, len(order) // batch_size)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(num_batches)]


def make_batch(
    pack: Pack,
    source: Source,
    samples: np.ndarray,
    view: Transform,
    flip_indices: np.ndarray | None,
    *,
    image_size: int | None = None,
) -> Batch:
    """The photos of `samples` and their points through `view`, on the source's device.

    image_size: the size of the images, if it is not the view's.
    """
    photo_to_image = pack.photo_to_image[samples]
    points = view.move(transform_points(photo_to_image, pack.values[samples]), flip_indices)
    scale = 1 / (scale_of(view.geometry, view.source) * scale_of(photo_to_image))
    squares = source.take(samples)
    device = squares.device
    return Batch(
        show(pack.roi, view, image_size).warp(squares),
        on_device(points, device, np.float32),
        on_device(view.inside(points), device),
        on_device(linear_part(view.geometry, view.source), device, np.float32),
        on_device(scale, device, np.float32),
        samples,
    )


def training_batches(
    pack: Pack,
    source: Source,
    batches: list[np.ndarray],
    chain: Chain,
    flip_indices: np.ndarray | None,
    *,
    seed: int,
    epoch: int,
    size_of_batch: Callable[[int], int] | None = None,
) -> Iterator[Batch]:
    """The batches of samples that `epoch_order` gives, each through the view that is drawn for it.

    size_of_batch: the size of the images of each batch, if it is not that of the ROI.
    """
    size = pack.roi.size

    def make(shown):
        samples, image_size = shown
        view = chain.draw(Key(seed, epoch, samples), (size, size))
        view = view.unmirrored() if flip_indices is None else view
        return make_batch(pack, source, samples, view, flip_indices, image_size=image_size)

    # in the thread that trains, whose clock may decide the size, so that all ranks choose the same
    sizes = (size_of_batch(number) if size_of_batch else None for number in range(len(batches)))
    return prefetch(make, zip(batches, sizes, strict=True))


def show(roi: RegionOfInterest, view: Transform, image_size: int | None) -> Transform:
    """A view of the ROI as a view of the square, with images of `image_size` pixels each way if that is given.

    Points stay in pixels of the view: a smaller image shows the same, at a fraction of the cost.
    """
    shown = roi.then(view)
    return shown.resized((image_size, image_size)) if image_size else shown


def prefetch(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """`map(make, items)`, with a thread that makes the next one while the last one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for item in items:
            coming, ready = pool.submit(make, item), coming
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
