"""What a step minimises depends neither on how its photos are computed in parts, nor on a stop."""

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch

from augment import Key
from pipeline.recipe import LossName, LossOptions
from pipeline.training.criterion import Criterion
from pipeline.training.trimming import mean_of_selected
from tests.pipeline.training.batches import batch_of, leaves_of, prediction_of

NUM_PHOTOS, BATCH, NUM_POINTS = 96, 16, 5
TRIMMED = LossOptions(top_perc_train=50, without_top_perc_train=9)


def criterion_of(options, device="cpu", sample_weights=None) -> Criterion:
    torch.manual_seed(0)
    return Criterion(
        options,
        size=32,
        typical_scale=2.0,
        mean_shape=np.random.default_rng(0).uniform(0, 32, (NUM_POINTS, 2)),
        batch_size=BATCH,
        num_photos=NUM_PHOTOS,
        device=torch.device(device),
        sample_weights=sample_weights,
    )


def total_of(criterion, predicted, batch, key, *, epoch):
    """() the loss of the predictions for all photos of a step."""
    losses = criterion.measure(predicted, batch)
    kept = criterion.select(losses.ranks, key, epoch=epoch)
    return mean_of_selected(losses.weighted, kept, losses.ranks, num_kept=kept.sum())


def steps(epoch, count=NUM_PHOTOS // BATCH):
    """A batch, a prediction and a key for each step of an epoch; photos differ in how far they are off."""
    order = np.random.default_rng(epoch).permutation(NUM_PHOTOS)
    for number in range(count):
        samples = order[number * BATCH : (number + 1) * BATCH]
        rng = np.random.default_rng((epoch, number))
        truth = rng.uniform(0, 32, (BATCH, NUM_POINTS, 2))
        truth[rng.random(truth.shape[:2]) < 0.1] = np.nan
        batch = replace(batch_of(truth, scale=rng.uniform(0.5, 4, BATCH)), samples=samples)
        off = (0.1 + samples[:, None, None] / 10) * rng.normal(size=truth.shape)
        yield batch, prediction_of(np.nan_to_num(truth) + off, rng=rng), Key(7, epoch, samples)


def part_of(batch, predicted, rows):
    """Some photos of a batch, and what is predicted of them."""
    tensors = {name: getattr(batch, name)[rows] for name in ("images", "points", "inside", "scale", "samples")}
    distributions = predicted.distributions
    distributions = distributions._replace(x_logits=distributions.x_logits[rows], y_logits=distributions.y_logits[rows])
    some = predicted._replace(
        points=predicted.points[rows], log_scale=predicted.log_scale[rows], distributions=distributions
    )
    return replace(batch, **tensors), some


@pytest.mark.parametrize("name", get_args(LossName))
@pytest.mark.parametrize("trim_at_random", [False, True])
def test_micro_batches_and_ranks_together_are_one_batch(name, trim_at_random):
    """The losses of all are gathered, and all of them select and divide alike."""
    options = replace(TRIMMED, loss=name, edge_weight=0.3, trim_at_random=trim_at_random)
    whole, parts = criterion_of(options), criterion_of(options)
    for epoch in range(2):
        for batch, predicted, key in steps(epoch, count=3):
            total = total_of(whole, predicted, batch, key, epoch=epoch)
            leaves = [*leaves_of(predicted), *whole.parameters()]
            expected = torch.autograd.grad(total, leaves, allow_unused=True)
            rows = np.array_split(np.random.default_rng(0).permutation(BATCH), 3)
            some = [part_of(batch, predicted, each) for each in rows]
            measured = [parts.measure(prediction, each) for each, prediction in some]
            gathered = torch.cat([losses.ranks for losses in measured])
            kept = parts.select(gathered, replace(key, samples=key.samples[np.concatenate(rows)]), epoch=epoch)
            kept_parts = kept.split([len(each) for each in rows])
            sums = [
                mean_of_selected(losses.weighted, own, losses.ranks, num_kept=kept.sum())
                for losses, own in zip(measured, kept_parts, strict=True)
            ]
            torch.testing.assert_close(sum(sums), total)
            leaves = [*leaves_of(predicted), *parts.parameters()]
            found = torch.autograd.grad(sum(sums), leaves, allow_unused=True)
            for one, other in zip(expected, found, strict=True):
                assert (one is None) == (other is None)
                assert one is None or torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.running_losses, parts.running_losses, equal_nan=True)


@pytest.mark.parametrize("fields", [{}, {"loss": "rle"}, {"trim_by": "sample"}, {"trim_at_random": True}])
def test_a_criterion_that_was_stopped_ends_as_one_that_was_not(fields):
    options = replace(TRIMMED, **fields)
    whole, again = criterion_of(options), criterion_of(options)
    for epoch in range(3):
        if epoch == 2:
            stopped, again = again, criterion_of(options)
            for parameter in again.parameters():
                torch.nn.init.uniform_(parameter)
            again.load_state_dict(stopped.state_dict())
        for batch, predicted, key in steps(epoch):
            totals = [total_of(each, predicted, batch, key, epoch=epoch) for each in (whole, again)]
            assert torch.equal(*totals)


def test_the_state_of_an_earlier_version_or_of_another_loss():
    state = criterion_of(LossOptions()).state_dict()
    del state["running_losses"]
    criterion_of(LossOptions()).load_state_dict(state)
    with pytest.raises(KeyError, match="flow"):
        criterion_of(LossOptions(loss="rle")).load_state_dict(state)
    with pytest.raises(ValueError, match="running_losses"):
        criterion_of(LossOptions()).load_state_dict(state | {"running_losses": torch.zeros(3)})


