"""Heads that work on the maps of a backbone. `HEADS` lists them.

Each says what an untrained network predicts (the mean shape, or nearly that), and how it predicts points that lie
outside the image. Coordinates are computed in float32 even under autocast: bf16 would round points to a quarter of a
pixel. Points are in pixels of images of `size` pixels, whatever the size of the images that are shown, so a network can
be trained on small images first.

Shapes: B images, K points, C channels, (h, w) of a map, N bins.
"""

import math
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.backbones import Level, as_maps
from models.linear import in_float32, start_small, without_autocast
from models.prediction import Distributions, Prediction

WIDTH = 128  # channels of the merged map
EXTENT = 1.25  # of the image's side that cells and bins cover, so that points may lie outside
SPREAD = 0.12  # of the image's side: standard deviation of the prior around the mean shape
NUM_COMPONENTS = 48  # of a space of shapes
NUM_CORRECTING = 64  # components of a shape by which its points are corrected
FARTHEST = 3.0  # standard deviations at which the components of a shape saturate
LEAST_DEVIATION = 1e-3  # of the image's side: lower bound of a standard deviation


class MapHead(nn.Module):
    """A head on the maps that a backbone gives as a mapping, with the scale of each point if that is wanted."""

    def __init__(self, head: nn.Module, scale: nn.Module | None):
        super().__init__()
        self.points, self.scale = head, scale

    def forward(self, output: dict[str, torch.Tensor], mean_shape: torch.Tensor) -> Prediction:
        maps = as_maps(output)
        prediction = self.points(maps, mean_shape)
        return prediction if self.scale is None else prediction._replace(log_scale=self.scale(maps))


class Scale(nn.Module):
    """(B, K) logarithms of how far off each point may be, in pixels, from the pooled features."""

    def __init__(self, levels: list[Level], num_points: int, size: int):
        super().__init__()
        self.first = math.log(size / 16)
        self.linear = start_small(nn.Linear(levels[-1].channels, num_points))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return self.first + in_float32(self.linear, pooled(maps[-1]))


class Flat(nn.Module):
    """A linear layer on all values of the coarsest map. Points may lie anywhere.

    For images of another size, the map is resampled to that of images of `size` pixels.
    """

    def __init__(self, levels: list[Level], num_points: int, *, size: int, stride: int):
        super().__init__()
        self.unit, self.side = size / 8, math.ceil(size / levels[-1].stride)
        self.linear = start_small(nn.Linear(levels[-1].channels * self.side**2, 2 * num_points))

    def forward(self, maps: list[torch.Tensor], mean_shape: torch.Tensor) -> Prediction:
        resampled = functional.adaptive_avg_pool2d(maps[-1].float(), self.side)
        offsets = in_float32(self.linear, resampled.flatten(1)).view(-1, *mean_shape.shape)
        return Prediction(mean_shape + self.unit * offsets)


class LowRank(nn.Module):
    """Coordinates in a space of shapes, by a linear layer on pooled features. Points may lie anywhere.

    The space starts from the principal components of the training shapes (`start_from`), and is learned further: a
    prior on shapes, and for 971 points a twentieth of a linear head's weights.
    """

    def __init__(self, levels: list[Level], num_points: int, *, size: int, stride: int):
        super().__init__()
        count = min(NUM_COMPONENTS, 2 * num_points)
        self.linear = start_small(nn.Linear(levels[-1].channels, count))
        self.components = nn.Parameter(torch.randn(count, num_points, 2) * size / 64)

    def start_from(self, components: np.ndarray):
        """Replaces the first of its own components with (Q, K, 2) components of shapes, in pixels."""
        with torch.no_grad():
            taken = torch.as_tensor(components, dtype=torch.float32)[: len(self.components)]
            self.components[: len(taken)] = taken

    def forward(self, maps: list[torch.Tensor], mean_shape: torch.Tensor) -> Prediction:
        factors = in_float32(self.linear, pooled(maps[-1]))
        with without_autocast(factors):
            return Prediction(mean_shape + torch.tensordot(factors, self.components, dims=1))


