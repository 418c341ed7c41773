"""Networks that take a batch of photos and give points: any torchvision classifier with a landmark head."""

from models.landmarks import LandmarkNet, build_network, network_names
from models.weights import Loaded, load_state, read_imagenet_weights, read_weights

__all__ = [
    "LandmarkNet",
    "Loaded",
    "build_network",
    "load_state",
    "network_names",
    "read_imagenet_weights",
    "read_weights",
]
