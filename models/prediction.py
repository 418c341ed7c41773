"""What a network predicts for images."""

from typing import NamedTuple

import torch


class Distributions(NamedTuple):
    """For each point, a distribution of its x over (Nx,) and of its y over (Ny,) bins, in pixels of the image.

    x_logits: (B, K, Nx). y_logits: (B, K, Ny).
    """

    x_logits: torch.Tensor
    y_logits: torch.Tensor
    x_bins: torch.Tensor
    y_bins: torch.Tensor


class Prediction(NamedTuple):
    """What a network predicts for B images.

    points: (B, K, 2) float32, in pixels of the image. log_scale: (B, K) logarithm of how far off a point may be, in
    pixels of the image, or None if it was not learned. distributions: of a head that classifies, else None.
    """

    points: torch.Tensor
    log_scale: torch.Tensor | None = None
    distributions: Distributions | None = None
