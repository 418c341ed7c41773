"""Mixup blends images and losses, by shares that are functions of the key."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from augment import Key
from pipeline.data.mixup import mix
from tests.pipeline.training.batches import batch_of


def batch(count=9):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 8, (count, 4, 2))
    points[1, 2] = np.nan
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, 8, 8), np.uint8))
    return replace(batch_of(points, scale=rng.uniform(0.5, 4, count)), images=images, samples=np.arange(count) + 5)


def key_of(samples):
    return Key(3, 1, np.asarray(samples))


def test_none_is_the_batch_itself():
    plain = batch()
    assert mix(plain, key_of(plain.samples), alpha=0).batch is plain
    assert mix(plain, key_of(plain.samples), alpha=0).other is None


def test_an_image_is_the_blend_and_what_is_to_be_predicted_is_both():
    plain = batch()
    before = plain.images.clone()
    mixed = mix(plain, key_of(plain.samples), alpha=0.4)
    for i in range(len(before)):
        share = mixed.share[i].item()
        assert 0.5 <= share <= 1
        expected = share * before[i].numpy().astype(float) + (1 - share) * before[i - 1].numpy()
        np.testing.assert_allclose(mixed.batch.images[i].numpy(), expected, atol=0.51)
        assert torch.equal(mixed.other.points[i].isnan(), plain.points[i - 1].isnan())
        assert torch.equal(mixed.other.points[i].nan_to_num(), plain.points[i - 1].nan_to_num())
        assert mixed.other.scale[i] == plain.scale[i - 1]
        assert mixed.other.samples[i] == plain.samples[i - 1]
    assert torch.equal(mixed.batch.points.nan_to_num(), plain.points.nan_to_num())
    assert torch.equal(mixed.blend(torch.ones(9), torch.zeros(9)), mixed.share)
    assert torch.equal(plain.images, before)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_follow_the_beta_distribution(alpha):
    samples = np.arange(4000)
    many = replace(batch_of(np.zeros((4000, 1, 2)), side=1), samples=samples)
    share = mix(many, key_of(samples), alpha=alpha).share.numpy()
    beta = stats.beta(alpha, alpha)
    for at in (0.55, 0.7, 0.9, 0.99):
        assert np.mean(share < at) == pytest.approx(beta.cdf(at) - beta.cdf(1 - at), abs=0.03)


def test_the_share_of_a_photo_depends_neither_on_the_batch_nor_on_its_order():
    plain = batch()
    order = np.array([4, 0, 7, 2])
    some = replace(plain.part(slice(0, 4)), samples=plain.samples[order])
    shares = mix(plain, key_of(plain.samples), alpha=1).share
    assert torch.equal(mix(some, key_of(some.samples), alpha=1).share, shares[order])


def test_a_part_of_a_mixed_batch_is_that_of_its_photos():
    plain = batch()
    mixed = mix(plain, key_of(plain.samples), alpha=1)
    part = mixed.part(slice(3, 7))
    assert torch.equal(part.share, mixed.share[3:7])
    assert torch.equal(part.other.points, mixed.other.points[3:7])
    assert torch.equal(part.batch.images, mixed.batch.images[3:7])
