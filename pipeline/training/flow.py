"""A small normalising flow of the plane: the shape of the errors that residual log-likelihood estimation learns.

Sources: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017; Li et al., "Human Pose
Regression with Residual Log-likelihood Estimation", ICCV 2021, from which the sizes are.
"""

import math

import torch
from torch import nn

NUM_LAYERS = 6
WIDTH = 64


class Flow(nn.Module):
    """A density of the plane. An untrained one is the standard normal distribution."""

    def __init__(self):
        super().__init__()
        self.scales = nn.ModuleList(_coupling() for _ in range(NUM_LAYERS))
        self.shifts = nn.ModuleList(_coupling() for _ in range(NUM_LAYERS))

    def log_prob(self, points: torch.Tensor) -> torch.Tensor:
        """(...) logarithm of the density at (..., 2) points.

        Each layer moves one coordinate by what the other one says; the next layer swaps the two.
        """
        first, second = points[..., :1], points[..., 1:]
        log_volume = torch.zeros_like(first)
        for scale, shift in zip(self.scales, self.shifts, strict=True):
            log_scale = scale(first).tanh()  # so that no layer stretches by more than e
            first, second = (second - shift(first)) * torch.exp(-log_scale), first
            log_volume = log_volume - log_scale
        return (log_volume - (first.square() + second.square()) / 2)[..., 0] - math.log(2 * math.pi)


def _coupling():
    last = nn.Linear(WIDTH, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(1, WIDTH), nn.LeakyReLU(), nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(), last)
