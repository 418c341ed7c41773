"""A checkpoint is taken by the network and the training that it is of, and by no other."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import build_network
from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.data.dataset import load_training_data
from pipeline.errors import UserError
from pipeline.networks import load_run_network, make_network
from pipeline.runs import Run
from pipeline.runtime import Runtime
from pipeline.training.trainer import Trainer
from tests.scripts import SMALL, call


def network_of(model, num_points=971):
    return build_network(model, np.full((num_points, 2), 20.0), 48).state_dict()


def with_tensor(change):
    def spoil(content):
        name = next(name for name, tensor in content["network"].items() if tensor.ndim == 4)
        content["network"][name] = change(content["network"][name])

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.update(network=network_of("resnet18")),
        lambda content: content.update(network=network_of("mobilenet_v3_small", num_points=7)),
        lambda content: content.update(network=[1]),
        lambda content: content["network"].popitem(),
        lambda content: content.update(average={}),
        with_tensor(torch.Tensor.double),
        with_tensor(torch.Tensor.int),
        with_tensor(lambda tensor: tensor[:1]),
        with_tensor(lambda tensor: torch.full_like(tensor, torch.nan)),
    ],
)
def test_weights_of_another_network_are_refused_with_their_file(copy_run, spoil):
    run = Run(copy_run())
    load_run_network(run, "best")
    content = load_checkpoint(run.best)
    spoil(content)
    save_checkpoint(run.best, content)
    with pytest.raises(UserError, match=r"best\.pt") as raised:
        load_run_network(run, "best")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["best", "last"])
def test_best_and_last_that_were_exchanged_are_refused(copy_run, name):
    """The best weights are an average; those of the last step would be taken for them."""
    run = Run(copy_run())
    shutil.copyfile(run.last, other := run.folder / "other.pt")
    shutil.copyfile(run.best, run.last)
    other.replace(run.best)
    with pytest.raises(UserError, match=rf"{name}\.pt"):
        load_run_network(run, name)


@pytest.fixture(scope="module")
def training_and_state(trained):
    run = Run(trained)
    recipe = run.recipe()
    recipe = replace(recipe, optimiser=replace(recipe.optimiser, schedule="plateau"))
    data = load_training_data(replace(recipe, photos=run.photo_options()))
    network = make_network(recipe, None, mean_shape=data.mean_shape)
    training = Trainer(network, recipe, data, Runtime(torch.device("cpu"), "fp32"))
    state = load_checkpoint(run.last) | {"of": training.identity, "schedule": training.schedule.state_dict()}
    training.load_state_dict(state)
    return training, training.state_dict()


def progress(**values):
    return lambda state: state["progress"].update(values)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("sample_errors"),
        lambda state: state.update(of="a run with another split"),
        lambda state: state.update(network=network_of("resnet18")),
        lambda state: state.update(num_updates=True),
        lambda state: state["optimiser"]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda state: state["optimiser"]["state"][0].update(exp_avg=state["optimiser"]["state"][0]["exp_avg"] / 0),
        lambda state: state["optimiser"]["param_groups"].pop(),
        lambda state: state["schedule"].update(best=float("nan")),
        lambda state: state.update(criterion={"recent_losses": torch.zeros(3)}),
        lambda state: state.update(pending=[(torch.tensor([10**6]), torch.zeros(2))]),
        lambda state: state.update(random=[1]),
        progress(epoch=-1),
        progress(step=True),
        progress(history=[]),
        progress(history=[{"epoch": 0}]),
        progress(minutes=float("inf")),
        progress(best_mse="1"),
    ],
)
def test_the_state_of_another_training_is_refused_with_its_file(training_and_state, tmp_path, spoil):
    training, state = training_and_state
    state = copy.deepcopy(state)
    spoil(state)
    save_checkpoint(tmp_path / "last.pt", state)
    with pytest.raises(UserError, match=r"last\.pt does not fit this run") as raised:
        training.load(tmp_path / "last.pt")
    assert "\n" not in str(raised.value)


def test_settings_come_from_the_recipe_and_what_was_learned_from_the_checkpoint(training_and_state):
    training, state = training_and_state
    state = copy.deepcopy(state)
    state["schedule"].update(best=3.5, factor=0.1)
    state["optimiser"]["param_groups"][0].update(lr=0.25, weight_decay=7.0)
    training.load_state_dict(state)
    plateau = training.schedule.plateau
    assert (plateau.best, plateau.factor) == (3.5, training.recipe.optimiser.plateau_factor)
    assert training.rate == 0.25
    assert training.optimiser.param_groups[0]["weight_decay"] == training.recipe.optimiser.weight_decay


def test_a_run_does_not_go_on_from_the_checkpoint_of_another_split(contest, copy_run, tmp_path):
    """It would resume a network that was trained on what it is said to hold out."""
    run = copy_run()
    status, _, err = call("hack_train.py", tmp_path, "-n", "y", "-d", contest, *SMALL, "-e", "1", "--seed", "1")
    assert status == 0, err
    (other,) = (path for path in (tmp_path / "runs").iterdir() if path != run)
    shutil.copyfile(other / "last.pt", run / "last.pt")
    status, _, err = call("hack_train.py", tmp_path, "--resume", run, "-e", "2")
    assert (status, err.count("\n")) == (2, 1)
    assert f"{run}/last.pt does not fit this run: it is of a run with other photos, another split" in err
