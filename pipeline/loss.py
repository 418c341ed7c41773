"""The loss of a batch, and the trimmed loss that is called "active learning".

Shapes: B photos, K points.
"""

import torch

from pipeline.batches import Batch


def sample_losses(predicted: torch.Tensor, batch: Batch, *, beta: float, outside_weight: float = 1.0) -> torch.Tensor:
    """(B,) SmoothL1 of (B, K, 2) points, averaged over those of a photo that are there, in pixels of the image.

    Points outside the frame, which can only be guessed, count `outside_weight` as much as those inside.
    """
    there = ~batch.points.isnan()
    target = torch.where(there, batch.points, predicted.detach())
    losses = torch.nn.functional.smooth_l1_loss(predicted, target, beta=beta, reduction="none")
    weights = there * torch.where(batch.inside, 1.0, outside_weight)[..., None]
    return (losses * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1e-6)


def squared_errors(predicted: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B,) mean squared error of each photo over its coordinates that are there, in squared pixels of the photo."""
    there = ~batch.points.isnan()
    squares = torch.where(there, predicted - batch.points, 0).square().sum((1, 2))
    return squares / there.sum((1, 2)).clamp(min=1) * batch.scale.square()


def kept(ranks: torch.Tensor, *, top_percent: float, without_top_percent: float) -> torch.Tensor:
    """Places of the photos that count, by (B,) `ranks`: those between the two percentiles, counted from the highest.

    (100, 0) keeps all; (30, 1) leaves out the highest 1 % and the lowest 70 %. Counts are rounded down, and one
    photo at least is kept. Leaving out the highest is iterative trimmed loss minimisation (Shen and Sanghavi, ICML
    2019), leaving out the lowest is online hard example mining (Shrivastava et al., CVPR 2016).
    """
    batch = len(ranks)
    first = min(int(batch * without_top_percent / 100), batch - 1)
    last = max(int(batch * top_percent / 100), first + 1)
    return ranks.detach().argsort(descending=True)[first:last]


def photo_weights(scale: torch.Tensor, *, unit: str, typical_scale: float) -> torch.Tensor:
    """(B,) factors that bring losses from pixels of the image to the unit of the loss.

    unit: "image", where all are 1; or "photo", for pixels of the photos in units of the data set's typical photo.
    """
    return scale / typical_scale if unit == "photo" else torch.ones_like(scale)
