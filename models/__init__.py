"""Networks that turn a batch of photos into points: any classifier of torchvision or timm with a landmark head."""

from models.backbones import NoMap, check_name, network_names
from models.heads import FROM_SHAPES
from models.landmarks import LandmarkNet, build_network
from models.prediction import Distributions, Prediction
from models.timm_backbones import check_one_output
from models.weights import Loaded, expected_colours, load_state, read_imagenet_weights, read_weights, resized

__all__ = [
    "FROM_SHAPES",
    "Distributions",
    "LandmarkNet",
    "Loaded",
    "NoMap",
    "Prediction",
    "build_network",
    "check_name",
    "check_one_output",
    "expected_colours",
    "load_state",
    "network_names",
    "read_imagenet_weights",
    "read_weights",
    "resized",
]
