"""The loss of a batch, and the trimmed loss that is called "active learning".

The ranks are by losses in pixels of the image, before they are weighed by the size of the photo: in pixels of the photo
the highest would be those of the largest photos, not those of the hardest faces.

Shapes: B photos, K points, W losses of the window.
"""

import torch

from pipeline.data.loader import Batch

WINDOW = 1024  # recent losses: 1 % of them is about ten, whatever the size of a batch


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


def empty_window(batch_size: int, device: torch.device) -> torch.Tensor:
    """(W,) a window of recent losses with nothing in it; it holds at least one batch."""
    return torch.full((max(WINDOW, batch_size),), float("nan"), device=device)


def slide(window: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """(W,) the window after (B,) losses have come in: the oldest give place."""
    return torch.cat((window[len(losses) :], losses.detach()))


def select_samples(
    losses: torch.Tensor, window: torch.Tensor, *, top_percent: float, without_top_percent: float
) -> torch.Tensor:
    """(B,) bool: the photos that count, by the shares of the window that are higher than their losses.

    (100, 0) keeps all; (30, 1) leaves out what lies in the highest 1 % or in the lowest 70 % of recent losses. Where
    this leaves none of the batch, the highest that is not too high is kept, and the lowest if all are. Against a batch
    alone 1 % of 32 photos would be none. The window holds the batch's own losses. Nothing here waits for a GPU.

    Leaving out the highest is iterative trimmed loss minimisation (Shen and Sanghavi, ICML 2019), leaving out the
    lowest is online hard example mining (Shrivastava et al., CVPR 2016).
    """
    losses = losses.detach()
    higher = (window > losses[:, None]).sum(1)
    percent = 100 * higher.double() / (~window.isnan()).sum()
    inside = (percent >= without_top_percent) & (percent < top_percent)
    nearest = torch.where(percent >= without_top_percent, percent, 200 - percent).argmin()
    is_nearest = torch.arange(len(losses), device=losses.device) == nearest
    return torch.where(inside.any(), inside, is_nearest)


def as_many_at_random(kept: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """(B,) bool: as many photos as are `kept`, those with the lowest of (B,) random numbers."""
    return uniform.argsort().argsort() < kept.sum()


def mean_of_selected(losses: torch.Tensor, kept: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """The mean of the losses that are kept. They are summed in the order of `ranks`, whatever that of the batch."""
    order = ranks.detach().argsort(descending=True)
    return torch.where(kept, losses, 0)[order].sum() / kept.sum()


def photo_weights(scale: torch.Tensor, *, unit: str, typical_scale: float) -> torch.Tensor:
    """(B,) factors that bring losses from pixels of the image to the unit of the loss.

    unit: "image", where all are 1; or "photo", for pixels of the photos in units of the data set's typical photo.
    """
    return scale / typical_scale if unit == "photo" else torch.ones_like(scale)
