"""The linear head: the classifier's own last layer, which gives points instead of classes."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from models.backbones import last_layer
from models.prediction import Prediction


def without_autocast(features: torch.Tensor) -> AbstractContextManager:
    """A context that computes in the precision of its inputs. On torch's meta device nothing is computed, and there is
    no autocast to switch off."""
    kind = features.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def in_float32(layer: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor) -> torch.Tensor:
    """What the layer makes of the features, even under autocast: bf16 would round points to a quarter of a pixel."""
    with without_autocast(features):
        return layer(features.float())


def start_small(layer):
    """The layer with its weights reduced to a tenth and no bias, so that predictions start near the mean shape."""
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.zero_()
    return layer


class Offsets(nn.Module):
    """Reads the outputs of the last layer as offsets from the mean shape, in units of an eighth of the image.

    Errors are therefore of the order of one at the start. Points may lie anywhere. Outputs beyond two per point are the
    logarithms of the points' scales.
    """

    def __init__(self, size: int):
        super().__init__()
        self.unit = size / 8

    def forward(self, output: torch.Tensor, mean_shape: torch.Tensor) -> Prediction:
        offsets, log_scale = output.float().split([mean_shape.numel(), output.shape[1] - mean_shape.numel()], dim=1)
        points = mean_shape + self.unit * offsets.view(-1, *mean_shape.shape)
        return Prediction(points, log_scale + math.log(self.unit / 2) if log_scale.shape[1] else None)


class LandmarkHead(nn.Linear):
    """A linear layer that computes in float32."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return in_float32(super().forward, features)


class ConvolutionalHead(nn.Conv2d):
    """The same as a 1 x 1 convolution, whose outputs the backbone averages over the image (SqueezeNet)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return in_float32(super().forward, features)


class BehindHead(nn.Module):
    """Replaces a ReLU behind the head, which would let points move only to the right and down.

    `slope` is the factor for values below zero: 1, but 0 in runs of earlier versions, which had the ReLU.
    """

    slope: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("slope", torch.tensor(1.0))

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        return torch.where(output > 0, output, self.slope * output)


def replace_head(backbone: nn.Module):
    """Puts a landmark head in place of the last layer, and a `BehindHead` in place of a ReLU behind it."""
    name, layer = last_layer(backbone)
    head: LandmarkHead | ConvolutionalHead
    if isinstance(layer, nn.Linear):
        head = LandmarkHead(layer.in_features, layer.out_features)
    else:
        head = ConvolutionalHead(layer.in_channels, layer.out_channels, kernel_size=1)
    backbone.set_submodule(name, start_small(head))
    names = [name for name, _ in backbone.named_modules()]
    for behind in names[names.index(name) + 1 :]:
        if isinstance(backbone.get_submodule(behind), nn.ReLU):
            backbone.set_submodule(behind, BehindHead())
