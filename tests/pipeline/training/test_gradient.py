"""Parts of a batch have together the gradient of the whole: micro-batches that are accumulated are one batch."""

from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from augment import Key
from models import Prediction
from pipeline.blocks import parts
from pipeline.data.mixup import mix
from pipeline.recipe import LossOptions
from pipeline.runtime import Runtime
from pipeline.training.criterion import Criterion
from pipeline.training.gradient import Gradient
from tests.pipeline.training.batches import batch_of

BATCH, NUM_POINTS, SIDE = 11, 5, 8
TRIMMED = LossOptions(top_perc_train=60, without_top_perc_train=10)


class Small(nn.Module):
    """What a LandmarkNet gives, from a layer, a norm with statistics, and dropout."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.3, -0.2]))
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(4 * (SIDE - 2) ** 2, 2 * NUM_POINTS),
        )  # fmt: skip

    def predict(self, images):
        return Prediction(8 + 4 * self.layers(images.float() / 255).view(-1, NUM_POINTS, 2))


def batch():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, SIDE, (BATCH, NUM_POINTS, 2)) * np.linspace(0.2, 3, BATCH)[:, None, None]
    points[rng.random(points.shape[:2]) < 0.2] = np.nan
    images = torch.from_numpy(rng.integers(0, 256, (BATCH, 3, SIDE, SIDE), np.uint8))
    return replace(batch_of(points, scale=rng.uniform(0.5, 4, BATCH)), images=images)


def criterion_of(options):
    return Criterion(
        options,
        size=SIDE,
        typical_scale=2.0,
        mean_shape=np.random.default_rng(0).uniform(0, SIDE, (NUM_POINTS, 2)),
        batch_size=BATCH,
        num_photos=BATCH,
        device=torch.device("cpu"),
        sample_weights=np.linspace(0.2, 1.8, BATCH),
    )


def gradient_of(options, *, num_parts, mixup=0.0, training=False):
    """The gradient of two batches in turn, what the second measured, and the network and the criterion after it."""
    torch.manual_seed(0)
    network = Small().train(training)
    criterion = criterion_of(options)
    gradient = Gradient(network, criterion, runtime=Runtime(torch.device("cpu"), "fp32"), num_parts=num_parts)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for epoch in (0, 1):
        key = Key(0, epoch, np.arange(BATCH))
        measured = gradient.add(mix(batch(), key, alpha=mixup), key, epoch=epoch, scaler=scaler)
    return [parameter.grad for parameter in network.parameters()], measured, network, criterion


@pytest.mark.parametrize("mixup", [0.0, 0.7])
@pytest.mark.parametrize(
    "options",
    [LossOptions(), TRIMMED, replace(TRIMMED, trim_at_random=True), replace(TRIMMED, trim_from=0.5, trim_by="sample")],
)
@pytest.mark.parametrize("num_parts", [2, 3, 4, 11, 50])  # 4 leaves a part of two photos beside three of three
def test_accumulated_parts_are_one_batch(options, num_parts, mixup):
    whole, one, _, first = gradient_of(options, num_parts=1, mixup=mixup)
    accumulated, other, _, second = gradient_of(options, num_parts=num_parts, mixup=mixup)
    for own, expected in zip(accumulated, whole, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, equal_nan=True)


@pytest.mark.parametrize("num_parts", [1, 3])
def test_mixed_photos_are_ranked_by_their_own_points(num_parts):
    """However far off those of the photo are that shines through: labels that are wrong are to be found."""
    losses = []
    for other_points in (0.0, 1000.0):
        network, criterion = Small().eval(), criterion_of(LossOptions())
        gradient = Gradient(network, criterion, runtime=Runtime(torch.device("cpu"), "fp32"), num_parts=num_parts)
        key = Key(0, 0, np.arange(BATCH))
        mixed = mix(batch(), key, alpha=0.7)
        mixed = replace(mixed, other=replace(mixed.other, points=mixed.other.points + other_points))
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.01)
        gradient.add(mixed, key, epoch=0, scaler=torch.amp.GradScaler("cpu", enabled=False))
        losses.append((criterion.running_losses, network.layers[5].bias.grad))
    assert torch.equal(losses[0][0], losses[1][0])
    assert not torch.equal(losses[0][1], losses[1][1])


@pytest.mark.parametrize("options", [LossOptions(), TRIMMED])
def test_statistics_and_random_numbers_are_those_of_one_pass(options):
    """Though what counts is found by a pass of its own before."""
    torch.manual_seed(0)
    gradient_of(LossOptions(), num_parts=3, training=True)
    random = torch.get_rng_state()
    _, _, network, _ = gradient_of(options, num_parts=3, training=True)
    assert torch.equal(random, torch.get_rng_state())
    norm = network.layers[1]
    assert norm.num_batches_tracked == 6
    _, _, plain, _ = gradient_of(LossOptions(), num_parts=3, training=True)
    assert torch.equal(norm.running_mean, plain.layers[1].running_mean)


def test_all_ranks_pass_through_the_network_as_often():
    """Norms that see the photos of all ranks wait for each other at each pass."""
    passes = []
    for rank in (0, 1):  # of two, which have five and six photos
        torch.manual_seed(0)
        network = Small()
        counted = mock.Mock(wraps=network.predict)
        own = parts(BATCH, 2)[rank]
        ranks = SimpleNamespace(
            num_ranks=2,
            part=lambda total, own=own: own,
            gather_rows=lambda found, rows, count: torch.zeros(count, dtype=found.dtype).index_copy(
                0, torch.arange(count)[rows], found
            ),
            all_reduce=lambda tensors: None,
        )
        with mock.patch.object(network, "predict", counted):
            gradient = Gradient(
                network, criterion_of(LossOptions()), runtime=Runtime(torch.device("cpu"), "fp32", ranks), num_parts=6
            )
            key = Key(0, 0, np.arange(BATCH))
            gradient.add(
                mix(batch(), key, alpha=0.0).part(own),
                key,
                epoch=0,
                scaler=torch.amp.GradScaler("cpu", enabled=False),
            )
        passes.append(counted.call_count)
    assert passes == [5, 5]
