"""Optimisers, decay, rates by stage and the average of the weights do what the recipe says."""

import copy
import functools
from contextlib import nullcontext

import numpy as np
import pytest
import schedulefree
import torch
from torch import nn

from models import build_network
from models.landmarks import READ
from models.without_values import without_values
from pipeline.checkpoint import DAMAGE
from pipeline.recipe import OptimiserOptions
from pipeline.training.averaging import WeightAverage, build_average
from pipeline.training.optim import (
    OPTIMISERS,
    backbone_stages,
    build_optimiser,
    freeze_backbone,
    hidden_matrices,
    parameter_groups,
    rate_of,
    set_rate,
)
from pipeline.training.optimisers import DecoupledSGD, Lion, Muon, orthogonalise
from pipeline.training.schedules import build_schedule
from pipeline.training.state import load_optimiser
from tests.models.test_landmarks import FAMILIES


@functools.cache
def built():
    torch.manual_seed(0)
    return build_network("resnet18", np.zeros((3, 2)), 64)


@pytest.fixture
def network():
    """One of the test's own; to build it takes longer than most tests."""
    found = copy.deepcopy(built())
    torch.manual_seed(0)
    return found


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_only_matrices_and_filters_decay(network, optimiser):
    groups = build_optimiser(network, OptimiserOptions(optimiser=optimiser)).param_groups
    decay = {id(each): group.get("decay", group["weight_decay"]) for group in groups for each in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            spared = isinstance(module, nn.BatchNorm2d) or name in ("bias", "label_shift")
            assert decay[id(parameter)] == (0 if spared else 0.05)


@pytest.mark.parametrize("model", [*FAMILIES, "timm/convnext_atto", "timm/vit_tiny_patch16_224", "timm/mobilevit_xxs"])
def test_of_every_family_only_weights_of_layers_decay(model):
    """Not embeddings of positions or classes, nor scales of channels, whatever their shape."""
    of_timm = model.startswith("timm/")
    if of_timm:
        pytest.importorskip("timm")
    with nullcontext() if of_timm else without_values():  # timm's builders compute with values
        network = build_network(model, np.zeros((3, 2)), FAMILIES.get(model, 64))
    names = {parameter: name for name, parameter in network.backbone.named_parameters()}
    groups = parameter_groups(network, OptimiserOptions())
    decayed = {names[each] for group in groups if group["weight_decay"] for each in group["params"] if each in names}
    assert {name.rpartition(".")[2] for name in decayed} <= {"weight", "in_proj_weight"}


def test_weights_decay_by_the_rate_times_the_decay_with_sgd_as_with_adamw():
    """Whatever the momentum; and without decay it is torch's."""
    for optimiser in ("sgd", "adamw"):
        network = build_network("resnet18", np.zeros((3, 2)), 64)
        before = network.backbone.conv1.weight.detach().clone()
        built = build_optimiser(network, OptimiserOptions(optimiser=optimiser, learning_rate=0.1, weight_decay=0.5))
        for _ in range(3):
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            built.step()
        torch.testing.assert_close(network.backbone.conv1.weight.detach(), before * 0.95**3)
    own, other = ([nn.Parameter(torch.ones(3, 2))] for _ in range(2))
    decoupled = DecoupledSGD([{"params": own, "weight_decay": 0.0}], lr=0.1, momentum=0.9, nesterov=True)
    of_torch = torch.optim.SGD(other, lr=0.1, momentum=0.9, nesterov=True)
    gradients = [[torch.randn(3, 2)] for _ in range(4)]
    assert torch.equal(*(steps_of(*each, gradients)[0] for each in ((decoupled, own), (of_torch, other))))


def steps_of(optimiser, parameters, gradients):
    """The parameters after a step on each of some lists of gradients."""
    for each in gradients:
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = gradient.clone()
        optimiser.step()
    return [parameter.detach() for parameter in parameters]


@pytest.fixture
def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (4, 9), (5,))]


@pytest.fixture
def gradients(parameters):
    return [[torch.randn_like(parameter) for parameter in parameters] for _ in range(7)]


def test_lion_is_that_of_its_paper(parameters, gradients):
    expected = [parameter.detach().double().numpy().copy() for parameter in parameters]
    momenta = [np.zeros_like(each) for each in expected]
    for each in gradients:
        for index, gradient in enumerate(map(torch.Tensor.numpy, each)):
            direction = np.sign(0.8 * momenta[index] + 0.2 * gradient)
            expected[index] -= 0.01 * (direction + 0.3 * expected[index])
            momenta[index] = 0.95 * momenta[index] + 0.05 * gradient
    lion = Lion([{"params": parameters, "weight_decay": 0.3}], lr=0.01, betas=(0.8, 0.95))
    for found, own in zip(steps_of(lion, parameters, gradients), expected, strict=True):
        np.testing.assert_allclose(found, own, atol=1e-6)


