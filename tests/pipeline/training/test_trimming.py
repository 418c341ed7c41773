"""Trimming keeps what it says, at every size of a batch, and its parts are those of the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training import trimming


def trimmed(batches, *, top, without):
    """For each batch of losses the photos that are kept, and the share of the window that is above each loss."""
    window = trimming.empty_window(len(batches[0]), torch.device("cpu"))
    for batch in batches:
        window = trimming.slide(window, batch)
        recent = window[~window.isnan()]
        above = (recent[None] > batch[:, None]).double().mean(1)
        yield trimming.select_samples(batch, window, top_percent=top, without_top_percent=without), 100 * above


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
    full = slice(trimming.WINDOW // batch_size, None)
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
    window = trimming.slide(trimming.slide(trimming.empty_window(32, losses.device), 100 * torch.rand(700)), losses)
    keep = trimming.select_samples(losses, window, top_percent=100, without_top_percent=0)
    assert keep.all()
    found = trimming.mean_of_selected(weights * losses, keep, losses, num_kept=keep.sum())
    expected = (weights * losses)[losses.argsort(descending=True)].mean()
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(total, losses)[0] for total in (found, expected)))


def test_the_window_forgets_the_oldest_losses_and_holds_a_whole_batch():
    window = trimming.empty_window(4, torch.device("cpu"))
    assert len(window) == trimming.WINDOW
    for first in range(0, 2000, 4):
        window = trimming.slide(window, torch.arange(first, first + 4.0))
    assert window.tolist() == list(range(2000 - trimming.WINDOW, 2000))
    assert len(trimming.slide(trimming.empty_window(3000, torch.device("cpu")), torch.rand(3000))) == 3000


@given(st.integers(1, 64), st.integers(0, 1000))
def test_the_random_control_keeps_as_many(batch, seed):
    rng = torch.manual_seed(seed)
    keep = torch.rand(batch, generator=rng) < 0.3
    uniform = torch.rand(batch, generator=rng)
    chosen = trimming.as_many_at_random(keep, uniform)
    assert chosen.sum() == keep.sum()
    assert set(uniform[chosen].tolist()) == set(sorted(uniform.tolist())[: keep.sum()])


def test_trimming_on_a_gpu_waits_for_nothing(gpu_without_values):
    losses = torch.empty(8, device=gpu_without_values)
    window = trimming.slide(trimming.empty_window(8, gpu_without_values), losses)
    keep = trimming.select_samples(losses, window, top_percent=30, without_top_percent=1)
    keep = trimming.as_many_at_random(keep, losses)
    assert trimming.mean_of_selected(losses, keep, losses, num_kept=keep.sum()).device.type == "cuda"


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0, 100), st.floats(0, 50), st.integers(0, 1000))
def test_the_parts_of_a_step_sum_to_the_whole(batch, num_parts, top, without, seed):
    """As micro-batches that are accumulated, or as ranks that gather all losses: ranks and divisor are global."""
    rng = np.random.default_rng(seed)
    losses = torch.from_numpy(rng.lognormal(size=batch)).requires_grad_()
    window = trimming.slide(torch.from_numpy(rng.lognormal(size=trimming.WINDOW)), losses)
    kept = trimming.select_samples(losses, window, top_percent=top, without_top_percent=without)
    whole = trimming.mean_of_selected(losses, kept, losses, num_kept=kept.sum())
    expected = torch.autograd.grad(whole, losses)[0]
    total = torch.zeros(())
    for part in np.array_split(rng.permutation(batch), num_parts):
        total = total + trimming.mean_of_selected(losses[part], kept[part], losses[part], num_kept=kept.sum())
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(torch.autograd.grad(total, losses)[0], expected)


def test_a_running_loss_forgets_and_begins_with_the_first():
    running = trimming.no_running_losses(5, torch.device("cpu"))
    samples = torch.tensor([4, 1])
    first = trimming.remember(running, samples, torch.tensor([10.0, 2.0]))
    assert first.nan_to_num(-1).tolist() == [-1, 2, -1, -1, 10]
    second = trimming.remember(first, samples[:1], torch.tensor([0.0]))
    assert second.nan_to_num(-1).tolist() == pytest.approx([-1, 2, -1, -1, 10 * trimming.MEMORY])
    assert running.isnan().all()  # arguments are never changed
