"""Heads on maps: the mean shape at the start, any backbone, any size of image, points outside, full precision."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
import torchvision

from models import build_network, load_state, resized
from models.backbones import COARSEST, FINEST, as_maps, build_classifier, build_pyramid, last_layer
from models.heads import EXTENT, FARTHEST, HEADS, SPREAD, WIDTH, Correction, TopDown, cells, pooled
from models.without_values import without_values
from tests.models.test_landmarks import FAMILIES, SHAPE

SIZE = 64


@functools.cache
def built_network(head, model, size, **options):
    torch.manual_seed(0)
    return build_network(model, SHAPE * size / 64, size, head=head, **options)


def network_of(head, model="resnet18", size=SIZE, **options):
    """A network of the test's own, of which each kind is built once, for that takes longer than most tests."""
    network = copy.deepcopy(built_network(head, model, size, **options))
    torch.manual_seed(0)
    return network


def images_of(size, count=2):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", FAMILIES)
def test_every_family_has_maps_that_halve_from_one_to_the_next(model):
    size = max(FAMILIES[model], 64)
    with without_values():
        _backbone, levels, _ = build_pyramid(model, size=size)
        merged = TopDown(levels, 8)
    assert levels[0].stride >= FINEST
    assert levels[-1].stride <= COARSEST
    assert [level.stride for level in levels] == sorted({level.stride for level in levels})
    assert any(level.stride == 8 for level in levels) or len(levels) == 1  # one map: of a vision transformer
    assert merged.smooth[0].out_channels == WIDTH
    network = build_network(model, SHAPE * size / 64, size, head="integral")  # in train mode: Inception's values
    count = 1 if size > 200 else 2
    with torch.no_grad():
        points = network(images_of(size, count))
    assert points.shape == (count, 7, 2)
    assert (points - network.mean_shape).square().mean().sqrt() < 0.05 * size


