"""Which photos of a step count: the trimmed loss, called "active learning".

Photos are ranked by their losses in pixels of the image, before these are weighted by the size of the photo: in pixels
of the photo the highest would be those of the largest photos, not those of the hardest faces. Ranks and divisor are
those of all photos of a step. If these are computed in parts, by accumulated micro-batches or by several ranks,
`select_samples` gets the losses of all of them, and `mean_of_selected` those of a part with the number that all keep:
the parts then sum to the loss of the whole.

Shapes: B photos, N photos of the pack, W losses of the window.
"""

import torch

WINDOW = 1024  # recent losses: 1 % of them is about ten, whatever the size of a batch
MEMORY = 0.7  # of a photo's running loss: what an epoch leaves of the one before


def empty_window(batch_size: int, device: torch.device) -> torch.Tensor:
    """(W,) an empty window of recent losses; it holds at least one batch."""
    return torch.full((max(WINDOW, batch_size),), float("nan"), device=device)


def slide(window: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """(W,) the window after (B,) losses have been added: the oldest leave it."""
    return torch.cat((window[len(losses) :], losses.detach()))


def no_running_losses(num_photos: int, device: torch.device) -> torch.Tensor:
    """(N,) running means of losses, none of which is known yet."""
    return torch.full((num_photos,), float("nan"), device=device)


def remember(running: torch.Tensor, samples: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """(N,) exponential running means of losses after (B,) new ones of the photos at `samples`."""
    known, losses = running[samples], losses.detach().to(running.dtype)
    mean = torch.where(known.isnan(), losses, MEMORY * known + (1 - MEMORY) * losses)
    return running.index_copy(0, samples, mean)


def select_samples(
    losses: torch.Tensor, window: torch.Tensor, *, top_percent: float, without_top_percent: float
) -> torch.Tensor:
    """(B,) bool: the photos that count, by the share of the window that is higher than their losses.

    (100, 0) keeps all; (30, 1) leaves out what is in the highest 1 % or in the lowest 70 % of recent losses. If this
    leaves none of the batch, the highest that is not too high is kept, or the lowest if all are too high. Against a
    batch alone 1 % of 32 photos would be none. The window holds the batch's own losses; it may instead hold the running
    losses of all photos, if `losses` are those of the batch. Nothing here waits for a GPU.

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
    """(B,) bool: as many photos as in `kept`, those with the lowest of (B,) random numbers."""
    return uniform.argsort().argsort() < kept.sum()


def mean_of_selected(
    losses: torch.Tensor, kept: torch.Tensor, ranks: torch.Tensor, *, num_kept: torch.Tensor
) -> torch.Tensor:
    """The mean of the losses that are kept. They are summed in the order of `ranks`, whatever the order of the batch.

    num_kept: (), how many are kept in the whole step, of which these photos may be a part.
    """
    order = ranks.detach().argsort(descending=True)
    return torch.where(kept, losses, 0)[order].sum() / num_kept
