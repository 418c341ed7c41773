"""Backbones: any of torchvision's classification networks, made to give a vector or maps."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import Permute

from models.timm_backbones import build_timm_classifier, check_timm_name, end_at_maps, is_of_timm

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
FIXED_SIZE = ("vit", "maxvit", "swin")  # families that are probed with images of the size that they are built for
PROBE_SIZE = 128
PROBE_SIZES = {"inception_v3": 299}  # without padding, small images give other strides than large ones
BEHIND_FEATURES = {"densenet": "relu"}  # by family: a function after the last module that its map has to go through
MOMENTUM = 0.1  # of running statistics, instead of MNASNet's 0.0003, which takes ten thousand steps
FINEST, COARSEST = 4, 64  # strides of the maps that a head may use


def network_names() -> list[str]:
    """The classification backbones that torchvision has."""
    return torchvision.models.list_models(module=torchvision.models)


def check_name(model: str):
    """Raises ValueError, with the nearest names, for a name that torchvision, or timm, does not have."""
    if is_of_timm(model):
        check_timm_name(model)
    elif model not in network_names():
        near = difflib.get_close_matches(model.lower(), network_names())
        hint = f"did you mean {' or '.join(near)}?" if near else f"they are listed at {LIST_OF_MODELS}"
        raise ValueError(f"{model!r} is none of torchvision's classification models; {hint}")


def build_classifier(model: str, *, num_outputs: int, size: int) -> nn.Module:
    """An untrained classifier of images of `size` pixels. Raises ValueError for a name that `check_name` refuses."""
    check_name(model)
    if is_of_timm(model):
        return build_timm_classifier(model, num_outputs=num_outputs, size=size)
    arguments = BUILDER_ARGUMENTS.get(model, lambda size: {})(size)
    classifier = torchvision.models.get_model(model, num_classes=num_outputs, **arguments)
    for module in classifier.modules() if model.startswith("mnasnet") else ():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = MOMENTUM
    return classifier


class NoMap(ValueError):
    """A backbone has no map of the strides that are wanted."""


@dataclass(frozen=True)
class Level:
    """A map of a backbone: one cell for every `stride` pixels of the image, `channels` values in each."""

    stride: int
    channels: int


def build_pyramid(model: str, *, size: int, deepest: int = COARSEST) -> tuple[nn.Module, list[Level], set[str]]:
    """An untrained backbone up to its last map, which gives a mapping of maps; its levels from finest to coarsest; and
    the names of the tensors that only the classifier has.

    deepest: the largest stride of a map; layers behind it are left out. Parameters have the same names as in the
    classifier, so that weights of one fit the other. Raises NoMap if no map is left.
    """
    classifier = build_classifier(model, num_outputs=1, size=size)
    names = set(classifier.state_dict())
    of_its_size = model.startswith((*FIXED_SIZE, "timm"))
    probe = torch.zeros(1, 3, *[size if of_its_size else PROBE_SIZES.get(model, PROBE_SIZE)] * 2)
    if is_of_timm(model):
        backbone, strides = classifier, end_at_maps(classifier, deepest=deepest)
    else:
        found = {stride: name for stride, name in _find_levels(classifier, probe) if stride <= deepest}
        nodes = [_node(model, name) for name in found.values()]
        backbone = create_feature_extractor(classifier, nodes) if found else classifier
        strides = list(found)
    if not strides:
        raise NoMap(f"{model} has no map of a stride of {deepest} or less")
    with torch.no_grad():
        maps = as_maps(backbone.eval()(probe))
    levels = [Level(stride, level.shape[1]) for stride, level in zip(strides, maps, strict=True)]
    return backbone.train(), levels, names - backbone.state_dict().keys()


def as_maps(outputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """(B, C, h, w) of each of a backbone's outputs, which may have channels last or be the tokens of a transformer."""
    last = any(output.ndim == 4 and output.shape[2] != output.shape[3] for output in outputs.values())
    return [_as_map(output, channels_last=last) for output in outputs.values()]


def _find_levels(classifier, probe):
    """The strides of a classifier's maps, each with the name of the outermost module that gives such a map, the last if
    there are several."""
    found: dict[int, str] = {}

    def note(name):
        def hook(module, inputs, output):
            if isinstance(module, nn.AdaptiveAvgPool2d | Permute) or not isinstance(output, torch.Tensor):
                return  # all maps have their channels in the same place
            side = _side_of_map(output)
            stride = 2 ** round(math.log2(probe.shape[-1] / side)) if side > 1 else 0
            if FINEST <= stride <= COARSEST and name.count(".") <= found.get(stride, name).count("."):
                found[stride] = name

        return hook

    modules = dict(classifier.named_modules())
    names = list(modules)[1 : list(modules).index(last_layer(classifier)[0])]
    above = last_layer(classifier)[0]
    handles = [modules[name].register_forward_hook(note(name)) for name in names if not above.startswith(f"{name}.")]
    classifier.eval()
    with torch.no_grad():
        classifier(probe)
    for handle in handles:
        handle.remove()
    return sorted(found.items())


def _node(model, name):
    """The node that gives a module's map in the form in which the family's classifier uses it."""
    behind = [node for family, node in BEHIND_FEATURES.items() if model.startswith(family) and name == "features"]
    return behind[0] if behind else name


def last_layer(classifier: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that gives the classes, with its name: a linear one, or a 1 x 1 convolution (SqueezeNet)."""
    return [(name, layer) for name, layer in classifier.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


def _side_of_map(output):
    """The side of a square map with its channels first or last, or of a transformer's tokens; 0 for anything else."""
    if output.ndim == 4 and len(output) == 1:
        _, first, height, width = output.shape
        if height == width:
            return height
        return height if first == height else 0  # channels last, as in Swin
    if output.ndim == 3 and len(output) == 1:
        side = int((output.shape[1] - 1) ** 0.5)
        return side if side * side + 1 == output.shape[1] else 0
    return 0


def _as_map(output, *, channels_last):
    """(B, C, h, w) of a map with its channels first or last, or of tokens, the first of which is the class token."""
    if output.ndim == 3:
        side = int((output.shape[1] - 1) ** 0.5)
        return output[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    return output.permute(0, 3, 1, 2) if channels_last else output
