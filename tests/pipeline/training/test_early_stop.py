"""Early stopping counts epochs since the best one, and only those of the last image size."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import RunningOptions
from pipeline.training.early_stop import out_of_patience
from tests.pipeline.training.test_trainer import history_of, recipe_of, resume, run_to_end, same, start

ERRORS = st.lists(st.floats(0, 100, allow_nan=False), max_size=12)


def rows(errors, size=128):
    return [{"validation_mse": error, "image_size": size} for error in errors]


@given(ERRORS, st.integers(1, 5))
def test_patience_ends_when_none_of_so_many_last_epochs_is_the_best(errors, patience):
    expected = len(errors) > patience and min(errors[:-patience]) <= min(errors[-patience:])
    assert out_of_patience(rows(errors), patience=patience, size=128) == expected


@given(ERRORS)
def test_without_patience_nothing_ends_early(errors):
    assert RunningOptions().patience is None
    assert not out_of_patience(rows(errors), patience=None, size=128)


def test_epochs_of_smaller_images_do_not_count():
    small, large = rows([1, 2, 3, 4], size=64), rows([9, 8, 9], size=128)
    assert not out_of_patience(small, patience=2, size=128)
    assert not out_of_patience([*small, *large], patience=2, size=128)
    assert out_of_patience([*small, *large, *rows([9])], patience=2, size=128)


def test_a_resumed_run_ends_early_where_one_that_was_not_stopped_does(contest, tmp_path):
    """Its patience lies in the table of epochs, which the checkpoint has. An end that was reached is not gone on from,
    until there is more patience."""
    recipe = recipe_of(contest, tmp_path, "-e", "9", "--patience", "2", "-lr", "1e-12", "--ema-decay", "0")
    whole = start(recipe)
    bad = iter([5.0, 4.0, 6.0, 5.0])
    score_as(whole, bad)
    run_to_end(whole)
    assert [row["validation_mse"] for row in whole.state.history] == [5, 4, 6, 5]
    assert whole.is_out_of_patience
    again = resume(recipe, whole.run)
    run_to_end(again)
    assert same(whole, again)
    assert history_of(whole) == history_of(again)


def score_as(training, errors):
    """Lets the validation of each epoch in turn come out so."""
    from dataclasses import replace

    validated = training._validated

    def scored(speed):
        result, mse = validated(speed), next(errors)
        return replace(result, row=result.row | {"validation_mse": mse}, validation=replace(result.validation, mse=mse))

    training._validated = scored
