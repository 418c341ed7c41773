"""What a training will need is what arithmetic says of its network."""

import weakref
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from models import Prediction, build_network
from pipeline.progress import format_seconds
from pipeline.recipe import OptimiserOptions, PhotoOptions, Recipe
from pipeline.runtime import Runtime
from pipeline.training.callbacks import TimeEstimate, time_line
from pipeline.training.estimate import network_cost, num_moments
from pipeline.training.optim import OPTIMISERS, build_optimiser

CPU = Runtime(torch.device("cpu"), "fp32")


class Small(nn.Module):
    """A convolution, a norm with statistics, dropout and a linear layer."""

    def __init__(self):
        super().__init__()
        self.seen: list[weakref.ref] = []
        self.convolution, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.dropout, self.linear = nn.Dropout(), nn.Linear(4 * 8 * 8, 10)

    def predict(self, images):
        features = self.norm(self.convolution(images.float())).sigmoid()
        self.seen.append(weakref.ref(features))
        return Prediction(self.linear(self.dropout(features.flatten(1))).view(len(images), 5, 2))


def test_parameters_operations_and_memory_are_those_of_the_layers():
    cost = network_cost(Small(), size=8, runtime=CPU)
    assert cost.num_parameters == 3 * 4 * 9 + 2 * 4 + 4 * 64 * 10 + 10
    assert cost.flops == 2 * 64 * 3 * 9 * 4 + 2 * 4 * 64 * 10
    image, feature = 3 * 8 * 8 * 4, 4 * 8 * 8 * 4  # bytes
    assert cost.per_photo == image + 2 * feature  # of the convolution, the norm and the linear layer
    assert cost.step_bytes(10, moments=0) - cost.step_bytes(4, moments=0) == 6 * cost.per_photo
    assert cost.step_bytes(1, moments=100) >= 4 * (3 * cost.num_parameters + 100)
    more, less = (cost.checkpoint_bytes(keep_best=count, moments=100) for count in (3, 0))
    assert more - less == 3 * 4 * cost.num_parameters


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_an_optimiser_keeps_is_counted(name):
    network = build_network("resnet18", np.zeros((3, 2)), 64)
    optimiser = build_optimiser(network, OptimiserOptions(optimiser=name))
    counted = num_moments(optimiser)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    kept = [value for state in optimiser.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    assert counted == sum(value.numel() for value in kept) > 0


def test_the_network_and_the_random_numbers_are_left_as_they_are():
    network = Small()
    before, random = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    network_cost(network, size=8, runtime=CPU)
    assert torch.equal(random, torch.get_rng_state())
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_nothing_of_the_measurement_stays_in_memory():
    network = Small()
    with mock.patch("copy.deepcopy", lambda same: same):
        network_cost(network, size=8, runtime=CPU)
    assert [seen() for seen in network.seen] == [None, None]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (OptimiserOptions(epochs=3), "01:00 an epoch, 02:24 to the end of epoch 3, without validation"),
        (OptimiserOptions(minutes=8.5), "01:00 an epoch, about 7.5 more in 8.5 minutes, without validation"),
    ],
)
@pytest.mark.parametrize("size", [64, 128])
def test_the_time_is_what_the_steps_that_were_timed_say(options, said, size):
    trainer = SimpleNamespace(
        recipe=Recipe(optimiser=options, photos=PhotoOptions(size=128)),
        state=SimpleNamespace(step=60, minutes=1.0),
        steps_per_epoch=100,
        image_size=lambda step: size,
    )
    line = time_line(trainer, per_step=0.01)
    assert said in line
    assert ("larger ones take longer" in line) == (size == 64)


@pytest.mark.parametrize("in_an_epoch", [12, 100])
def test_the_time_is_said_once_whatever_the_length_of_an_epoch_and_without_validation(in_an_epoch, capsys):
    """Steps take about a hundredth of a minute, the first ones more; validation takes five minutes."""
    trainer = SimpleNamespace(
        recipe=Recipe(optimiser=OptimiserOptions(epochs=10)),
        state=SimpleNamespace(step=0, minutes=0.0),
        steps_per_epoch=in_an_epoch,
        image_size=lambda step: 128,
        runtime=CPU,
    )
    estimate = TimeEstimate()
    estimate.begin(trainer)
    for _ in range(120 // in_an_epoch):
        for _ in range(in_an_epoch):
            trainer.state.step += 1
            trainer.state.minutes += 0.0101 if trainer.state.step > 10 else 1
            if trainer.state.step % 10 == 0:
                estimate.after_flush(trainer, [])
            estimate.after_step(trainer)
        estimate.after_flush(trainer, [])
        trainer.state.minutes += 5
        estimate.after_epoch(trainer, None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert f"{format_seconds(0.606 * in_an_epoch)} an epoch" in lines[0]
