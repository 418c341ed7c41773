"""From photos to points: the network on a pack, and its points brought home to pixels of the photos."""

import numpy as np
import torch
from tqdm import tqdm

from models import LandmarkNet
from pipeline.batches import in_background, to_device
from pipeline.device import autocast
from pipeline.metrics import bring_home
from pipeline.pack import Pack


@torch.no_grad()
def predict_points(
    network: LandmarkNet,
    pack: Pack,
    samples: np.ndarray,
    *,
    device: torch.device,
    precision: str,
    asked: np.ndarray | None = None,
    batch_size: int = 128,
    description: str | None = None,
) -> np.ndarray:
    """(N, K, 2) float32 points of the photos at `samples`, in pixels of the photos. The network is in eval mode.

    asked: (N, L) indices of the points that are wanted of each photo, in that order; the result is (N, L, 2) then,
    and no more than that is held. With a `description` there is a progress bar.
    """
    assert not network.training
    num_points = len(network.mean_shape) if asked is None else asked.shape[1]
    points = np.empty((len(samples), num_points, 2), np.float32)
    blocks = [slice(start, start + batch_size) for start in range(0, len(samples), batch_size)]
    batches = in_background(lambda block: to_device(pack.images[samples[block]], device), blocks)
    bar = tqdm(total=len(samples), desc=description, unit="photo", disable=None if description else True)
    for block, images in zip(blocks, batches, strict=True):
        with autocast(device, precision):
            found = network(images)
        home = bring_home(pack.fits[samples[block]], found.cpu().numpy())
        points[block] = home if asked is None else np.take_along_axis(home, asked[block, :, None], axis=1)
        bar.update(len(images))
    bar.close()
    return points


def mean_shape_points(network: LandmarkNet, pack: Pack, asked: np.ndarray) -> np.ndarray:
    """(N, L, 2) asked points of the mean shape, in pixels of the pack's typical photo: for photos that are broken."""
    shape = bring_home(np.median(pack.fits, axis=0)[None], network.mean_shape.cpu().numpy())[0]
    return shape[asked].astype(np.float32)
