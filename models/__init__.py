"""Networks that take a batch of photos and give points: any torchvision classifier with a landmark head."""

from models.landmarks import Distributions, LandmarkNet, Prediction, build_network, check_name, network_names
from models.weights import Loaded, expected_colours, load_state, read_imagenet_weights, read_weights

__all__ = [
    "Distributions",
    "LandmarkNet",
    "Loaded",
    "Prediction",
    "build_network",
    "check_name",
    "expected_colours",
    "load_state",
    "network_names",
    "read_imagenet_weights",
    "read_weights",
]
