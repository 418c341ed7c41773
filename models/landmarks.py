"""A landmark regressor around any torchvision classification backbone.

Normalisation lives inside the network, so that training, prediction and export cannot disagree about it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What some builders need besides the number of outputs: no auxiliary classifiers, or the size of the image.
BUILDER_ARGUMENTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "inception_v3": lambda size: {"aux_logits": False, "init_weights": True},
    "googlenet": lambda size: {"aux_logits": False, "init_weights": True},
    "maxvit_t": lambda size: {"input_size": (size, size)},
    **{
        name: lambda size: {"image_size": size} for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
    },
}


class LandmarkNet(nn.Module):
    """(B, 3, size, size) RGB images, uint8 or float in 0..255 -> (B, K, 2) float32 points in their pixels.

    The output is `mean_shape` plus the backbone's output in units of an eighth of the image, so that an
    untrained network is the mean-shape predictor and its errors are of the order of one.
    """

    mean_shape: torch.Tensor
    colour_mean: torch.Tensor
    colour_std: torch.Tensor

    def __init__(self, backbone: nn.Module, mean_shape: np.ndarray, size: int):
        super().__init__()
        self.backbone = backbone
        self.unit = size / 8
        self.register_buffer("mean_shape", torch.as_tensor(mean_shape, dtype=torch.float32))
        self.register_buffer("colour_mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("colour_std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    @property
    def head(self) -> nn.Linear | nn.Conv2d:
        return last_layer(self.backbone)[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalised = (images.float() - self.colour_mean) / self.colour_std
        output = self.backbone(normalised.contiguous(memory_format=torch.channels_last)).float()
        return self.mean_shape + self.unit * output.view(-1, *self.mean_shape.shape)


class LandmarkHead(nn.Linear):
    """A linear layer that computes in float32 under autocast too: bf16 would round points to a quarter of a pixel."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


def network_names() -> list[str]:
    """The classification backbones that torchvision has."""
    return torchvision.models.list_models(module=torchvision.models)


def build_network(model: str, mean_shape: np.ndarray, size: int) -> LandmarkNet:
    """An untrained network for (K, 2) points in images of `size` pixels, of a backbone that torchvision knows.

    Raises ValueError for a name that torchvision does not have.
    """
    if model not in network_names():
        raise ValueError(f"{model!r} is none of torchvision's classification models: {', '.join(network_names())}")
    arguments = BUILDER_ARGUMENTS.get(model, lambda size: {})(size)
    backbone = torchvision.models.get_model(model, num_classes=2 * len(mean_shape), **arguments)
    name, layer = last_layer(backbone)
    if isinstance(layer, nn.Linear):
        backbone.set_submodule(name, layer := LandmarkHead(layer.in_features, layer.out_features))
    with torch.no_grad():
        layer.weight.mul_(0.1)
        assert layer.bias is not None
        layer.bias.zero_()
    return LandmarkNet(backbone.to(memory_format=torch.channels_last), mean_shape, size)


def last_layer(backbone: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that gives the points, with its name: a linear one, or a 1 x 1 convolution (SqueezeNet)."""
    return [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