class Integral(nn.Module):
    """The expectation of each point under a distribution over the cells of a map (integral regression, soft-argmax).

    The maps are merged top-down. A prior around the mean shape is added to the logits, with a learned strength: an
    untrained network predicts the mean shape, and points need not be found from nothing. Cells cover `EXTENT` of the
    image, so that points may lie outside by an eighth of it. What is found for each point by itself is then corrected
    by the others.

    Source: Sun et al., "Integral human pose regression", ECCV 2018; Nibali et al., "Numerical coordinate regression"
    (DSNT), 2018. Merging follows Lin et al., "Feature pyramid networks", CVPR 2017.
    """

    def __init__(self, levels: list[Level], num_points: int, *, size: int, stride: int):
        super().__init__()
        self.size = size
        self.merge = TopDown(levels, stride)
        self.logits = start_small(nn.Conv2d(WIDTH, num_points, 1))
        self.strength = nn.Parameter(torch.tensor(1.0))
        self.correction = Correction(num_points, size)

    def start_from(self, components: np.ndarray):
        """Takes the components of shapes by which points are corrected; see `Correction`."""
        self.correction.start_from(components)

    def forward(self, maps: list[torch.Tensor], mean_shape: torch.Tensor) -> Prediction:
        merged = self.merge(maps)
        ys, xs = (cells(count, self.size, device=merged.device) for count in merged.shape[2:])
        at = torch.stack((xs.repeat(len(ys)), ys.repeat_interleave(len(xs))))
        with without_autocast(merged):
            shares = self._logits(merged.float().flatten(2), at, mean_shape).softmax(2)
            return Prediction(self.correction(functional.linear(shares, at), mean_shape))

    def _logits(self, features: torch.Tensor, at: torch.Tensor, mean_shape: torch.Tensor) -> torch.Tensor:
        """(B, K, h w) logits of the cells at (2, h w), from (B, C, h w) features.

        Those of the prior are linear in x, y and x² + y², up to a constant that the softmax cancels. One product
        computes everything; adding a prior would read and write each logit once more.
        """
        middle, spread = (self.size - 1) / 2, SPREAD * self.size
        x, y = (at - middle) / spread
        means = (mean_shape - middle) / spread
        prior = self.strength * torch.cat((means, torch.full_like(means[:, :1], -0.5)), dim=1)
        weights = torch.cat((self.logits.weight.flatten(1), self.logits.bias[:, None], prior), dim=1)
        known = torch.stack((torch.ones_like(x), x, y, x.square() + y.square()))
        count = features.shape[0]  # len() would tie an exported network to one number of images
        return torch.bmm(weights.expand(count, -1, -1), torch.cat((features, known.expand(count, -1, -1)), dim=1))


