"""Batches and predictions without photos, for tests of losses."""

import numpy as np
import torch

from models import Distributions, Prediction
from pipeline.data.loader import Batch

BINS = torch.linspace(-8.0, 40.0, 97)  # of an image of 32 pixels


def batch_of(points, scale=None, side=32) -> Batch:
    points = torch.as_tensor(points, dtype=torch.float32)
    scale = torch.ones(len(points)) if scale is None else torch.as_tensor(scale, dtype=torch.float32)
    inside = torch.ones(points.shape[:2], dtype=torch.bool)
    linear = torch.eye(2).expand(len(points), 2, 2)
    return Batch(torch.zeros(len(points), 3, side, side), points, inside, linear, scale, np.arange(len(points)))


def prediction_of(points, *, rng=None, size=1.0, dtype=torch.float32) -> Prediction:
    """All that a network may say, of which a generator draws what is no point, of about this size."""
    points = torch.as_tensor(points, dtype=torch.float32)
    rng = rng or np.random.default_rng(0)
    shape = points.shape[:2]

    def draw(*more):
        return torch.from_numpy(size * rng.normal(size=(*shape, *more))).to(dtype).requires_grad_()

    distributions = Distributions(draw(len(BINS)), draw(len(BINS)), BINS, BINS)
    return Prediction(points.to(dtype).clone().requires_grad_(), draw(), distributions)


def leaves_of(predicted: Prediction) -> list[torch.Tensor]:
    """What gradients flow to."""
    assert predicted.log_scale is not None
    assert predicted.distributions is not None
    return [predicted.points, predicted.log_scale, *predicted.distributions[:2]]