def test_muon_moves_matrices_as_torchs_own_and_the_rest_as_adamw(parameters, gradients):
    """Torch's is in bf16, so that the two differ by some hundredths of an update."""
    theirs = copy.deepcopy(parameters)
    settings = {"lr": 0.1, "weight_decay": 0.2}
    reference = torch.optim.Muon(theirs[:2], **settings, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    expected = steps_of(reference, theirs[:2], [each[:2] for each in gradients])
    expected += steps_of(torch.optim.AdamW(theirs[2:], **settings), theirs[2:], [each[2:] for each in gradients])
    groups = [
        {"params": parameters[:2], "weight_decay": 0.2, "hidden": True},
        {"params": parameters[2:], "weight_decay": 0.2, "hidden": False},
    ]
    muon = Muon(groups, lr=0.1, momentum=0.9, beta2=0.999)
    for found, own in zip(steps_of(muon, parameters, gradients), expected, strict=True):
        torch.testing.assert_close(found, own, atol=0.03, rtol=0)
    assert torch.equal(parameters[2], theirs[2])
    assert all(parameter.grad is not None for parameter in parameters)


@pytest.mark.parametrize("shape", [(3, 50), (50, 3), (16, 16), (1, 7)])
def test_singular_values_of_a_muon_update_are_about_one(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape) * 1e-3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix).float()
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.1  # a singular value near 0 grows by 3.4 a step
    assert values.max() < 1.3
    assert (found * (left @ right)).sum() / found.norm() / (left @ right).norm() > 0.9


def test_muon_moves_hidden_filters_as_matrices_and_neither_the_first_layer_nor_the_head(network):
    hidden = hidden_matrices(network)
    backbone = network.backbone
    assert backbone.layer1[0].conv1.weight in hidden
    assert not hidden & {backbone.conv1.weight, *network.head.parameters(), backbone.bn1.weight}
    mobile = build_network("mobilenet_v3_small", np.zeros((3, 2)), 64)
    assert all(filters.shape[1] > 1 for filters in hidden_matrices(mobile))  # depthwise ones are no matrix
    options = OptimiserOptions(optimiser="muon", learning_rate=0.01, adamw_factor=0.1, weight_decay=0)
    optimiser = build_optimiser(network, options)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    for name, parameter in network.named_parameters():
        moved = (parameter.detach() - before[name]).square().mean().sqrt().item()
        if parameter in hidden:
            assert 0.2 * 0.01 * 0.6 < moved < 0.2 * 0.01 * 1.3, name
        else:
            assert moved == pytest.approx(0.001, rel=0.1), name


