"""Batches have their points where the images show them, wherever labels lie beside them."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from augment import Key, RegionOfInterest, parse_augmenters, transform_points
from augment.geometry import translation
from models import Prediction
from pipeline.data.loader import make_batch, mirrors, training_batches
from pipeline.data.mixup import mix
from pipeline.data.source import HostSource
from pipeline.recipe import AUGMENT, LossOptions
from pipeline.runtime import Runtime
from pipeline.training.criterion import Criterion
from pipeline.training.gradient import Gradient

SIDE, COUNT = 32, 40
FLIP_INDICES = np.array([1, 0, 2])
PHOTO_TO_IMAGE = np.diag([0.4, 0.4, 1.0])
SHIFT = torch.tensor([1.5, -0.75])


def pack_of(shift):
    """Photos whose labels lie aside by a shift in pixels of the image."""
    rng = np.random.default_rng(0)
    photo_to_image = np.tile(PHOTO_TO_IMAGE, (COUNT, 1, 1))
    points = rng.uniform(8, 24, (COUNT, 3, 2))
    points[3, 1] = np.nan
    return SimpleNamespace(
        squares=np.zeros((COUNT, SIDE, SIDE, 3), np.uint8),
        photo_to_image=photo_to_image,
        values=transform_points(np.linalg.inv(photo_to_image) @ translation(*shift.tolist()), points),
        roi=RegionOfInterest(SIDE, 0, 0, SIDE),
    )


def batch_of_draw(pack, epoch, augmenters=AUGMENT):
    samples = np.arange(COUNT)
    view = parse_augmenters(augmenters).draw(Key(0, epoch, samples), (SIDE, SIDE))
    assert view.mirrored.any()
    return make_batch(pack, HostSource(pack.squares, torch.device("cpu")), samples, view, FLIP_INDICES)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_where_images_show_points_does_not_depend_on_where_their_labels_lie(alpha):
    aside, exact = (
        mix(batch_of_draw(pack_of(shift), 0), Key(0, 0, np.arange(COUNT)), alpha=alpha)
        for shift in (SHIFT, torch.zeros(2))
    )
    shown = aside.as_shown(SHIFT)
    torch.testing.assert_close(shown.batch.points, exact.batch.points, atol=1e-4, rtol=0, equal_nan=True)
    if alpha:
        torch.testing.assert_close(shown.other.points, exact.other.points, atol=1e-4, rtol=0, equal_nan=True)


class Knows(nn.Module):
    """Says where the images show their points, and has yet to learn where labels lie."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))
        self.points = torch.zeros(COUNT, 3, 2)

    def predict(self, images):
        return Prediction(self.points)


def test_how_far_labels_lie_aside_is_learned_from_photos_of_which_half_are_mirrored():
    network, pack, exact = Knows(), pack_of(SHIFT), pack_of(torch.zeros(2))
    criterion = Criterion(
        LossOptions(),
        size=SIDE,
        typical_scale=2.5,
        mean_shape=np.zeros((3, 2)),
        batch_size=COUNT,
        num_photos=COUNT,
        device=torch.device("cpu"),
    )
    gradient = Gradient(network, criterion, runtime=Runtime(torch.device("cpu"), "fp32"), num_parts=1)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for epoch in range(60):
        network.points = batch_of_draw(exact, epoch).points.nan_to_num()
        key = Key(0, epoch, np.arange(COUNT))
        optimiser.zero_grad()
        gradient.add(mix(batch_of_draw(pack, epoch), key, alpha=0), key, epoch=epoch, scaler=scaler)
        optimiser.step()
    torch.testing.assert_close(network.shift.detach(), SHIFT, atol=0.02, rtol=0)


def test_a_chain_mirrors_where_one_of_its_augmenters_does():
    assert mirrors(parse_augmenters(AUGMENT), SIDE)
    turns = [each for each in AUGMENT if "MirrorAugmenter" not in each]
    assert len(turns) == len(AUGMENT) - 1
    assert not mirrors(parse_augmenters(turns), SIDE)


def test_sizes_of_images_are_chosen_by_the_thread_that_trains():
    """Its clock, which all ranks follow, may go on while a batch is made; they would show one step at several sizes."""
    pack, threads = pack_of(torch.zeros(2)), []
    source = HostSource(pack.squares, torch.device("cpu"))

    def size_of_batch(number):
        threads.append(threading.current_thread())
        return (16, 24, 32)[number]

    order = np.arange(COUNT).reshape(4, -1)[:3]
    batches = training_batches(
        pack, source, list(order), parse_augmenters([]), None, seed=0, epoch=0, size_of_batch=size_of_batch
    )
    assert [batch.images.shape[-1] for batch in batches] == [16, 24, 32]
    assert set(threads) == {threading.main_thread()}
