"""The loss follows the metric's unit, ignores missing points, and trimming keeps what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import loss
from pipeline.batches import Batch


def batch_of(points, scale=None):
    points = torch.as_tensor(points, dtype=torch.float32)
    scale = torch.ones(len(points)) if scale is None else torch.as_tensor(scale, dtype=torch.float32)
    inside = torch.ones(points.shape[:2], dtype=torch.bool)
    return Batch(torch.zeros(len(points), 3, 4, 4), points, inside, scale, np.arange(len(points)))


def test_a_missing_point_neither_counts_nor_learns():
    points = torch.zeros(2, 3, 2)
    points[0, 1] = float("nan")
    predicted = torch.full((2, 3, 2), 5.0, requires_grad=True)
    losses = loss.sample_losses(predicted, batch_of(points), beta=1.0)
    torch.testing.assert_close(losses, torch.tensor([4.5, 4.5]))
    losses.sum().backward()
    assert torch.equal(predicted.grad[0, 1], torch.zeros(2))
    assert (predicted.grad[1] > 0).all()
    torch.testing.assert_close(loss.squared_errors(predicted.detach(), batch_of(points)), torch.tensor([25.0, 25.0]))


def test_points_outside_the_frame_weigh_what_they_are_told_to():
    batch = batch_of(torch.zeros(1, 4, 2))
    batch.inside[0, 3] = False
    predicted = torch.tensor([1.5, 1.5, 1.5, 9.5])[None, :, None].expand(1, 4, 2)
    weighted = [loss.sample_losses(predicted, batch, beta=1.0, outside_weight=w).item() for w in (0.0, 0.5, 1.0)]
    assert weighted == pytest.approx([1.0, (3 + 0.5 * 9) / 3.5, 3.0])


def test_a_photo_without_any_point_has_no_loss():
    losses = loss.sample_losses(torch.ones(1, 3, 2), batch_of(torch.full((1, 3, 2), float("nan"))), beta=1.0)
    assert losses.item() == 0


def test_errors_are_in_pixels_of_the_photo():
    batch = batch_of(torch.zeros(2, 4, 2), scale=[1.0, 3.0])
    predicted = torch.full((2, 4, 2), 2.0)
    torch.testing.assert_close(loss.squared_errors(predicted, batch), torch.tensor([4.0, 36.0]))
    losses = loss.sample_losses(predicted, batch, beta=1.0)
    weights = loss.photo_weights(batch.scale, unit="photo", typical_scale=2.0)
    torch.testing.assert_close(weights * losses, torch.tensor([1.5 * 0.5, 1.5 * 1.5]))
    assert torch.equal(loss.photo_weights(batch.scale, unit="image", typical_scale=2.0), torch.ones(2))


@given(st.integers(1, 300), st.floats(0, 100), st.floats(0, 100), st.integers(0, 1000))
def test_trimming_keeps_the_ranks_between_the_two_percentiles(batch, top, without, seed):
    ranks = torch.from_numpy(np.random.default_rng(seed).permutation(batch).astype(np.float32))
    places = loss.kept(ranks, top_percent=top, without_top_percent=without)
    first = min(int(batch * without / 100), batch - 1)
    expected = max(int(batch * top / 100) - first, 1)
    assert len(places) == len(set(places.tolist())) == expected
    found = sorted(ranks[places].tolist(), reverse=True)
    assert found == [float(batch - 1 - first - i) for i in range(expected)]


def test_the_users_setting_leaves_out_the_highest_one_and_the_lowest_seventy_percent():
    places = loss.kept(torch.arange(200.0), top_percent=30, without_top_percent=1)
    assert sorted(places.tolist()) == list(range(140, 198))


def test_no_trimming_is_the_mean_of_all():
    places = loss.kept(torch.rand(9), top_percent=100, without_top_percent=0)
    assert sorted(places.tolist()) == list(range(9))


def test_only_kept_photos_learn_and_ranking_does_not():
    predicted = torch.arange(4.0).view(4, 1, 1).expand(4, 1, 2).clone().requires_grad_()
    batch = batch_of(torch.zeros(4, 1, 2))
    losses = loss.sample_losses(predicted, batch, beta=0.5)
    places = loss.kept(losses, top_percent=75, without_top_percent=25)
    losses[places].mean().backward()
    assert predicted.grad[:, 0, 0].ne(0).tolist() == [False, True, True, False]


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_smooth_l1_is_that_of_its_definition(beta):
    errors = torch.linspace(-6, 6, 41).view(41, 1, 1).expand(41, 1, 2)
    found = loss.sample_losses(errors, batch_of(torch.zeros(41, 1, 2)), beta=beta)
    size = errors[:, 0, 0].abs()
    expected = torch.where(size < beta, size**2 / (2 * max(beta, 1e-9)), size - beta / 2)
    torch.testing.assert_close(found, expected)