def kept_of(criterion, epochs, start=0.0):
    """For each epoch which photos are kept, (N,) bool by their indices."""
    for epoch in range(epochs):
        kept = torch.zeros(NUM_PHOTOS, dtype=torch.bool)
        for number, (batch, predicted, key) in enumerate(steps(epoch)):
            losses = criterion.measure(predicted, batch)
            done = start + epoch + number * BATCH / NUM_PHOTOS
            kept[torch.from_numpy(batch.samples)] = criterion.select(losses.ranks, key, epoch=done)
        yield kept


def test_photos_are_left_out_from_the_epoch_that_is_said_on():
    late = criterion_of(replace(TRIMMED, trim_from=1.5))
    first, second, third = kept_of(late, 3)
    assert first.all()
    assert NUM_PHOTOS // 2 < second.sum() < NUM_PHOTOS  # its first half is whole
    assert third.sum() == pytest.approx(0.41 * NUM_PHOTOS, abs=8)
    early = list(kept_of(criterion_of(TRIMMED), 3))
    assert torch.equal(early[2], third)  # the window has been filled meanwhile


def test_the_running_losses_of_all_photos_rank_steadier_than_a_batch():
    """A photo keeps its rank from epoch to epoch, as far as its luck in one of them does not decide."""

    def changes(options):
        epochs = list(kept_of(criterion_of(options), 8))[3:]
        return np.mean([(one != following).double().mean() for one, following in pairwise(epochs)])

    by_sample = replace(TRIMMED, trim_by="sample")
    assert changes(by_sample) < 0.6 * changes(TRIMMED)
    *_, last = kept_of(criterion_of(by_sample), 8)
    assert last.sum() == pytest.approx(0.41 * NUM_PHOTOS, abs=6)


@pytest.mark.parametrize("unit", ["photo", "image"])
def test_photos_count_by_the_unit_that_is_said(unit):
    for name, power in {"l1": 1, "mse": 2, "enme": 0, "gaussian_nll": 0, "simcc": 0}.items():
        criterion = criterion_of(LossOptions(loss=name, loss_unit=unit))
        batch, predicted, _ = next(steps(0))
        found = criterion.measure(predicted, batch)
        factor = (batch.scale / 2) ** power if unit == "photo" else torch.ones(BATCH)
        torch.testing.assert_close(found.weighted, factor * found.ranks)


@pytest.mark.parametrize("fields", [{}, {"edge_weight": 0.3}, {"loss": "gaussian_nll", "loss_unit": "image"}])
def test_a_photo_of_twice_the_weight_counts_twice_whoever_is_in_its_batch(fields):
    """A mean by the weights of a batch would depend on these."""
    weights = np.random.default_rng(3).uniform(0.1, 4, NUM_PHOTOS)
    plain, weighted = criterion_of(LossOptions(**fields)), criterion_of(LossOptions(**fields), sample_weights=weights)
    for batch, predicted, key in steps(0):
        losses = plain.measure(predicted, batch).weighted
        expected = (torch.from_numpy(weights[batch.samples]) * losses.double()).mean()
        found = total_of(weighted, predicted, batch, key, epoch=0.0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weighted.running_losses, remembered(plain), equal_nan=True)


def remembered(criterion):
    for batch, predicted, key in steps(0):
        total_of(criterion, predicted, batch, key, epoch=0.0)
    return criterion.running_losses


@pytest.mark.parametrize("trim_by", ["window", "sample"])
def test_which_photos_are_trimmed_does_not_depend_on_their_weights(trim_by):
    options = replace(TRIMMED, trim_by=trim_by)
    weights = np.random.default_rng(3).uniform(0.1, 4, NUM_PHOTOS)
    for one, other in zip(
        kept_of(criterion_of(options), 3), kept_of(criterion_of(options, "cpu", weights), 3), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [LossOptions(), TRIMMED])
def test_equal_weights_change_no_bit(options):
    plain, ones = criterion_of(options), criterion_of(options, sample_weights=np.ones(NUM_PHOTOS))
    for batch, predicted, key in steps(0):
        one, other = (total_of(criterion, predicted, batch, key, epoch=0.0) for criterion in (plain, ones))
        assert torch.equal(one, other)


def test_the_edge_term_is_added_in_its_unit():
    batch, predicted, _ = next(steps(0))
    plain, more, twice = (
        criterion_of(LossOptions(loss="enme", edge_weight=weight)).measure(predicted, batch) for weight in (0, 1, 2)
    )
    assert (more.weighted > plain.weighted).all()
    torch.testing.assert_close(twice.weighted - plain.weighted, 2 * (more.weighted - plain.weighted))
    assert torch.equal(more.ranks, plain.ranks)


@pytest.mark.parametrize("trim_by", ["window", "sample"])
@pytest.mark.parametrize("name", get_args(LossName))
def test_a_criterion_on_a_gpu_waits_for_nothing(name, trim_by, gpu_without_values):
    options = replace(TRIMMED, loss=name, trim_by=trim_by, trim_at_random=True)
    criterion = criterion_of(options, device="cuda", sample_weights=np.ones(NUM_PHOTOS))
    batch, predicted, key = next(steps(0))
    tensors = {field: torch.empty_like(getattr(batch, field), device="cuda") for field in ("points", "inside", "scale")}
    points, log_scale, x_logits, y_logits = (torch.empty_like(leaf, device="cuda") for leaf in leaves_of(predicted))
    bins = torch.empty(len(predicted.distributions.x_bins), device="cuda")
    predicted = predicted._replace(
        points=points,
        log_scale=log_scale,
        distributions=predicted.distributions._make((x_logits, y_logits, bins, bins)),
    )
    total = total_of(criterion, predicted, replace(batch, **tensors), key, epoch=1.0)
    assert total.device.type == "cuda"
