"""A loss or a gradient that is not finite moves no weight, ends the run, and is never saved."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from models import Prediction
from pipeline.errors import UserError
from pipeline.training.finite import mark_not_finite, step_if_finite
from tests.pipeline.training.test_trainer import recipe_of, run_to_end, start

OPTIMISERS = {
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "not fused": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
}


def trained_with(optimiser, gradients, *, guarded):
    """The weights and the optimiser's state after steps with these gradients."""
    weight = nn.Parameter(torch.arange(5.0))
    steps = optimiser([weight])
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for gradient in gradients:
        weight.grad = torch.full((5,), gradient)
        if guarded:
            step_if_finite(steps, scaler, torch.nn.utils.get_total_norm([weight.grad]))
        else:
            steps.step()
    return weight.data, steps.state_dict()["state"]


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_whose_gradient_is_not_finite_is_as_if_it_had_not_been(name, bad):
    """The others are the optimiser's own, to the bit."""
    weights, state = trained_with(OPTIMISERS[name], [1.0, bad, 2.0, bad], guarded=True)
    expected_weights, expected_state = trained_with(OPTIMISERS[name], [1.0, 2.0], guarded=False)
    assert torch.equal(weights, expected_weights)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=0)


def test_the_gradient_is_left_as_it_is_until_a_value_is_not_finite():
    for values, finite in (([0.1, 7.0], True), ([0.1, math.nan], False), ([math.inf, 1.0], False)):
        frozen, moved = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        moved.grad = torch.tensor([0.1, -7.3])
        mark_not_finite([frozen, moved], torch.tensor(values))
        assert torch.equal(moved.grad, torch.tensor([0.1, -7.3])) == finite
        assert moved.grad.isfinite().all() == finite


def fail_from(training, first_step, *, of_loss=True):
    """Lets the network's predictions, or only their gradients, be no numbers from a step on. Returns a dictionary that
    gets the weights from before that step."""
    predict, before = training.network.predict, {}

    def wrong(images):
        points = predict(images).points
        if training.state.step >= first_step:
            if not before:
                before.update({name: value.clone() for name, value in training.network.named_parameters()})
            if of_loss:
                points = points + torch.tensor([math.nan, *[0.0] * (len(images) - 1)])[:, None, None]
            else:
                points.register_hook(lambda gradient: gradient * math.nan)
        return Prediction(points)

    training.network.predict = wrong
    return before


@pytest.mark.parametrize(
    ("precision", "trimming"), [("fp32", ["--without-top-perc-train", "10"]), ("fp16", [])], ids=["trimmed", "fp16"]
)
def test_the_weights_have_not_moved_when_a_loss_ends_the_run(contest, tmp_path, precision, trimming):
    training = start(recipe_of(contest, tmp_path, "-e", "1", *trimming))
    training.scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    before = fail_from(training, 2)
    with pytest.raises(UserError, match="at step 3"):
        run_to_end(training)
    assert before
    for name, value in training.network.named_parameters():
        assert torch.equal(value, before[name]), name


def test_a_gradient_that_is_no_number_ends_the_run_as_a_loss_does_but_for_fp16(contest, tmp_path):
    training = start(recipe_of(contest, tmp_path, "-e", "1"))
    before = fail_from(training, 2, of_loss=False)
    with pytest.raises(UserError, match="the gradient's norm is nan at step 3"):
        run_to_end(training)
    for name, value in training.network.named_parameters():
        assert torch.equal(value, before[name]), name

    training = start(recipe_of(contest, tmp_path, "-e", "1"))
    training.scaler = torch.amp.GradScaler("cpu", enabled=True)
    fail_from(training, 2, of_loss=False)
    run_to_end(training)
    assert training.state.epoch == 1


def test_gradients_that_are_never_finite_in_fp16_end_the_run(contest, tmp_path):
    training = start(recipe_of(contest, tmp_path, "-e", "1", "--steps-per-epoch", "60", "-b", "4"))
    training.scaler = torch.amp.GradScaler("cpu", enabled=True)
    fail_from(training, 2, of_loss=False)
    with pytest.raises(UserError, match="not finite in fp16, however small the loss is scaled"):
        run_to_end(training)
    assert 30 < training.state.step <= 45  # 65,536 halved so often


def test_a_stop_before_a_bad_loss_is_read_saves_nothing(contest, tmp_path):
    """The checkpoint could not be gone on with."""
    training = start(recipe_of(contest, tmp_path, "-e", "1"))
    fail_from(training, 1)
    step = training.step

    def step_and_stop(batch):
        step(batch)
        if training.state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    training.step = step_and_stop
    with pytest.raises(UserError, match="at step 2"):
        run_to_end(training)
    assert not training.run.last.exists()
