"""The loss follows the metric's unit, ignores missing points, and trimming keeps what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.loader import Batch
from pipeline.training import losses as loss


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


def trimmed(batches, *, top, without):
    """For each batch of losses the photos that are kept, and the share of the window that is above each loss."""
    window = loss.empty_window(len(batches[0]), torch.device("cpu"))
    for batch in batches:
        window = loss.slide(window, batch)
        recent = window[~window.isnan()]
        above = (recent[None] > batch[:, None]).double().mean(1)
        yield loss.select_samples(batch, window, top_percent=top, without_top_percent=without), 100 * above


@pytest.mark.parametrize("batch_size", [4, 8, 32])
def test_a_percentage_acts_at_every_batch_size(batch_size):
    """Of each batch alone 1 % of 32 is no photo, 70 % of 4 is half of them."""
    batches = torch.from_numpy(np.random.default_rng(0).lognormal(size=(12_000 // batch_size, batch_size)))
    keeps, above = (torch.stack(parts) for parts in zip(*trimmed(batches, top=30, without=1), strict=True))
    inside = (above >= 1) & (above < 30)
    assert inside.double().mean().item() == pytest.approx(0.29, abs=0.02)
    some = inside.any(1)
    assert torch.equal(keeps[some], inside[some])
    assert (keeps[~some].sum(1) == 1).all()
    alone = 0.71**batch_size / batch_size  # of batches of which none is in between, one photo
    assert keeps.double().mean().item() == pytest.approx(0.29 + alone, abs=0.02)
    assert not keeps[above < 1].any()
    full = slice(loss.WINDOW // batch_size, None)
    assert not keeps[full][batches[full] > torch.quantile(batches, 0.998)].any()


@given(st.integers(1, 300), st.floats(0, 100), st.floats(0, 100), st.integers(0, 1000))
def test_trimming_keeps_what_lies_between_the_two_percentiles_of_the_window(batch, top, without, seed):
    order = np.random.default_rng(seed).permutation(3 * batch)
    batches = torch.from_numpy(order.reshape(3, batch).astype(np.float32))
    for losses, (keep, above) in zip(batches, trimmed(batches, top=top, without=without), strict=True):
        inside = (above >= without) & (above < top)
        assert inside.any() or keep.sum() == 1
        if inside.any():
            assert torch.equal(keep, inside)
        elif (above >= without).any():
            assert losses[keep] == losses[above >= without].max()
        else:
            assert losses[keep] == losses.min()


def test_no_trimming_is_the_mean_of_all_to_the_bit():
    """As it was computed before there was a window: in the order of the losses."""
    losses, weights = torch.rand(2, 32, generator=torch.manual_seed(0))
    losses.requires_grad_()
    window = loss.slide(loss.slide(loss.empty_window(32, losses.device), 100 * torch.rand(700)), losses)
    keep = loss.select_samples(losses, window, top_percent=100, without_top_percent=0)
    assert keep.all()
    found = loss.mean_of_selected(weights * losses, keep, losses)
    expected = (weights * losses)[losses.argsort(descending=True)].mean()
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(total, losses)[0] for total in (found, expected)))


def test_the_window_forgets_the_oldest_losses_and_holds_a_whole_batch():
    window = loss.empty_window(4, torch.device("cpu"))
    assert len(window) == loss.WINDOW
    for first in range(0, 2000, 4):
        window = loss.slide(window, torch.arange(first, first + 4.0))
    assert window.tolist() == list(range(2000 - loss.WINDOW, 2000))
    assert len(loss.slide(loss.empty_window(3000, torch.device("cpu")), torch.rand(3000))) == 3000


@given(st.integers(1, 64), st.integers(0, 1000))
def test_the_random_control_keeps_as_many(batch, seed):
    rng = torch.manual_seed(seed)
    keep = torch.rand(batch, generator=rng) < 0.3
    uniform = torch.rand(batch, generator=rng)
    chosen = loss.as_many_at_random(keep, uniform)
    assert chosen.sum() == keep.sum()
    assert set(uniform[chosen].tolist()) == set(sorted(uniform.tolist())[: keep.sum()])


def test_only_kept_photos_learn_and_ranking_does_not():
    predicted = torch.arange(4.0).view(4, 1, 1).expand(4, 1, 2).clone().requires_grad_()
    batch = batch_of(torch.zeros(4, 1, 2))
    losses = loss.sample_losses(predicted, batch, beta=0.5)
    keep = loss.select_samples(losses, losses.detach(), top_percent=75, without_top_percent=25)
    loss.mean_of_selected(losses, keep, losses).backward()
    assert predicted.grad[:, 0, 0].ne(0).tolist() == [False, True, True, False]


def test_trimming_on_a_gpu_waits_for_nothing(gpu_without_values):
    losses = torch.empty(8, device=gpu_without_values)
    window = loss.slide(loss.empty_window(8, gpu_without_values), losses)
    keep = loss.select_samples(losses, window, top_percent=30, without_top_percent=1)
    keep = loss.as_many_at_random(keep, losses)
    assert loss.mean_of_selected(losses, keep, losses).device.type == "cuda"


@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_smooth_l1_is_that_of_its_definition(beta):
    errors = torch.linspace(-6, 6, 41).view(41, 1, 1).expand(41, 1, 2)
    found = loss.sample_losses(errors, batch_of(torch.zeros(41, 1, 2)), beta=beta)
    size = errors[:, 0, 0].abs()
    expected = torch.where(size < beta, size**2 / (2 * max(beta, 1e-9)), size - beta / 2)
    torch.testing.assert_close(found, expected)
