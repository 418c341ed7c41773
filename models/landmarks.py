"""A landmark regressor around any torchvision classification backbone.

Normalisation lives inside the network, so that training, prediction and export cannot disagree about it.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LIST_OF_MODELS = "https://docs.pytorch.org/vision/stable/models.html#classification"

# What some builders need besides the number of outputs: no auxiliary classifiers, or the size of the image.
BUILDER_ARGUMENTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "inception_v3": lambda size: {"aux_logits": False, "init_weights": True},
    "googlenet": lambda size: {"aux_logits": False, "init_weights": True},
    "maxvit_t": lambda size: {"input_size": (size, size)},
    **{
        name: lambda size: {"image_size": size} for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
    },
}


class Distributions(NamedTuple):
    """For each of the points a distribution of its x over (Nx,) and of its y over (Ny,) bins, in pixels of the image.

    x_logits: (B, K, Nx). y_logits: (B, K, Ny).
    """

    x_logits: torch.Tensor
    y_logits: torch.Tensor
    x_bins: torch.Tensor
    y_bins: torch.Tensor


class Prediction(NamedTuple):
    """What a network says of B images.

    points: (B, K, 2) float32, in pixels of the image. log_scale: (B, K) logarithm of how far off a point may be, in
    pixels of the image, or None where it has not been learned. distributions: of a head that classifies, else None.
    """

    points: torch.Tensor
    log_scale: torch.Tensor | None = None
    distributions: Distributions | None = None


class LandmarkNet(nn.Module):
    """(B, 3, size, size) RGB images, uint8 or float in 0..255 -> (B, K, 2) float32 points in their pixels.

    The output is `mean_shape` plus the backbone's output in units of an eighth of the image, so that an
    untrained network is nearly the mean-shape predictor and its errors are of the order of one. `colour_mean` and
    `colour_std` are what the backbone's weights expect; like `mean_shape` they travel with a checkpoint.
    """

    mean_shape: torch.Tensor
    colour_mean: torch.Tensor
    colour_std: torch.Tensor

    def __init__(self, backbone: nn.Module, mean_shape: np.ndarray, size: int):
        super().__init__()
        self.backbone = backbone
        self.unit = size / 8
        self.register_buffer("mean_shape", torch.as_tensor(mean_shape, dtype=torch.float32))
        self.register_buffer("colour_mean", colour(IMAGENET_MEAN))
        self.register_buffer("colour_std", colour(IMAGENET_STD))

    @property
    def head(self) -> nn.Linear | nn.Conv2d:
        return last_layer(self.backbone)[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.predict(images).points

    def predict(self, images: torch.Tensor) -> Prediction:
        """The points, and what else the head says of them."""
        normalised = (images.float() - self.colour_mean) / self.colour_std
        output = self.backbone(normalised.contiguous(memory_format=torch.channels_last)).float()
        return Prediction(self.mean_shape + self.unit * output.view(-1, *self.mean_shape.shape))

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        """Completes the checkpoint of a run of an earlier version with what was the same in all of them."""
        if f"{prefix}mean_shape" in state_dict and f"{prefix}colour_mean" not in state_dict:
            state_dict[f"{prefix}colour_mean"] = colour(IMAGENET_MEAN)
            state_dict[f"{prefix}colour_std"] = colour(IMAGENET_STD)
            for name, module in self.named_modules():
                if isinstance(module, BehindHead):
                    state_dict[f"{prefix}{name}.slope"] = torch.tensor(0.0)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def colour(values: Sequence[float]) -> torch.Tensor:
    """Red, green and blue in 0..1, as torchvision gives them, in the form and the 0..255 of `LandmarkNet`."""
    return 255 * torch.tensor(values).view(3, 1, 1)


class LandmarkHead(nn.Linear):
    """A linear layer that computes in float32 under autocast too: bf16 would round points to a quarter of a pixel."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class ConvolutionalHead(nn.Conv2d):
    """The same as a 1 x 1 convolution, whose outputs the backbone averages over the image (SqueezeNet)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.float())


class BehindHead(nn.Module):
    """Takes the place of a ReLU behind the head, which would let points move to the right and down only.

    `slope` is what values below zero are multiplied by: 1, but 0 in runs of earlier versions, which had the ReLU.
    """

    slope: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("slope", torch.tensor(1.0))

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        return torch.where(output > 0, output, self.slope * output)


def network_names() -> list[str]:
    """The classification backbones that torchvision has."""
    return torchvision.models.list_models(module=torchvision.models)


def build_network(model: str, mean_shape: np.ndarray, size: int) -> LandmarkNet:
    """An untrained network for (K, 2) points in images of `size` pixels, of a backbone that torchvision knows.

    Raises ValueError for a name that torchvision does not have.
    """
    check_name(model)
    arguments = BUILDER_ARGUMENTS.get(model, lambda size: {})(size)
    backbone = torchvision.models.get_model(model, num_classes=2 * len(mean_shape), **arguments)
    replace_head(backbone)
    return LandmarkNet(backbone.to(memory_format=torch.channels_last), mean_shape, size)


def check_name(model: str):
    """Raises ValueError, with the names that are nearest, for one that torchvision does not have."""
    if model not in network_names():
        near = difflib.get_close_matches(model.lower(), network_names())
        hint = f"did you mean {' or '.join(near)}?" if near else f"they are listed at {LIST_OF_MODELS}"
        raise ValueError(f"{model!r} is none of torchvision's classification models; {hint}")


def replace_head(backbone: nn.Module):
    """Puts a landmark head in place of the last layer, and takes away the ReLU behind it, where there is one."""
    name, layer = last_layer(backbone)
    head: LandmarkHead | ConvolutionalHead
    if isinstance(layer, nn.Linear):
        head = LandmarkHead(layer.in_features, layer.out_features)
    else:
        head = ConvolutionalHead(layer.in_channels, layer.out_channels, kernel_size=1)
    with torch.no_grad():
        head.weight.mul_(0.1)
        assert head.bias is not None
        head.bias.zero_()
    backbone.set_submodule(name, head)
    names = [name for name, _ in backbone.named_modules()]
    for behind in names[names.index(name) + 1 :]:
        if isinstance(backbone.get_submodule(behind), nn.ReLU):
            backbone.set_submodule(behind, BehindHead())


def last_layer(backbone: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that gives the points, with its name: a linear one, or a 1 x 1 convolution (SqueezeNet)."""
    return [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