@pytest.mark.parametrize(
    "model",
    [
        "resnet18",
        "densenet121",
        "mobilenet_v2",
        "efficientnet_b0",
        "regnet_y_400mf",
        "shufflenet_v2_x0_5",
        "mnasnet0_5",
        "googlenet",
        "inception_v3",
        "swin_t",
        "swin_v2_t",
    ],
)
def test_the_mean_of_the_coarsest_map_is_what_the_classes_are_read_from(model):
    size = max(FAMILIES.get(model, 64), 96)
    torch.manual_seed(0)
    classifier = build_classifier(model, num_outputs=3, size=size).eval()
    backbone, levels, _ = build_pyramid(model, size=size)
    backbone.load_state_dict({name: classifier.state_dict()[name] for name in backbone.state_dict()})
    read: list[torch.Tensor] = []
    last_layer(classifier)[1].register_forward_pre_hook(lambda layer, inputs: read.append(inputs[0]))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        classifier(images)
        maps = as_maps(backbone.eval()(images))
    assert [level.shape[1] for level in maps] == [level.channels for level in levels]
    assert levels[-1].stride == 32
    torch.testing.assert_close(pooled(maps[-1]), read[0].flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_an_untrained_head_predicts_nearly_the_mean_shape(head):
    network = network_of(head).eval()
    with torch.no_grad():
        points = network(images_of(SIZE))
    assert (points - network.mean_shape).square().mean().sqrt() < 0.05 * SIZE


@pytest.mark.parametrize("head", ["linear", "low_rank", "integral"])
def test_weights_of_images_of_another_size_predict_the_same_in_shares_of_the_image(head):
    small, large = (network_of(head, size=size, with_scale=True).eval() for size in (48, SIZE))
    small.start_from(np.random.default_rng(0).normal(size=(14, 7, 2)))
    with torch.no_grad():
        for name, tensor in small.named_parameters():
            if name in small.names_of_head():
                tensor.add_(0.01 * torch.randn_like(tensor))
    load_state(large, resized(small.state_dict(), 48, SIZE))
    with torch.no_grad():
        one, other = small.predict(images_of(SIZE)), large.predict(images_of(SIZE))
    torch.testing.assert_close((one.points + 0.5) / 48, (other.points + 0.5) / SIZE)
    torch.testing.assert_close(one.log_scale - math.log(48), other.log_scale - math.log(SIZE))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_points_by_heart(head):
    """The head alone, from maps."""
    network = network_of(head)
    truth = torch.rand(4, 7, 2, generator=torch.Generator().manual_seed(2)) * 40 + 12
    with torch.no_grad():  # maps of images that have nothing in common
        maps = {name: torch.randn_like(level) for name, level in network.backbone(torch.rand(4, 3, SIZE, SIZE)).items()}
    optimiser = torch.optim.Adam(network.decoder.parameters(), 3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        points = network.decoder(maps, network.mean_shape).points
        (points - truth).abs().mean().backward()
        optimiser.step()
    assert (points - truth).abs().mean() < 0.3 * (network.mean_shape - truth).abs().mean()


@pytest.mark.parametrize("head", HEADS)
def test_points_are_in_pixels_of_one_size_whatever_the_size_of_the_image(head):
    """A head that has learned where points are on images of one size finds them near there on the same of another."""
    network = network_of(head).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        before = network(images)
        for shown in (32, 96):
            after = network(torch.nn.functional.interpolate(images.float(), size=(shown, shown), mode="bilinear"))
            assert (after - before).abs().max() < 0.05 * SIZE


@pytest.mark.parametrize("head", HEADS)
def test_points_are_float32_under_autocast_and_near_those_without(head):
    network = network_of(head).eval()
    images = images_of(SIZE)
    with torch.no_grad():
        expected = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.3
    assert (found != found.bfloat16()).any()


@pytest.mark.parametrize("head", ["flat", "low_rank"])
def test_what_a_head_of_one_layer_makes_of_a_map_is_the_same_under_autocast(head):
    network = network_of(head)
    with torch.no_grad():
        maps = network.backbone(torch.rand(2, 3, SIZE, SIZE))
        expected = network.decoder(maps, network.mean_shape).points
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network.decoder(maps, network.mean_shape).points, expected)


@pytest.mark.parametrize("head", ["linear", *HEADS])
def test_a_network_with_scales_says_one_for_each_point(head):
    network = network_of(head, with_scale=True).eval()
    assert network.predict(images_of(SIZE)).log_scale.shape == (2, 7)
    torch.testing.assert_close(
        network.predict(images_of(SIZE)).log_scale.exp(), torch.full((2, 7), SIZE / 16), rtol=0.3, atol=0
    )
    assert network_of(head).predict(images_of(SIZE)).log_scale is None


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_the_integral_is_the_expectation_that_kornia_computes(strength):
    """Under the softmax of a convolution's logits and those of a normal distribution around the mean shape."""
    kornia = pytest.importorskip("kornia")
    network = network_of("integral").eval()
    head = network.decoder.points
    with torch.no_grad():
        head.strength.fill_(strength)
        head.logits.weight.mul_(50)
        head.logits.bias.normal_()
        caught = []
        head.merge.register_forward_hook(lambda module, inputs, output: caught.append(output))
        found = network(images_of(SIZE))
        logits = head.logits(caught[0])
        count = logits.shape[-1]
        ys, xs = torch.meshgrid(*2 * [cells(count, SIZE, device=logits.device)], indexing="ij")
        offsets = torch.stack((xs, ys), dim=2) - network.mean_shape[:, None, None]
        logits = logits - strength * offsets.square().sum(3) / (2 * (SPREAD * SIZE) ** 2)
        shares = logits.flatten(2).softmax(2).view_as(logits)
        normalised = kornia.geometry.subpix.spatial_expectation2d(shares, normalized_coordinates=False)
    expected = (normalised + 0.5) / count * EXTENT * SIZE - (EXTENT - 1) / 2 * SIZE - 0.5
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def corrected_after(num_steps, components, shapes):
    """Shapes of which each point was found with an error of its own, and what a correction that has been trained on
    others of them makes of them; root mean squares of what they are off."""
    rng = np.random.default_rng(3)
    correction = Correction(7, SIZE)
    correction.start_from(components)
    optimiser = torch.optim.Adam(correction.parameters(), 1e-2)
    mean = torch.from_numpy(SHAPE).float()

    def draw():
        truth = mean + shapes(rng, 64)
        return truth, truth + torch.from_numpy(rng.normal(size=truth.shape)).float()

    for _ in range(num_steps):
        truth, found = draw()
        optimiser.zero_grad()
        (correction(found, mean) - truth).square().mean().backward()
        optimiser.step()
    truth, found = draw()
    with torch.no_grad():
        return [(points - truth).square().mean().sqrt() for points in (found, correction(found, mean))]


def test_points_are_corrected_by_the_shape_that_they_make_with_the_others():
    """Two ways to differ have fourteen coordinates with errors of their own: all but two in fourteen can be undone. By
    how far the shapes differ, in pixels, does not matter."""
    ways = np.random.default_rng(4).normal(size=(14, 7, 2))
    deviations = np.array([8.0, 3.0, *[0.3] * 12])[:, None, None]
    ways = np.linalg.qr(ways.reshape(14, 14))[0].reshape(14, 7, 2) * deviations

    def shapes(rng, count):
        return torch.from_numpy(np.tensordot(rng.normal(size=(count, 2)), ways[:2], axes=1)).float()

    before, untrained = corrected_after(0, ways, shapes)
    assert before == untrained
    before, after = corrected_after(400, ways, shapes)
    assert after < 0.55 * before


def test_a_shape_unlike_all_others_is_corrected_no_further_than_one_at_the_bounds():
    correction = Correction(7, SIZE)
    correction.start_from(np.random.default_rng(4).normal(size=(14, 7, 2)))
    with torch.no_grad():
        correction.linear.weight.normal_()
        mean = torch.from_numpy(SHAPE).float()
        far = mean + 1e4 * torch.randn(5, 7, 2)
        bound = FARTHEST * SIZE / 64 * correction.linear.weight.abs().sum(1).view(7, 2)
        assert ((correction(far, mean) - far).abs() <= bound + 0.01).all()


def test_components_that_never_vary_and_those_that_are_not_there_are_read_as_numbers():
    correction = Correction(7, SIZE)
    correction.start_from(np.zeros((3, 7, 2)))
    mean = torch.from_numpy(SHAPE).float()
    assert torch.equal(correction(mean[None] + 1, mean), mean[None] + 1)


def test_maps_with_channels_last_are_known_where_one_of_them_has_as_many_channels_as_rows():
    """Those of a Swin at 384 px."""
    outputs = {"a": torch.zeros(1, 96, 96, 96), "b": torch.zeros(1, 48, 48, 192)}
    outputs["a"][..., 5] = 1
    first, second = as_maps(outputs)
    assert second.shape == (1, 192, 48, 48)
    assert (first[0, 5] == 1).all()
    assert first.sum() == 96 * 96


def test_cells_cover_the_image_and_an_eighth_more_on_each_side():
    centres = cells(20, SIZE, device=torch.device("cpu"))
    width = EXTENT * SIZE / 20
    assert centres[0] - width / 2 == pytest.approx(-0.5 - SIZE / 8)
    assert centres[-1] + width / 2 == pytest.approx(SIZE - 0.5 + SIZE / 8)


def test_the_distributions_of_simcc_have_the_points_as_their_means():
    found = network_of("simcc").eval().predict(images_of(SIZE))
    x_logits, y_logits, x_bins, y_bins = found.distributions
    assert x_logits.shape == y_logits.shape == (2, 7, round(EXTENT * SIZE))
    means = torch.stack((x_logits.softmax(2) @ x_bins, y_logits.softmax(2) @ y_bins), dim=2)
    torch.testing.assert_close(means, found.points)


def test_a_low_rank_head_predicts_in_the_space_that_it_was_started_from():
    components = np.random.default_rng(0).normal(size=(3, 7, 2))
    network = network_of("low_rank").eval()
    network.start_from(components)
    head = network.decoder.points
    with torch.no_grad():
        head.linear.weight[3:] = 0
        head.linear.weight[:3].mul_(100)
        offsets = (network(images_of(SIZE)) - network.mean_shape).flatten(1).numpy()
    basis = components.reshape(3, -1)
    projected = offsets @ np.linalg.pinv(basis) @ basis
    np.testing.assert_allclose(projected, offsets, atol=1e-3)
    assert np.abs(offsets).max() > 0.1


def test_a_backbone_may_end_at_a_finer_map_and_then_has_the_layers_before_it_alone():
    whole, cut = network_of("integral"), network_of("integral", deepest_stride=16)
    left_out = {name for name in whole.backbone.state_dict() if name.startswith("layer4")}
    assert whole.backbone.state_dict().keys() - cut.backbone.state_dict().keys() == left_out != set()
    assert {f"backbone.{name}" for name in left_out} <= cut.left_out
    with pytest.raises(ValueError, match="vit_b_32 has no map of a stride of 16"):
        build_network("vit_b_32", SHAPE, 64, head="integral", deepest_stride=16)


@pytest.mark.parametrize("model", ["resnet18", "vgg11", "squeezenet1_1", "densenet121", "swin_t"])
def test_a_backbone_of_maps_starts_from_torchvisions_weights_and_leaves_out_the_classifier_alone(model):
    size = FAMILIES[model]
    source = torchvision.models.get_model(model).state_dict()
    network = network_of("integral", model=model, size=size)
    loaded = load_state(network, {f"backbone.{name}": tensor for name, tensor in source.items()})
    assert not loaded.missing
    assert not loaded.left_over
    assert loaded.missing_of_head
    assert loaded.num_loaded == len(network.backbone.state_dict())
    assert all(torch.equal(tensor, source[name]) for name, tensor in network.backbone.state_dict().items())


def test_the_maps_are_those_that_torchvision_computes():
    network = network_of("integral").eval()
    source = torchvision.models.resnet18().eval()
    source.load_state_dict(network.backbone.state_dict(), strict=False)
    images = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = [source.layer1(source.maxpool(source.relu(source.bn1(source.conv1(images)))))]
        for layer in (source.layer2, source.layer3, source.layer4):
            expected.append(layer(expected[-1]))
        for found, own in zip(network.backbone(images).values(), expected, strict=True):
            torch.testing.assert_close(found, own)
