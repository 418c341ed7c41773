"""Rates, decay and the average of the weights do what the recipe says."""

import numpy as np
import pytest
import torch
from torch import nn

from models import build_network
from pipeline.recipe import OptimiserOptions
from pipeline.training.averaging import WeightAverage
from pipeline.training.optim import build_optimiser, freeze_backbone
from pipeline.training.schedules import build_schedule, cosine_rate


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("resnet18", np.zeros((3, 2)), 64)


def test_only_matrices_and_filters_decay(network):
    decayed, spared = build_optimiser(network, OptimiserOptions()).param_groups
    assert decayed["weight_decay"] == 0.05
    assert spared["weight_decay"] == 0
    spared_ids = {id(parameter) for parameter in spared["params"]}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            assert (id(parameter) in spared_ids) == (isinstance(module, nn.BatchNorm2d) or name == "bias")


def test_the_rate_warms_up_and_falls_along_a_cosine_to_nothing():
    rates = [cosine_rate(progress, highest=2.0, warmup=0.1) for progress in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0, abs=1e-9)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


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


def test_a_frozen_backbone_keeps_its_weights_and_statistics(network):
    freeze_backbone(network, frozen=True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimiser = build_optimiser(network, OptimiserOptions(learning_rate=0.1))
    network(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)).square().sum().backward()
    optimiser.step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"backbone.fc.weight", "backbone.fc.bias"}
    freeze_backbone(network, frozen=False)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
