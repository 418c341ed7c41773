"""Losses are finite, least at the truth, blind to missing points, in the metric's unit, and those of their papers."""

import functools
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import laplace, norm
from torch.nn.functional import cross_entropy

from models import Distributions, Prediction
from pipeline.metrics import normalised_mean_error
from pipeline.recipe import LossName, LossOptions, needs_distributions, needs_scale
from pipeline.training import losses as loss
from pipeline.training.flow import Flow
from tests.pipeline.training.batches import BINS, batch_of, leaves_of, prediction_of

NAMES = get_args(LossName)


def losses_of(predicted, batch, options=None, flow=None, **fields):
    options = options or LossOptions(**fields)
    return loss.sample_losses(predicted, batch, options, size=32, flow=flow or trained_flow())


@functools.cache
def trained_flow():
    """A flow that is not the standard normal any more, the same in all tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow()
        for coupling in (*flow.scales, *flow.shifts):
            torch.nn.init.normal_(coupling[-1].weight, std=0.1)
    return flow


class Drawn:
    """A batch with gaps, and a prediction that is far off by any power of ten."""

    def __init__(self, seed, *, power, dtype):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(1, 4)), int(rng.integers(1, 7)), 2)
        truth = rng.uniform(-10, 42, shape)
        gaps = rng.random(shape) < rng.choice([0, 0.4, 1])
        gaps |= rng.random(shape[:2])[..., None] < rng.choice([0, 0.3])
        self.rng, self.gaps, self.truth = rng, torch.from_numpy(gaps), torch.from_numpy(truth).float()
        self.batch = batch_of(np.where(gaps, np.nan, truth), scale=rng.uniform(0.2, 9, shape[0]))
        self.batch.inside[:] = torch.from_numpy(rng.random(shape[:2]) < 0.8)
        points = self.truth + 10.0**power * torch.from_numpy(rng.normal(size=shape))
        self.predicted = prediction_of(points, rng=rng, size=10.0**power, dtype=dtype)


drawn = st.builds(
    Drawn,
    st.integers(0, 10**6),
    power=st.integers(-30, 14),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)


@pytest.mark.parametrize(("name", "focal"), [*((name, 0.0) for name in NAMES), ("simcc", 0.5), ("simcc", 2.0)])
@given(drawn)
def test_every_loss_is_finite_with_finite_gradients(name, focal, case):
    """Those of the true points too, through which it is learned where labels lie."""
    case.batch.points.requires_grad_()
    options = LossOptions(loss=name, focal=focal, outside_weight=0.5)
    flow = trained_flow()
    flow.zero_grad()
    found = losses_of(case.predicted, case.batch, options, flow)
    edges = torch.from_numpy(loss.nearest_neighbours(case.truth[0].numpy()))
    found = found + loss.edge_losses(case.predicted.points, case.batch, edges, outside_weight=0.5)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    found.sum().backward()
    for leaf in (*leaves_of(case.predicted), *flow.parameters(), case.batch.points):
        assert leaf.grad is None or leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@given(drawn)
def test_what_is_said_of_a_missing_point_neither_counts_nor_learns(name, case):
    other = [leaf.detach().clone() for leaf in leaves_of(case.predicted)]
    other[0][case.gaps] = 3.0
    for extra in other[1:]:
        extra[case.gaps.all(2)] = 0.5  # where one coordinate is missing, the other may count
    points, log_scale, x_logits, y_logits = (leaf.requires_grad_() for leaf in other)
    changed = Prediction(points, log_scale, Distributions(x_logits, y_logits, BINS, BINS))
    found, again = (losses_of(predicted, case.batch, loss=name) for predicted in (case.predicted, changed))
    torch.testing.assert_close(found, again, rtol=1e-6, atol=0)
    found.sum().backward()
    gradients = [leaf.grad for leaf in leaves_of(case.predicted)]
    assert all(gradient is None or not gradient[case.gaps.all(2)].any() for gradient in gradients)
    assert gradients[0] is None or not gradients[0][case.gaps].any()
    assert not found[case.gaps.all(2).all(1)].any()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "simcc"])
@given(st.integers(0, 1000), st.floats(1e-3, 30))
def test_no_loss_is_less_than_at_the_truth(name, seed, size):
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.uniform(0, 32, (2, 5, 2))).float()
    at, off = prediction_of(truth), prediction_of(truth + size * torch.from_numpy(rng.normal(size=truth.shape)))
    least, more = (losses_of(predicted, batch_of(truth), loss=name, flow=Flow()) for predicted in (at, off))
    assert (least < more).all()
    if not needs_scale(LossOptions(loss=name)):
        assert not least.any()
    least.sum().backward()
    torch.testing.assert_close(at.points.grad, torch.zeros_like(truth), atol=1e-5, rtol=0)


def test_simcc_is_least_where_the_distributions_are_those_of_the_truth():
    truth = torch.tensor([[[3.0, 20.0], [-90.0, 60.0]]])  # the second is beyond the bins, and counts as at their ends
    at_the_ends = truth.clamp(BINS[0], BINS[-1])
    logits = [-((at_the_ends[..., axis, None] - BINS) ** 2) / (2 * 1.5**2) + 7 for axis in (0, 1)]
    for focal in (0.0, 0.5, 2.0):
        least = loss.divergences(Distributions(*logits, BINS, BINS), truth, sigma=1.5, focal=focal)
        torch.testing.assert_close(least, torch.zeros_like(truth), atol=1e-6, rtol=0)
        more = loss.divergences(Distributions(*(1.1 * x for x in logits), BINS, BINS), truth, sigma=1.5, focal=focal)
        assert (more > 1e-4 if focal < 2 else more > 1e-9).all()


def test_simcc_of_one_bin_is_cross_entropy_and_its_focal_loss_that_of_the_paper():
    logits = torch.randn(1, 6, len(BINS), generator=torch.manual_seed(0))
    indices = torch.tensor([0, 5, 17, 60, 95, 96])
    truth = BINS[indices][None, :, None].expand(1, 6, 2)
    distributions = Distributions(logits, logits, BINS, BINS)
    found = loss.divergences(distributions, truth, sigma=0.1, focal=0.0)[..., 0]
    entropy = cross_entropy(logits[0], indices, reduction="none")
    torch.testing.assert_close(found[0], entropy, atol=1e-4, rtol=1e-4)
    focal = loss.divergences(distributions, truth, sigma=0.1, focal=2.0)[0, :, 0]
    torch.testing.assert_close(focal, (1 - torch.exp(-entropy)) ** 2 * entropy, atol=1e-4, rtol=1e-4)


def reference(name, points, truth, log_scale, options):
    """(B,) what papers say, in numpy, of complete points."""
    errors = points - truth
    sizes, scale = np.abs(errors), np.exp(log_scale)[..., None]
    match name:
        case "smooth_l1":
            beta = options.beta
            values = np.where(sizes < beta, sizes**2 / (2 * max(beta, 1e-9)), sizes - beta / 2)
        case "mse":
            values = errors**2
        case "l1":
            values = sizes
        case "wing":
            w, epsilon = 10, 2
            values = np.where(sizes < w, w * np.log(1 + sizes / epsilon), sizes - (w - w * np.log(1 + w / epsilon)))
        case "soft_wing":
            low, high, epsilon = 2, 20, 0.5
            values = np.where(
                sizes < low, sizes, high * np.log(1 + sizes / epsilon) + low - high * np.log(1 + low / epsilon)
            )
        case "gaussian_nll":
            values = -norm(truth, scale).logpdf(points)
        case "laplace_nll":
            values = -laplace(truth, scale / 2**0.5).logpdf(points)  # which has the standard deviation `scale`
        case "rle":  # with an untrained flow, whose density is the normal one
            values = -laplace(truth, scale).logpdf(points) - norm(truth, scale).logpdf(points)
    return values.mean((1, 2))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("simcc", "enme")])
@pytest.mark.parametrize("beta", [0.0, 0.5, 3.0])
def test_every_loss_is_that_of_its_definition(name, beta):
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 32, (7, 9, 2))
    predicted = prediction_of(truth + rng.normal(scale=6, size=truth.shape), rng=rng)
    options = LossOptions(loss=name, beta=beta)
    found = losses_of(predicted, batch_of(truth), options, Flow())
    arrays = (tensor.detach().numpy().astype(float) for tensor in (predicted.points, predicted.log_scale))
    points, log_scale = arrays
    expected = reference(name, points, truth, log_scale, options)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)


def test_enme_is_the_metrics_nme_and_a_single_point_has_a_size():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 32, (5, 9, 2))
    truth[1, 3] = np.nan
    points = rng.uniform(0, 32, truth.shape)
    found = losses_of(prediction_of(points), batch_of(truth), loss="enme")
    assert found.mean().item() == pytest.approx(normalised_mean_error(points, truth), rel=1e-5)
    alone = losses_of(prediction_of(torch.tensor([[[3.0, 4.0]]])), batch_of(torch.zeros(1, 1, 2)), loss="enme")
    assert alone.item() == pytest.approx(100 * 5 / (32 / 16))
    shown_small = batch_of(torch.zeros(1, 1, 2), side=16)
    assert losses_of(prediction_of(torch.tensor([[[3.0, 4.0]]])), shown_small, loss="enme") == alone


def test_points_outside_the_frame_weigh_what_they_are_told_to():
    batch = batch_of(torch.zeros(1, 4, 2))
    batch.inside[0, 3] = False
    predicted = Prediction(torch.tensor([1.5, 1.5, 1.5, 9.5])[None, :, None].expand(1, 4, 2))
    weighted = [losses_of(predicted, batch, outside_weight=w).item() for w in (0.0, 0.5, 1.0)]
    assert weighted == pytest.approx([1.0, (3 + 0.5 * 9) / 3.5, 3.0])


def test_a_photo_all_of_whose_points_are_outside_weighs_as_they_do():
    """As one with a single point does; a mean over its points alone would not know."""
    batch = batch_of(torch.zeros(1, 2, 2))
    batch.inside[:] = False
    predicted = torch.tensor([[[1.5, 1.5], [9.0, 1.5]]])
    edges = torch.tensor([[0, 1]])
    for measured in (
        lambda w: losses_of(Prediction(predicted), batch, outside_weight=w).item(),
        lambda w: loss.edge_losses(predicted, batch, edges, outside_weight=w).item(),
    ):
        assert measured(1.0) > 0
        assert [measured(w) for w in (0.0, 0.1)] == pytest.approx([0.0, 0.1 * measured(1.0)])


def test_a_missing_point_has_no_error():
    points = torch.zeros(2, 3, 2)
    points[0, 1] = float("nan")
    errors = loss.squared_errors(torch.full((2, 3, 2), 5.0), batch_of(points))
    torch.testing.assert_close(errors, torch.tensor([25.0, 25.0]))


def test_errors_are_in_pixels_of_the_photo():
    batch = batch_of(torch.zeros(2, 4, 2), scale=[1.0, 3.0])
    predicted = Prediction(torch.full((2, 4, 2), 2.0))
    torch.testing.assert_close(loss.squared_errors(predicted.points, batch), torch.tensor([4.0, 36.0]))
    for power, name in ((1, "l1"), (2, "mse")):
        weights = loss.photo_weights(batch.scale, unit="photo", typical_scale=2.0, power=power)
        expected = torch.tensor([1.0, 3.0]).pow(power)  # 2 and 6 pixels of photos of which 2 are one of the typical
        torch.testing.assert_close(weights * losses_of(predicted, batch, loss=name), expected)
        assert loss.UNIT_POWERS[name] == power
    assert torch.equal(loss.photo_weights(batch.scale, unit="image", typical_scale=2.0), torch.ones(2))


def test_losses_with_pixels_scale_with_them_and_others_do_not():
    """Twice the image, its points and its scales: the power of two is that of pixels in the loss, for large errors."""
    truth = torch.rand(3, 6, 2, generator=torch.manual_seed(0)) * 16
    predicted = prediction_of(truth + 5000)
    twice = predicted._replace(points=2 * predicted.points, log_scale=predicted.log_scale + math.log(2))
    for name in (name for name in NAMES if not needs_distributions(LossOptions(loss=name)) and name != "soft_wing"):
        small = losses_of(predicted, batch_of(truth), loss=name)
        large = losses_of(twice, batch_of(2 * truth, side=64), loss=name)
        if needs_scale(LossOptions(loss=name)):
            large = large - (2 if name == "rle" else 1) * math.log(2)  # a density has a unit, its gradients none
        torch.testing.assert_close(large, 2 ** loss.UNIT_POWERS.get(name, 0) * small, rtol=2e-3, atol=1e-4)


def test_edges_join_nearest_neighbours_once():
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0)), axis=-1).reshape(-1, 2)
    edges = loss.nearest_neighbours(grid)
    lengths = np.linalg.norm(grid[edges[:, 0]] - grid[edges[:, 1]], axis=1)
    assert (lengths == 1).sum() == 3 * 3 + 4 * 2
    assert lengths.max() <= 2
    assert len({frozenset(pair) for pair in edges.tolist()}) == len(edges)
    assert all(len(set(pair)) == 2 for pair in edges.tolist())
    for few in (1, 2, 3):
        assert len(loss.nearest_neighbours(grid[:few])) == few * (few - 1) // 2


def test_the_edge_term_is_the_mean_error_of_lengths_and_knows_no_place():
    truth = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.0, 8.0]]])
    edges = torch.tensor([[0, 1], [1, 2], [0, 2]])
    predicted = truth.clone()
    predicted[0, 2, 1] = 10.0  # edges of 5, 5 and 8 become 5, 6.7 and 10
    expected = (0 + 45**0.5 - 5 + 2) / 3
    found = [loss.edge_losses(p, batch_of(truth), edges, outside_weight=1.0).item() for p in (predicted, predicted + 9)]
    assert found == pytest.approx([expected, expected])
    assert loss.edge_losses(truth, batch_of(truth), edges, outside_weight=1.0).item() == 0
    gaps = truth.clone()
    gaps[0, 1, 0] = math.nan
    assert loss.edge_losses(predicted, batch_of(gaps), edges, outside_weight=1.0).item() == pytest.approx(2)
    outside = batch_of(truth)
    outside.inside[0, 0] = False
    weighted = loss.edge_losses(predicted, outside, edges, outside_weight=0.5).item()
    assert weighted == pytest.approx((45**0.5 - 5 + 0.5 * 2) / 2)


def test_a_flow_is_a_density_and_learns_one():
    """Its integral over the plane is one, before and after it has learned a skewed one."""
    generator = torch.manual_seed(0)
    flow = Flow()
    axis = torch.linspace(-12, 12, 241)
    plane = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(plane), -plane.square().sum(1) / 2 - math.log(2 * math.pi))
        assert trained_flow().log_prob(plane).exp().sum().item() * 0.1**2 == pytest.approx(1, abs=0.01)
    samples = torch.rand(512, 2, generator=generator).log().neg() - 1
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)
    before = -flow.log_prob(samples).mean().item()
    for _ in range(60):
        optimiser.zero_grad()
        likelihood = -flow.log_prob(samples).mean()
        likelihood.backward()
        optimiser.step()
    assert likelihood.item() < before - 0.3
    with torch.no_grad():
        assert flow.log_prob(plane).exp().sum().item() * 0.1**2 == pytest.approx(1, abs=0.02)


def test_gradients_of_a_scale_lead_back_from_beyond_its_bounds():
    predicted = Prediction(torch.ones(1, 2, 2), torch.tensor([[-50.0, 50.0]], requires_grad=True))
    losses_of(predicted, batch_of(torch.zeros(1, 2, 2)), loss="gaussian_nll").sum().backward()
    too_low, too_high = predicted.log_scale.grad[0].tolist()
    assert too_low < 0 < too_high


def test_the_same_options_with_another_loss_ask_for_what_they_need():
    options = LossOptions()
    assert not needs_scale(options)
    assert not needs_distributions(options)
    assert [name for name in NAMES if needs_scale(replace(options, loss=name))] == [
        "gaussian_nll",
        "laplace_nll",
        "rle",
    ]
