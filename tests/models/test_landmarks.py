"""Networks: any torchvision classifier, the mean shape at the start, normalisation inside, points in full precision."""

from unittest import mock

import numpy as np
import pytest
import torch
import torchvision

from models import build_network, load_state, network_names
from models.landmarks import ADDED_LATER
from models.linear import BehindHead, ConvolutionalHead, LandmarkHead
from models.without_values import without_values

SHAPE = np.random.default_rng(0).uniform(10, 50, (7, 2))

# One of each family, with a size that it takes.
FAMILIES = {
    "alexnet": 64, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "googlenet": 64, "inception_v3": 80,
    "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "regnet_y_400mf": 64,
    "resnet18": 64, "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64, "swin_t": 64,
    "swin_v2_t": 64, "vgg11": 64, "vit_b_32": 64,
}  # fmt: skip


@pytest.mark.parametrize("model", FAMILIES)
def test_an_untrained_network_gives_nearly_the_mean_shape_and_its_head_moves_points_in_all_directions(model):
    """As training sees it: in eval mode, before there are statistics, the values of Inception grow without bound."""
    size = FAMILIES[model]
    torch.manual_seed(0)
    network = build_network(model, SHAPE * size / 64, size)
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        points = network(images)
        assert points.shape == (2, 7, 2)
        assert points.dtype == torch.float32
        assert (points - network.mean_shape).square().mean().sqrt() < 0.03 * size
        moves = 0.1 * torch.randn(7, 2)
        network.head.weight.zero_()
        network.head.bias.copy_(moves.flatten())
        moved = network.eval()(images) - network.mean_shape
    torch.testing.assert_close(moved, (network.decoder.unit * moves).expand(2, 7, 2), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_every_backbone_has_a_head_of_ours_and_is_computed_as_one_of_those_above():
    """So what holds for one of a family holds for all: they share the code that follows the head."""
    kinds = {}
    fills = [name for name in vars(torch.nn.init) if name.endswith("_") and not name.startswith("_")]
    nothing = dict.fromkeys(fills, lambda tensor, *_, **__: tensor)  # there are no values, and it takes long
    with without_values(), mock.patch.multiple(torch.nn.init, **nothing):
        for model in network_names():
            network = build_network(model, SHAPE, FAMILIES.get(model, 224))
            kinds[model] = type(network.backbone)
            assert type(network.head) is (ConvolutionalHead if model.startswith("squeezenet") else LandmarkHead), model
            assert network.head.weight.shape[0] == 14, model
            modules = list(network.backbone.modules())
            behind = modules[modules.index(network.head) + 1 :]
            allowed = (BehindHead, torch.nn.AdaptiveAvgPool2d) if model.startswith("squeezenet") else ()
            assert all(isinstance(module, allowed) for module in behind), model
    assert set(kinds.values()) == {kinds[model] for model in FAMILIES}


def test_an_unknown_backbone_is_refused_with_those_that_have_nearly_its_name():
    with pytest.raises(ValueError, match=r"'resnet_18' is none of .*; did you mean resnet18( or \w+){0,2}\?$"):
        build_network("resnet_18", SHAPE, 64)
    with pytest.raises(ValueError, match=r"ConvNeXt_Tiny.*convnext_tiny"):
        build_network("ConvNeXt_Tiny", SHAPE, 64)
    with pytest.raises(ValueError, match="listed at https://"):
        build_network("?", SHAPE, 64)


def test_points_of_images_as_they_are_lie_where_labels_do_and_others_where_they_are_shown():
    network = build_network("resnet18", SHAPE, 64).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        shown = network(images)
        network.label_shift.copy_(torch.tensor([0.25, -0.125]))
        torch.testing.assert_close(network.predict(images).points, shown)
        torch.testing.assert_close(network(images), shown + torch.tensor([0.5, -0.25]))


def test_a_head_of_an_earlier_version_gives_the_points_that_it_gave_and_learns_what_is_new():
    """It corrected no points by the others. A network that starts from it does, by the shapes that it is trained on."""
    components = np.random.default_rng(0).normal(size=(14, 7, 2))
    network = build_network("resnet18", SHAPE, 64, head="integral").eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    earlier = {name: tensor for name, tensor in network.state_dict().items() if name not in ADDED_LATER}
    assert len(network.state_dict()) - len(earlier) == 4
    with torch.no_grad():
        expected = network(images)
        found, begun = (build_network("resnet18", SHAPE + 1, 64, head="integral").eval() for _ in range(2))
        found.load_state_dict(earlier)
        begun.start_from(components)
        load_state(begun, earlier)
        for each in (found, begun):
            torch.testing.assert_close(each(images), expected)
    assert not found.decoder.points.correction.components.any()
    assert begun.decoder.points.correction.components.all()


@pytest.mark.parametrize("model", ["resnet18", "squeezenet1_1"])
def test_a_checkpoint_of_an_earlier_version_gives_the_points_that_it_gave(model):
    """It had no normalisation in it, which was ImageNet's, and SqueezeNet's head a ReLU behind it."""
    network = build_network(model, SHAPE, 64).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    if model == "squeezenet1_1":
        network.backbone.classifier[2] = torch.nn.ReLU()
    added = ("colour_mean", "colour_std", "label_shift")
    earlier = {name: tensor for name, tensor in network.state_dict().items() if name not in added}
    with torch.no_grad():
        expected = network(images)
        for _ in range(2):  # the second time from what is written today
            found = build_network(model, SHAPE + 1, 64).eval()
            found.colour_mean.fill_(1)
            found.load_state_dict(earlier)
            torch.testing.assert_close(found(images), expected)
            earlier = found.state_dict()


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


@pytest.mark.parametrize("model", ["resnet18", "squeezenet1_1"])
def test_the_head_computes_in_float32_under_autocast(model):
    """And what is behind it: bf16 knows 200.0 and 201.0, and nothing between them."""
    network = build_network(model, SHAPE, 64).eval()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, 1 / 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        points = network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert points.dtype == torch.float32
    torch.testing.assert_close(points[0], network.mean_shape + 8 / 3)
