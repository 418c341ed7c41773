"""A landmark regressor: a backbone, a head, and the normalisation that the backbone's weights expect.

Normalisation lives inside the network, so that training, prediction and export cannot disagree about it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from models.backbones import build_classifier, build_pyramid, last_layer
from models.heads import HEADS, MapHead, Scale, StartsFromShapes
from models.linear import BehindHead, Offsets, replace_head
from models.prediction import Prediction

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
READ = "decoder.points.correction.components"  # by which the integral head reads a shape
ADDED_LATER = {"label_shift", READ, *(f"decoder.points.correction.linear.{name}" for name in ("weight", "bias"))}


class LandmarkNet(nn.Module):
    """(B, 3, size, size) RGB images, uint8 or float in 0..255 -> (B, K, 2) float32 points in their pixels.

    An untrained network nearly predicts the mean shape. `colour_mean` and `colour_std` are what the backbone's weights
    expect; like `mean_shape` they are saved in checkpoints. Images may be smaller than `size`, as at the start of a
    progressive training: points are in pixels of images of that size all the same.

    Labels may all lie a little to one side of what they name, for instance if another network made them. In a mirrored
    image they lie on the other side, so a network trained on both could only learn the middle. Instead it learns where
    things are shown, and separately `label_shift`, how far the labels of images as they are lie from there.
    """

    mean_shape: torch.Tensor
    colour_mean: torch.Tensor
    colour_std: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        decoder: Offsets | MapHead,
        mean_shape: np.ndarray,
        left_out: Iterable[str] = (),
        *,
        size: int,
    ):
        """left_out: names of the classifier's tensors that this backbone does not have. size: of the images."""
        super().__init__()
        self.unit = size / 32
        self.backbone, self.decoder = backbone, decoder
        self.left_out = {f"backbone.{name}" for name in left_out}
        self.register_buffer("mean_shape", torch.as_tensor(mean_shape, dtype=torch.float32))
        self.register_buffer("colour_mean", colour(IMAGENET_MEAN))
        self.register_buffer("colour_std", colour(IMAGENET_STD))
        self.label_shift = nn.Parameter(torch.zeros(2))  # in 32nds of the image

    @property
    def shift(self) -> torch.Tensor:
        """(2,) how far right and down labels lie from where the image shows their points, in pixels of the image."""
        return self.unit * self.label_shift

    @property
    def head(self) -> nn.Module:
        """Everything but the backbone: the last layer of a classifier, or what works on a backbone's maps."""
        return last_layer(self.backbone)[1] if isinstance(self.decoder, Offsets) else self.decoder

    def start_from(self, components: np.ndarray):
        """Starts a head of `FROM_SHAPES` from (Q, K, 2) components of the training shapes, in pixels."""
        if isinstance(self.decoder, MapHead) and isinstance(self.decoder.points, StartsFromShapes):
            self.decoder.points.start_from(components)

    def names_of_head(self) -> set[str]:
        """The names of the head's tensors in `state_dict`."""
        prefix = f"backbone.{last_layer(self.backbone)[0]}" if isinstance(self.decoder, Offsets) else "decoder"
        return {name for name in self.state_dict() if name.startswith(f"{prefix}.")}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The points of images as they are, where labels would lie."""
        return self.predict(images).points + self.shift

    def predict(self, images: torch.Tensor) -> Prediction:
        """The points where the images show them, in mirrored and turned images too, and the head's other outputs."""
        normalised = (images.float() - self.colour_mean) / self.colour_std
        output = self.backbone(normalised.contiguous(memory_format=torch.channels_last))
        return self.decoder(output, self.mean_shape)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        """Completes the checkpoint of an earlier version's run with what was the same in all of them."""
        if f"{prefix}mean_shape" in state_dict and f"{prefix}colour_mean" not in state_dict:
            state_dict[f"{prefix}colour_mean"] = colour(IMAGENET_MEAN)
            state_dict[f"{prefix}colour_std"] = colour(IMAGENET_STD)
            for name, module in self.named_modules():
                if isinstance(module, BehindHead):
                    state_dict[f"{prefix}{name}.slope"] = torch.tensor(0.0)
        added = {name: tensor for name, tensor in self.state_dict().items() if name in ADDED_LATER}
        if f"{prefix}mean_shape" in state_dict and not any(prefix + name in state_dict for name in added):
            for name, tensor in added.items():
                state_dict[prefix + name] = tensor if name == READ else torch.zeros_like(tensor)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def colour(values: Sequence[float]) -> torch.Tensor:
    """Red, green and blue in 0..1, as torchvision gives them, in the shape and the range 0..255 of `LandmarkNet`."""
    return 255 * torch.tensor(values).view(3, 1, 1)


def build_network(
    model: str,
    mean_shape: np.ndarray,
    size: int,
    *,
    head: str = "linear",
    map_stride: int = 8,
    deepest_stride: int = 64,
    with_scale: bool = False,
) -> LandmarkNet:
    """An untrained network for (K, 2) points in images of `size` pixels, with a backbone of torchvision or timm.

    map_stride: pixels of the image per cell of the map that a head reads points from, if it does.
    deepest_stride: of the maps that a head works on; layers behind them are left out.
    with_scale: whether it predicts how far off each point may be.
    Raises ValueError for a name that neither has, and NoMap for a backbone without a map of those strides.
    """
    num_points = len(mean_shape)
    if head == "linear":
        backbone = build_classifier(model, num_outputs=(3 if with_scale else 2) * num_points, size=size)
        replace_head(backbone)
        return LandmarkNet(backbone.to(memory_format=torch.channels_last), Offsets(size), mean_shape, size=size)
    backbone, levels, left_out = build_pyramid(model, size=size, deepest=deepest_stride)
    points = HEADS[head](levels, num_points, size=size, stride=map_stride)
    decoder = MapHead(points, Scale(levels, num_points, size) if with_scale else None)
    network = LandmarkNet(backbone, decoder, mean_shape, left_out, size=size)
    return network.to(memory_format=torch.channels_last)
