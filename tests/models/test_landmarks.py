"""Networks: any torchvision classifier, the mean shape at the start, normalisation inside, points in full precision."""

import numpy as np
import pytest
import torch
import torchvision

from models import build_network, network_names
from models.landmarks import LandmarkHead, last_layer

SHAPE = np.random.default_rng(0).uniform(10, 50, (7, 2))


@pytest.mark.parametrize(
    "model",
    ["resnet18", "inception_v3", "googlenet", "densenet121", "resnext50_32x4d", "convnext_tiny", "squeezenet1_1",
     "mobilenet_v3_small", "efficientnet_b0", "vit_b_16", "swin_t", "vgg11", "regnet_y_400mf", "shufflenet_v2_x0_5"],
)  # fmt: skip
def test_any_kind_of_backbone_gives_points(model):
    size = 80 if model == "inception_v3" else 64
    network = build_network(model, SHAPE, size).eval()
    with torch.no_grad():
        points = network(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8))
    assert points.shape == (2, 7, 2)
    assert points.dtype == torch.float32


@pytest.mark.parametrize(
    "model", [name for name in network_names() if not name.startswith(("regnet", "maxvit", "vit_h"))]
)
def test_every_backbone_of_torchvision_has_its_head_replaced(model):
    with torch.device("meta"):
        layer = last_layer(build_network(model, SHAPE, 64).backbone)[1]
    assert layer.weight.shape[0] == 14
    assert isinstance(layer, LandmarkHead) or model.startswith("squeezenet")


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"resnet19.*resnet18"):
        build_network("resnet19", SHAPE, 64)


def test_a_network_with_no_output_of_its_own_is_the_mean_shape():
    network = build_network("resnet18", SHAPE, 64).eval()
    torch.nn.init.zeros_(network.head.weight)
    points = network(torch.zeros(3, 3, 64, 64, dtype=torch.uint8))
    torch.testing.assert_close(points, torch.as_tensor(SHAPE, dtype=torch.float32).expand(3, 7, 2))


def test_normalisation_is_that_of_torchvisions_weights():
    network = build_network("resnet18", SHAPE, 64).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    normalised = (images / 255 - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1)
    with torch.no_grad():
        expected = network.mean_shape + 8 * network.backbone(normalised).view(2, 7, 2)
        torch.testing.assert_close(network(images), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(network(images.float()), network(images))


def test_the_head_computes_in_float32_under_autocast():
    head = LandmarkHead(512, 14)
    features = torch.randn(4, 512).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        points = head(features)
    assert points.dtype == torch.float32
    torch.testing.assert_close(points, torch.nn.functional.linear(features.float(), head.weight, head.bias))