class Correction(nn.Module):
    """Corrects points by the shape that they form together, which differs from the mean shape in far fewer ways than
    points that are each found by themselves.

    The shape is read as components, each in standard deviations of the training shapes (`start_from`), so that all are
    of one order, whether they turn a face or bend a lip. A linear layer turns them into offsets, none at the start.
    Components saturate at `FARTHEST` of these deviations, so that a shape unlike all others is not moved far.
    """

    components: torch.Tensor

    def __init__(self, num_points: int, size: int):
        super().__init__()
        self.size, count = size, min(NUM_CORRECTING, 2 * num_points)
        self.register_buffer("components", torch.zeros(count, 2 * num_points))
        self.linear = nn.Linear(count, 2 * num_points)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def start_from(self, components: np.ndarray):
        """Takes (Q, K, 2) components of shapes, in pixels, each as long as its standard deviation, and corrects by none
        of them at first."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        with torch.no_grad():
            taken = torch.as_tensor(components, dtype=torch.float32)[: len(self.components)].flatten(1) / self.size
            self.components.zero_()
            self.components[: len(taken)] = taken / taken.square().sum(1, keepdim=True).clamp(min=LEAST_DEVIATION**2)

    def forward(self, points: torch.Tensor, mean_shape: torch.Tensor) -> torch.Tensor:
        read = functional.linear(((points - mean_shape) / self.size).flatten(1), self.components)
        offsets = self.linear(FARTHEST * torch.tanh(read / FARTHEST))
        return points + self.size / 64 * offsets.view_as(points)


class SimCC(nn.Module):
    """A distribution of each point's x over the columns of the image, and of its y over the rows, one bin per pixel.

    The loss "simcc" trains the distributions themselves; the points are their expectations. Bins cover `EXTENT` of the
    image, and points beyond them are predicted at the edge. The prior is that of `Integral`. For images of another size
    the map is resampled to that of images of `size` pixels.

    Source: Li et al., "SimCC: a simple coordinate classification perspective for human pose estimation", ECCV 2022.
    """

    def __init__(self, levels: list[Level], num_points: int, *, size: int, stride: int):
        super().__init__()
        self.size, self.side = size, math.ceil(size / stride)
        self.num_bins = round(EXTENT * size)
        self.merge = TopDown(levels, stride)
        self.maps = nn.Conv2d(WIDTH, num_points, 1)
        self.x = start_small(nn.Linear(self.side**2, self.num_bins))
        self.y = start_small(nn.Linear(self.side**2, self.num_bins))
        self.strength = nn.Parameter(torch.tensor(1.0))

    def forward(self, maps: list[torch.Tensor], mean_shape: torch.Tensor) -> Prediction:
        merged = functional.interpolate(self.merge(maps).float(), size=(self.side, self.side), mode="bilinear")
        flat = in_float32(self.maps, merged).flatten(2)
        bins = cells(self.num_bins, self.size, device=flat.device)
        x_logits, y_logits = (
            in_float32(linear, flat) + self.strength * prior(bins, mean_shape[:, axis], self.size)
            for axis, linear in enumerate((self.x, self.y))
        )
        points = torch.stack([(logits.softmax(2) * bins).sum(2) for logits in (x_logits, y_logits)], dim=2)
        return Prediction(points, distributions=Distributions(x_logits, y_logits, bins, bins))


class TopDown(nn.Module):
    """Maps of several strides merged into one of (B, WIDTH, h, w) at `stride`: each is added to the coarser ones."""

    def __init__(self, levels: list[Level], stride: int):
        super().__init__()
        self.first = next((i for i, level in enumerate(levels) if level.stride >= stride), len(levels) - 1)
        used = levels[self.first :]
        self.enlarge = max(1, used[0].stride // stride)  # for transformers, which have one map
        self.lateral = nn.ModuleList(nn.Conv2d(level.channels, WIDTH, 1) for level in used)
        self.smooth = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)
        )

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        *finer, merged = (lateral(level) for lateral, level in zip(self.lateral, maps[self.first :], strict=True))
        for own in reversed(finer):
            merged = own + functional.interpolate(merged, size=own.shape[2:])
        return self.smooth(functional.interpolate(merged, scale_factor=self.enlarge) if self.enlarge > 1 else merged)


def cells(count: int, size: int, *, device: torch.device) -> torch.Tensor:
    """(count,) centres of cells that cover `EXTENT` of an image, in its pixels."""
    return ((torch.arange(count, device=device) + 0.5) / count - 0.5) * EXTENT * size + (size - 1) / 2


def prior(at: torch.Tensor, means: torch.Tensor, size: int) -> torch.Tensor:
    """(K, N) logits of normal distributions around (K,) means, at (N,) coordinates."""
    return -((at - means[:, None]) / (SPREAD * size)).square() / 2


def pooled(level: torch.Tensor) -> torch.Tensor:
    """(B, C) the mean of a map."""
    return level.float().mean((2, 3))


@runtime_checkable
class StartsFromShapes(Protocol):
    """A head that starts from the ways in which the training shapes differ."""

    def start_from(self, components: np.ndarray):
        """Takes (Q, K, 2) components, in pixels, each as long as its standard deviation."""


HEADS: dict[str, type[nn.Module]] = {
    "flat": Flat,
    "low_rank": LowRank,
    "integral": Integral,
    "simcc": SimCC,
}
FROM_SHAPES = {name for name, head in HEADS.items() if issubclass(head, StartsFromShapes)}