def test_a_schedule_free_run_keeps_the_average_that_its_optimiser_has_found(network):
    options = OptimiserOptions(optimiser="schedule_free", learning_rate=0.01, weight_decay=0.1)
    theirs = copy.deepcopy(network)
    decayed, spared = ([p for p in theirs.parameters() if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
    reference = schedulefree.AdamWScheduleFree(
        [{"params": decayed, "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}], lr=0.01
    )
    reference.train()
    optimiser = build_optimiser(network, options)
    average = build_average(network, optimiser, 0.9)
    for _ in range(3):
        images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
        for each, steps in ((network, optimiser), (theirs, reference)):
            each.zero_grad()
            each(images).square().sum().backward()
            steps.step()
        average.update()
    reference.eval()
    for own, expected in zip(average.network.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-4)
    assert not torch.equal(network.head.weight, average.network.head.weight)
    assert average.network.backbone.bn1.running_mean.any()


STAGES = {
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "vit_b_16": ["conv_proj", *(f"encoder.layers.encoder_layer_{index}" for index in range(12))],
    "convnext_tiny": [f"features.{index}" for index in range(8)],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{index}" for index in range(1, 5))],
    "densenet121": [
        "features.conv0",
        *(f"features.{name}" for index in (1, 2, 3) for name in (f"denseblock{index}", f"transition{index}")),
        "features.denseblock4",
    ],
}


@pytest.mark.parametrize("model", STAGES)
def test_stages_are_the_backbones_own(model):
    with torch.device("cpu" if "regnet" in model else "meta"):  # whose builder computes with tensors
        network = build_network(model, np.zeros((3, 2)), 64)
    names = {parameter: name for name, parameter in network.backbone.named_parameters()}
    stages = [[names[parameter] for parameter in stage] for stage in backbone_stages(network)]
    assert len(stages) == len(STAGES[model])
    for stage, expected in zip(stages, STAGES[model], strict=True):
        assert any(name.startswith(f"{expected}.") for name in stage)
    assert sorted(name for stage in stages for name in stage) == sorted(
        name for parameter, name in names.items() if not any(parameter is own for own in network.head.parameters())
    )


@pytest.mark.parametrize("model", ["vgg11_bn", "swin_t", "squeezenet1_1", "inception_v3", "efficientnet_b0"])
def test_every_backbone_has_stages_that_hold_each_weight_once(model):
    with torch.device("meta"):
        network = build_network(model, np.zeros((3, 2)), 96)
    stages = backbone_stages(network)
    assert len(stages) >= 4
    found = [parameter for stage in stages for parameter in stage]
    assert len(found) == len(set(found)) == len(list(network.backbone.parameters())) - 2


def test_a_backbone_of_maps_has_the_stages_of_its_classifier():
    network = build_network("resnet18", np.zeros((3, 2)), 64, head="integral")
    stages = backbone_stages(network)
    assert [sum(parameter.numel() for parameter in stage) for stage in stages] == [
        sum(parameter.numel() for parameter in stage)
        for stage in backbone_stages(build_network("resnet18", np.zeros((3, 2)), 64))
    ][-len(stages) :]
    assert len(stages) == 5
    assert not hidden_matrices(network) & set(network.head.parameters())


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_each_earlier_stage_has_the_rate_of_the_next_times_the_factor(network, optimiser):
    options = OptimiserOptions(optimiser=optimiser, layer_decay=0.5, learning_rate=0.8, schedule="constant", warmup=0)
    built = build_optimiser(network, options)
    build_schedule(built, options, steps_per_epoch=1).before_step(0.5)
    rates = {parameter: group["lr"] for group in built.param_groups for parameter in group["params"]}
    assert rates[network.head.weight] == rates[network.head.bias] == 0.8
    backbone = network.backbone
    assert rates[backbone.layer4[0].conv1.weight] == rates[backbone.layer4[1].bn2.bias] == 0.4
    assert rates[backbone.layer1[0].conv1.weight] == 0.05
    assert rates[backbone.conv1.weight] == rates[backbone.bn1.weight] == 0.025
    assert rate_of(built) == 0.8
    set_rate(built, 0.08)
    assert rate_of(built) == pytest.approx(0.08)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_checkpoint_of_an_optimiser_goes_on_to_the_bit_and_another_is_refused(optimiser):
    """With a network whose matrices are small, since Muon takes long for those of a ResNet."""
    torch.manual_seed(0)
    network = build_network("shufflenet_v2_x0_5", np.zeros((3, 2)), 64)
    options = OptimiserOptions(optimiser=optimiser, layer_decay=0.7)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)

    def train(each, steps, count):
        for _ in range(count):
            each.zero_grad()
            each(images).square().mean().backward()
            steps.step()
        return each

    whole = copy.deepcopy(network)
    train(whole, build_optimiser(whole, options), 4)
    cut = build_optimiser(train(network, first := build_optimiser(network, options), 2), options)
    saved = copy.deepcopy(first.state_dict())
    load_optimiser(cut, saved)
    train(network, cut, 2)
    assert all(torch.equal(own, other) for own, other in zip(network.parameters(), whole.parameters(), strict=True))
    kept = saved["state"][0]
    for damage in (
        {**kept, "other": torch.zeros(1)},
        dict(list(kept.items())[1:]),
        {name: value[..., None] for name, value in kept.items()},
        {name: value * float("nan") for name, value in kept.items()},
    ):
        with pytest.raises(DAMAGE):
            load_optimiser(build_optimiser(network, options), {**saved, "state": {**saved["state"], 0: damage}})
    other = "sgd" if optimiser != "sgd" else "adamw"
    with pytest.raises(DAMAGE):
        load_optimiser(build_optimiser(network, OptimiserOptions(optimiser=other, layer_decay=0.7)), saved)


def test_a_schedule_free_optimiser_that_has_moved_nothing_is_loaded(network):
    options = OptimiserOptions(optimiser="schedule_free", schedule="constant")
    saved = build_optimiser(network, options).state_dict()
    assert set(map(len, saved["state"].values())) == {0}
    load_optimiser(build_optimiser(network, options), saved)


@pytest.mark.parametrize(("schedule", "patience"), [("plateau", 50), ("plateau_validation", 1)])
def test_a_plateau_is_counted_in_steps_or_in_epochs(network, schedule, patience):
    options = OptimiserOptions(schedule=schedule, plateau_patience=0.5, plateau_factor=0.7, learning_rate=1.0)
    optimiser = build_optimiser(network, options)
    plateau = build_schedule(optimiser, options, steps_per_epoch=100)
    follow = plateau.after_step if schedule == "plateau" else plateau.after_epoch
    for _ in range(patience + 1):
        follow(0.5, 1.0)
    assert optimiser.param_groups[0]["lr"] == 1.0
    follow(0.5, 1.0)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.7)


@pytest.mark.parametrize("level", [3.0, -0.9, -3.0])
def test_a_plateau_is_seen_at_losses_of_either_sign(network, level):
    """Likelihoods have losses below 0; noise of a millionth is no progress, a hundredth is."""
    options = OptimiserOptions(schedule="plateau", plateau_patience=3, plateau_factor=0.5, learning_rate=1.0, warmup=0)
    optimiser = build_optimiser(network, options)
    plateau = build_schedule(optimiser, options, steps_per_epoch=1)
    for step in range(20):
        plateau.after_step(0.5, level + 1 - 0.01 * step)
    assert rate_of(optimiser) == 1.0
    for step in range(8):
        plateau.after_step(0.5, level + 0.81 + 1e-6 * (step % 2))
    assert rate_of(optimiser) == 0.25


@pytest.mark.parametrize("schedule", ["plateau", "plateau_validation"])
def test_a_plateau_falls_to_the_lowest_rate_and_no_further(network, schedule):
    options = OptimiserOptions(
        schedule=schedule, plateau_factor=0.5, learning_rate=1.0, final_rate=0.2, layer_decay=0.5
    )
    optimiser = build_optimiser(network, options)
    plateau = build_schedule(optimiser, options, steps_per_epoch=1)
    for _ in range(20):
        plateau.after_step(0.5, 1.0)
        plateau.after_epoch(0.5, 1.0)
    for group in optimiser.param_groups:
        assert group["lr"] == pytest.approx(0.2 * group["factor"])


def test_the_average_is_that_of_its_definition(network):
    average = WeightAverage(network, 0.9)
    expected = network.head.weight.detach().clone()
    statistics = network.backbone.bn1.running_mean.clone()
    for update in range(1, 40):
        with torch.no_grad():
            network.head.weight.normal_()
            network.backbone.bn1.running_mean.normal_()
        average.update()
        decay = min(0.9, update / (update + 9))
        expected = decay * expected + (1 - decay) * network.head.weight.detach()
        statistics = decay * statistics + (1 - decay) * network.backbone.bn1.running_mean
    torch.testing.assert_close(average.network.head.weight, expected)
    torch.testing.assert_close(average.network.backbone.bn1.running_mean, statistics)
    assert not average.network.training


def test_no_average_is_the_network_itself(network):
    average = WeightAverage(network, 0.0)
    with torch.no_grad():
        network.head.weight.normal_()
    average.update()
    assert torch.equal(average.network.head.weight, network.head.weight)


@pytest.mark.parametrize("frozen", [True, False])
def test_what_of_a_head_is_held_still_stays_so_while_the_backbone_is_frozen_or_not(frozen):
    network = build_network("resnet18", np.zeros((3, 2)), 64, head="integral")
    network.decoder.points.strength.requires_grad_(False)
    freeze_backbone(network, frozen=frozen)
    held = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert "decoder.points.strength" in held
    assert any(name.startswith("backbone.") for name in held) == frozen


@pytest.mark.parametrize("head", ["linear", "low_rank", "integral", "simcc"])
def test_a_frozen_backbone_keeps_its_weights_and_statistics_and_all_of_the_head_learns(head):
    torch.manual_seed(0)
    network = build_network("resnet18", np.zeros((3, 2)), 64, head=head)
    network.start_from(np.random.default_rng(0).normal(size=(6, 3, 2)))
    freeze_backbone(network, frozen=True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimiser = build_optimiser(network, OptimiserOptions(learning_rate=0.1))
    network(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)).square().sum().backward()
    optimiser.step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == network.names_of_head() - {READ} | {"label_shift"}
    freeze_backbone(network, frozen=False)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
