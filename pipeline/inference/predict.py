"""From photos to points: the network on a pack, through one view or several, and its points brought home."""

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch

from augment import Transform, transform_points
from models import LandmarkNet
from pipeline.blocks import blocks
from pipeline.data.loader import prefetch, show
from pipeline.data.pack import Pack, Squares
from pipeline.data.source import HostSource, Source
from pipeline.inference.tta import FixedView
from pipeline.metrics import check_finite, to_photo_coordinates
from pipeline.progress import progress
from pipeline.runtime import Runtime


@torch.no_grad()
def predict_points(
    network: LandmarkNet,
    pack: Pack,
    samples: np.ndarray,
    *,
    runtime: Runtime,
    source: Source | None = None,
    batch_size: int = 128,
    image_size: int | None = None,
    description: str | None = None,
) -> np.ndarray:
    """(N, K, 2) float32 points of the photos at `samples` as they are, in pixels of the photos.

    The network is in eval mode. image_size: of the images that it is shown, where it is not the ROI's.
    """
    points = np.empty((len(samples), len(network.mean_shape), 2), np.float32)
    identity = [FixedView.identity()]
    for block, found, _ in predict_views(
        network,
        pack,
        samples,
        identity,
        None,
        runtime=runtime,
        source=source,
        batch_size=batch_size,
        image_size=image_size,
        description=description,
    ):
        points[block] = found[0]
    return points


@torch.no_grad()
def predict_views(
    network: LandmarkNet,
    pack: Pack | Squares,
    samples: np.ndarray,
    views: list[FixedView],
    flip_indices: np.ndarray | None,
    *,
    runtime: Runtime,
    source: Source | None = None,
    batch_size: int = 128,
    image_size: int | None = None,
    description: str | None = None,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """For each block of `samples`, which is a slice of them: what each view finds.

    Yields the slice, (V, B, K, 2) float64 points in pixels of the photos, and (V, B, K) bool: False for a point that
    the view has cropped out, of which it can say nothing. The next warp is done while the network computes. With a
    `description` the progress is shown.

    source: of the photos' squares; by default they are read from the pack.

    All predictions of a network come from here. Raises UserError, naming the photo, for one that is not a number:
    further on it would look like a point whose truth is missing.
    """
    assert not network.training
    batches = blocks(len(samples), batch_size)
    source = source or HostSource(pack.squares, runtime.device)

    def make(job):
        block, fixed = job
        squares = source.take(samples[block])
        view = fixed.of(len(squares), pack.roi.size)
        return view, show(pack.roi, view, image_size).warp(squares)

    warped = prefetch(make, ((block, view) for block in batches for view in views))
    with progress(len(samples), description, unit="photo") if description else nullcontext() as bar:
        for block in batches:
            found = []
            for _ in views:
                view, images = next(warped)
                with runtime.autocast():
                    found.append((view, network(images)))
            home = [_bring_back(view, points.cpu().numpy(), flip_indices) for view, points in found]
            photo_to_image = pack.photo_to_image[samples[block]]
            points = np.stack([to_photo_coordinates(photo_to_image, points) for points, _ in home])
            check_finite(points, pack.names[samples[block]])
            yield block, points, np.stack([seen for _, seen in home])
            if bar:
                bar.update(len(photo_to_image))


def _bring_back(view: Transform, found: np.ndarray, flip_indices: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(B, K, 2) points of the view's images as points of the ROI, and whether the view has not cropped them out.

    A point outside the ROI has been cropped by all views alike, and counts in each.
    """
    home = view.placement.inverse().move(found, flip_indices)
    whole = Transform.identity(len(home), view.source)
    return home, view.inside(transform_points(view.geometry, home)) | ~whole.inside(home)


def mean_shape_points(network: LandmarkNet, pack: Pack, asked: np.ndarray) -> np.ndarray:
    """(N, L, 2) asked points of the mean shape, in pixels of the pack's typical photo: for photos that are broken."""
    shape = to_photo_coordinates(np.median(pack.photo_to_image, axis=0)[None], network.mean_shape.cpu().numpy())[0]
    return shape[asked].astype(np.float32)
