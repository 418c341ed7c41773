"""The pictures of a training show what they are given, and what they are made of lies in the checkpoint."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics import point_errors
from pipeline.training import pictures
from pipeline.training.figures import draw_curves, draw_loss_over_rate, draw_point_errors
from pipeline.training.pictures import StepRecord
from pipeline.training.trainer import StepResult

STEPS = np.stack([np.arange(1, 51.0), np.full(50, 2.0), np.full(50, 2.0), np.geomspace(1e-2, 1e-5, 50)], axis=1)
HISTORY = [{"step": 25, "train_mse": 9.0, "validation_mse": 12.0}, {"step": 50, "train_mse": 5, "validation_mse": 8}]


def is_drawn(picture):
    return picture.dtype == np.uint8 and picture.shape[2] == 3 and len(np.unique(picture)) > 10


def test_curves_are_drawn_from_the_first_epoch_on_and_show_other_numbers_otherwise():
    whole = draw_curves(STEPS, HISTORY, title="x")
    for steps, history in ((STEPS[:0], HISTORY[:1]), (STEPS, [*HISTORY[:1], {"step": 50, "validation_mse": 8}])):
        other = draw_curves(steps, history, title="x")
        assert is_drawn(other)
        assert (other != whole).any()
    assert is_drawn(draw_loss_over_rate(STEPS))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", [lambda steps: draw_curves(steps, HISTORY, title="x"), draw_loss_over_rate])
@pytest.mark.parametrize("lowest", [-5.0, 0.0])
def test_losses_that_are_not_above_0_are_drawn_too(draw, lowest):
    """Those of likelihoods; on a logarithmic axis they left the panel blank."""
    falling = STEPS.copy()
    falling[:, 1:3] = np.linspace(lowest / 2, lowest, 50)[:, None]
    other = falling.copy()
    other[10:20, 1:3] += lowest / 4 or -0.1
    assert (draw(falling) != draw(other)).sum() > 100


def test_the_error_of_each_point_is_over_the_photos_in_which_it_is_known():
    truth = np.zeros((3, 3, 2))
    truth[0, 0] = truth[:, 2] = np.nan
    predicted = np.zeros_like(truth)
    predicted[:, 0] = [(9, 9), (3, 0), (0, 3)]
    errors, counts = point_errors(predicted, truth)
    assert errors[:2].tolist() == [pytest.approx(4.5**0.5), 0]
    assert np.isnan(errors[2])
    shape = np.array([(1, 1), (2, 5), (6, 2)])
    assert is_drawn(draw_point_errors(shape, errors, counts, title="x"))
    assert is_drawn(draw_point_errors(shape, np.full(3, np.nan), np.zeros(3, int), title="x"))


@given(st.integers(1, 400), st.integers(1, 399), st.integers(1, 30))
def test_a_record_of_steps_is_even_and_the_same_after_a_resume(count, resumed_after, at_a_time):
    results = [StepResult(step, 2.0 * step, 3.0 * step, 1e-3, 1.0) for step in range(1, count + 1)]
    pictures.MAX_RECORDED, before = 40, pictures.MAX_RECORDED
    try:
        whole, record = StepRecord(), StepRecord()
        for first in range(0, count, at_a_time):
            whole.after_flush(None, results[first : first + at_a_time])
        record.after_flush(None, results[:resumed_after])
        again = StepRecord()
        again.load_state_dict(record.state_dict())
        again.after_flush(None, results[resumed_after:])
    finally:
        pictures.MAX_RECORDED = before
    np.testing.assert_array_equal(whole.table, again.table)
    expected = [step for step in range(1, count + 1) if step % whole.stride == 0]
    assert whole.table[:, 0].tolist() == expected
    assert len(expected) <= 40
    assert count < 40 or len(expected) >= 20
    assert (whole.table[:, 1] == 2 * whole.table[:, 0]).all()


def test_a_record_that_is_none_is_refused():
    for state in ({"rows": 3, "stride": 1}, {"rows": StepRecord().state_dict()["rows"], "stride": 0}):
        with pytest.raises((TypeError, ValueError)):
            StepRecord().load_state_dict(state)
    StepRecord().load_state_dict({})  # of an earlier version


def test_a_region_may_have_any_name():
    shape = np.array([(1.0, 2.0), (3.0, 4.0), (5.0, 1.0)])
    assert is_drawn(
        draw_point_errors(shape, np.ones(3), np.ones(3, int), title="x", regions={"a_$x_$": np.array([0, 1])})
    )
