"""Each schedule is the curve of its name: that of torch.optim.lr_scheduler, after a warm-up."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import OptimiserOptions
from pipeline.training.schedules import CURVES, RISING, Plateau, scheduled_rate

STEPS = 600
HIGHEST, LOWEST = 0.4, 0.001


def options_of(schedule, **fields) -> OptimiserOptions:
    return OptimiserOptions(**{"schedule": schedule, "learning_rate": HIGHEST, "final_rate": LOWEST, **fields})


def torchs_own(schedule, optimiser):
    schedulers = torch.optim.lr_scheduler
    return {
        "cosine": lambda: schedulers.CosineAnnealingLR(optimiser, STEPS, eta_min=LOWEST),
        "cosine_restarts": lambda: schedulers.CosineAnnealingWarmRestarts(optimiser, STEPS // 4, eta_min=LOWEST),
        "triangular": lambda: schedulers.CyclicLR(optimiser, LOWEST, HIGHEST, step_size_up=STEPS // 8),
        "one_cycle": lambda: schedulers.OneCycleLR(
            optimiser, HIGHEST, total_steps=STEPS + 1, final_div_factor=HIGHEST / 25 / LOWEST
        ),
        "exponential": lambda: schedulers.ExponentialLR(optimiser, (LOWEST / HIGHEST) ** (1 / STEPS)),
        "linear": lambda: schedulers.LinearLR(optimiser, 1.0, LOWEST / HIGHEST, STEPS),
        "constant": lambda: schedulers.ConstantLR(optimiser, 1.0),
    }[schedule]()


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("schedule", CURVES)
def test_a_schedule_is_torchs_own(schedule):
    steps = STEPS if schedule != "triangular" else 8 * (STEPS // 8)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=HIGHEST)
    reference = torchs_own(schedule, optimiser)
    for step in range(steps):
        # OneCycleLR has its top a step before the share that it is given.
        at = step / steps
        expected = optimiser.param_groups[0]["lr"]
        found = scheduled_rate(at, options_of(schedule, warmup=0))
        tolerance = {"abs": 0.01 * HIGHEST} if schedule == "one_cycle" else {"rel": 1e-9}
        assert found == pytest.approx(expected, **tolerance), step
        reference.step()


@given(st.sampled_from(sorted(CURVES)), st.floats(0, 0.9), st.floats(0, 1), st.integers(1, 50))
def test_a_rate_is_never_above_the_highest_and_below_the_lowest_in_the_warm_up_alone(
    schedule, warmup, progress, cycles
):
    options = options_of(schedule, warmup=warmup, cycles=cycles)
    rate = scheduled_rate(progress, options)
    assert 0 <= rate <= HIGHEST * (1 + 1e-12)
    if progress >= warmup:
        assert rate >= LOWEST * (1 - 1e-12)


@pytest.mark.parametrize("schedule", sorted(set(CURVES) - set(RISING)))
def test_a_warm_up_rises_to_the_rate_that_the_curve_starts_with(schedule):
    options = options_of(schedule, warmup=0.25)
    rates = [scheduled_rate(progress, options) for progress in np.linspace(0, 0.25, 26)[:-1]]
    assert rates == pytest.approx([HIGHEST * step / 25 for step in range(25)])
    plain = options_of(schedule, warmup=0)
    for share in (0, 0.3, 0.9, 1):
        assert scheduled_rate(0.25 + 0.75 * share, options) == pytest.approx(scheduled_rate(share, plain), abs=1e-9)


@pytest.mark.parametrize("schedule", ["one_cycle", "triangular"])
def test_a_schedule_that_begins_with_a_rise_has_no_warm_up_before_it(schedule):
    for progress in np.linspace(0, 1, 51):
        rates = (scheduled_rate(progress, options_of(schedule, warmup=warmup)) for warmup in (0, 0.25))
        assert len(set(rates)) == 1


@pytest.mark.parametrize(
    ("schedule", "end"),
    [(name, HIGHEST if name == "constant" else LOWEST) for name in CURVES],
)
def test_a_training_ends_at_the_lowest_rate(schedule, end):
    assert scheduled_rate(1, options_of(schedule)) == pytest.approx(end)


def test_cycles_restart():
    restarts = options_of("cosine_restarts", warmup=0, cycles=3, final_rate=0)
    assert [scheduled_rate(share, restarts) for share in (0, 1 / 3, 2 / 3)] == pytest.approx([HIGHEST] * 3)
    assert scheduled_rate(0.5, restarts) == pytest.approx(HIGHEST / 2)
    assert scheduled_rate(1 / 3 - 1e-6, restarts) < 1e-6
    triangular = options_of("triangular", warmup=0, cycles=2)
    assert [scheduled_rate(share, triangular) for share in (0, 0.25, 0.5, 0.75)] == pytest.approx([LOWEST, HIGHEST] * 2)


def test_the_default_is_the_cosine_that_it_was_to_the_bit():
    options = OptimiserOptions()
    for progress in np.linspace(0, 1, 997).tolist():
        expected = options.learning_rate * progress / 0.03
        if progress >= 0.03:
            expected = options.learning_rate * (1 + math.cos(math.pi * (progress - 0.03) / max(1 - 0.03, 1e-9))) / 2
        assert scheduled_rate(progress, options) == expected


@pytest.mark.parametrize(
    ("schedule", "steps_per_epoch"), [("plateau", 10), ("plateau_validation", 10), ("plateau_validation", 1)]
)
def test_a_plateau_begins_with_the_whole_rate_once_the_warm_up_is_over(schedule, steps_per_epoch):
    """Progress goes on during a step and a validation: the rate of the step before is from within the warm-up."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([{"params": [parameter], "factor": 0.5}], lr=0.0)
    following = Plateau(optimiser, options_of(schedule, warmup=0.03), steps_per_epoch)
    for step in range(40):
        following.before_step(step / 200)
        following.after_step((step + 1) / 200, 1 / (step + 1))
        if (step + 1) % steps_per_epoch == 0:
            following.after_epoch((step + 1) / 200, 1 / (step + 1))
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.5 * HIGHEST)
