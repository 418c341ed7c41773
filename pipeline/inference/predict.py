"""From photos to points: the network on a pack, through one view or several, and its points brought home."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from augment import Transform, transform_points
from augment.geometry import scale_of, translation
from models import Prediction
from pipeline.blocks import blocks
from pipeline.data.loader import prefetch, show
from pipeline.data.pack import Pack, Squares
from pipeline.data.source import HostSource, Source
from pipeline.inference.onnx_network import Predictor
from pipeline.inference.tta import FixedView, View
from pipeline.memory import is_out_of_memory
from pipeline.metrics import check_finite, to_photo_coordinates
from pipeline.progress import progress
from pipeline.runtime import Runtime


class Found(NamedTuple):
    """What V views find in a block of samples, which is a slice of them.

    points: (V, B, K, 2) float64 in pixels of the photos. counts: (V, B, K) bool, False for a point that the view has
    cropped out, and so says nothing about. variances: (V, B, K) of each coordinate, in squared pixels of the photos, by
    the scale that the network has learned; 0 if it has learned none.
    """

    block: slice
    points: np.ndarray
    counts: np.ndarray
    variances: np.ndarray


@torch.no_grad()
def predict_points(
    network: Predictor,
    pack: Pack | Squares,
    samples: np.ndarray,
    *,
    runtime: Runtime,
    source: Source | None = None,
    batch_size: int = 128,
    image_size: int | None = None,
    description: str | None = None,
) -> np.ndarray:
    """(N, K, 2) float32 points of the photos at `samples`, as they are, in pixels of the photos.

    The network is in eval mode. image_size: of the images that it is shown, if not the ROI's.
    """
    points = np.empty((len(samples), len(network.mean_shape), 2), np.float32)
    for found in predict_views(
        network,
        pack,
        samples,
        [FixedView.identity()],
        None,
        runtime=runtime,
        source=source,
        batch_size=batch_size,
        image_size=image_size,
        description=description,
    ):
        points[found.block] = found.points[0]
    return points


@torch.no_grad()
def predict_views(
    network: Predictor,
    pack: Pack | Squares,
    samples: np.ndarray,
    views: Sequence[View],
    flip_indices: np.ndarray | None,
    *,
    runtime: Runtime,
    source: Source | None = None,
    batch_size: int = 128,
    image_size: int | None = None,
    description: str | None = None,
) -> Iterator[Found]:
    """What each view finds, for each block of `samples`. The next warp is done while the network computes. With a
    `description` the progress is shown.

    source: of the photos' squares; by default they are read from the pack.

    All predictions of a network come from here. Raises UserError, naming the photo, for one that is not a number: later
    it would look like a point whose truth is missing.
    """
    assert not network.training
    at_once = batch_size
    batches = blocks(len(samples), batch_size)
    shift = translation(*-network.shift.detach().cpu().numpy()[:, None].astype(np.float64))  # from labels to the image
    source = source or HostSource(pack.squares, runtime.device)

    @lru_cache(maxsize=1)  # the views of a block come one after the other
    def take(start, stop):
        return source.take(samples[start:stop])

    def make(job):
        block, fixed = job
        squares = take(block.start, block.stop)
        view = fixed.of_block(block, pack.roi.size)
        return view, show(pack.roi, view, image_size).warp(squares)

    jobs = ((block, view) for block in batches for view in views)
    bars = progress(len(samples), description, unit="photo")
    with closing(prefetch(make, jobs)) as warped, bars as bar:  # closed here, not by chance in the thread of its pool
        for block in batches:
            found = []
            for _ in views:
                view, images = next(warped)
                prediction, at_once = _in_parts(network, images, at_once, runtime)
                found.append((view, prediction))
            photo_to_image = shift @ pack.photo_to_image[samples[block]]
            home = [_bring_back(view, prediction, photo_to_image, flip_indices) for view, prediction in found]
            points, counts, variances = (np.stack(arrays) for arrays in zip(*home, strict=True))
            check_finite(points, pack.names[samples[block]])
            yield Found(block, points, counts, variances)
            bar.update(len(photo_to_image))


def _in_parts(network: Predictor, images: torch.Tensor, at_once: int, runtime: Runtime) -> tuple[Prediction, int]:
    """What the network predicts for images, of which it is shown this many at once, and half as many each time memory
    runs out; and how many it was shown at once in the end."""
    while True:
        try:
            with runtime.autocast():
                parts = [network.predict(part) for part in images.split(at_once)]
        except (MemoryError, RuntimeError) as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        else:
            break
        at_once = max(1, min(at_once, len(images)) // 2)
    if len(parts) == 1:
        return parts[0], at_once
    scales = [part.log_scale for part in parts if part.log_scale is not None]
    return Prediction(torch.cat([part.points for part in parts]), torch.cat(scales) if scales else None), at_once


def _bring_back(
    view: Transform, prediction: Prediction, photo_to_image: np.ndarray, flip_indices: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B, K, 2) points of the view's images as points of the photos, whether the view has not cropped them out, and
    the variances that the network predicts for them.

    A point outside the ROI is cropped by all views alike, and counts in each.
    """
    home = view.placement.inverse().move(prediction.points.cpu().numpy(), flip_indices)
    whole = Transform.identity(len(home), view.source)
    seen = view.inside(transform_points(view.geometry, home)) | ~whole.inside(home)
    return to_photo_coordinates(photo_to_image, home), seen, _variances(view, prediction, photo_to_image, flip_indices)


def _variances(view, prediction, photo_to_image, flip_indices):
    """(B, K) of a coordinate, in squared pixels of the photo. A perspective counts by its scale in the middle."""
    if prediction.log_scale is None:
        return np.zeros(prediction.points.shape[:2])
    scales = prediction.log_scale.double().exp().cpu().numpy()
    if flip_indices is not None:
        scales = np.where(view.mirrored[:, None], scales[:, flip_indices], scales)
    return (scales / (scale_of(view.geometry, view.source) * scale_of(photo_to_image))[:, None]) ** 2


def mean_shape_points(network: Predictor, pack: Pack, asked: np.ndarray) -> np.ndarray:
    """(N, L, 2) asked points of the mean shape, in pixels of the pack's typical photo: for photos that the
    network cannot be shown."""
    shape = to_photo_coordinates(np.median(pack.photo_to_image, axis=0)[None], network.mean_shape.cpu().numpy())[0]
    return shape[asked].astype(np.float32)
