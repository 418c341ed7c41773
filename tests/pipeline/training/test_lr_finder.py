"""The sweep of the learning rate finds where the loss falls, and leaves no trace."""

import copy

import numpy as np
import pytest
import torch

from augment import parse_augmenters
from pipeline.errors import UserError
from pipeline.training import lr_finder
from pipeline.training.lr_finder import Sweep, propose, sweep
from tests.pipeline.training.test_trainer import recipe_of, start
from tests.scripts import SMALL, call

CHAIN = parse_augmenters([])


def tensors_of(state, path=""):
    """All values of a state, by where they lie."""
    if isinstance(state, dict):
        return {
            name: value for key, child in state.items() for name, value in tensors_of(child, f"{path}/{key}").items()
        }
    if isinstance(state, list | tuple):
        return tensors_of(dict(enumerate(state)), path)
    return {path: state}


def same(one, other) -> bool:
    one, other = tensors_of(one), tensors_of(other)
    return one.keys() == other.keys() and all(
        torch.equal(value.nan_to_num(-1), other[name].nan_to_num(-1))
        if isinstance(value, torch.Tensor)
        else value == other[name] or (value != value and other[name] != other[name])
        for name, value in one.items()
    )


def test_a_sweep_with_a_frozen_backbone_leaves_it_the_graph_that_is_trained(contest, tmp_path):
    training = start(recipe_of(contest, tmp_path, "-e", "3", "--freeze-epochs", "1"))
    backbone = training.network.backbone
    sweep(training, CHAIN, num_steps=12)
    assert backbone.graph is backbone.train_graph


@pytest.mark.parametrize(
    ("begun", "flags"),
    [
        (False, []),
        (True, []),
        (True, ["--optimiser", "muon", "--layer-decay", "0.5", "--freeze-epochs", "1"]),
        (True, ["--optimiser", "schedule_free", "--schedule", "constant"]),
    ],
)
def test_a_sweep_leaves_no_trace(contest, tmp_path, flags, begun):
    training = start(recipe_of(contest, tmp_path, "-e", "3", *flags))
    for batch in training.batches(CHAIN, 3 if begun else 0):
        training.step(batch)
    before = copy.deepcopy(training.state_dict())
    random, schedule = torch.get_rng_state(), training.schedule
    learns = [parameter.requires_grad for parameter in training.network.parameters()]
    modes = [module.training for module in training.network.modules()]
    found = sweep(training, CHAIN, num_steps=12)
    assert len(found.rates) > 5
    assert same(before, training.state_dict())
    assert torch.equal(random, torch.get_rng_state())
    assert training.schedule is schedule
    assert learns == [parameter.requires_grad for parameter in training.network.parameters()]
    assert modes == [module.training for module in training.network.modules()]
    assert all(parameter.grad is None for parameter in training.network.parameters())


def test_a_sweep_stops_where_the_loss_diverges(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(lr_finder, "HIGHEST", 1e15)
    training = start(recipe_of(contest, tmp_path, "--optimiser", "sgd", "--head", "linear"))
    found = sweep(training, CHAIN, num_steps=40)
    assert found.diverged
    assert len(found.rates) < 40
    assert np.isfinite(found.losses).all()


def test_all_steps_of_a_sweep_measure_one_loss_at_one_size(contest, tmp_path, monkeypatch):
    flags = ["--head", "linear", "--progressive", "[[0.3, 32]]", "--size", "40", "-e", "2"]
    trimmed = ["--top-perc-train", "30", "--trim-from", "1"]
    training = start(recipe_of(contest, tmp_path, *flags, *trimmed))
    recipe, options, seen = training.recipe, training.criterion.options, []

    def step(batch, step=training.step):
        seen.append((batch.images.shape[-1], training.criterion.trims(training.state.step / training.steps_per_epoch)))
        step(batch)

    monkeypatch.setattr(training, "step", step)
    sweep(training, CHAIN, num_steps=12)  # of eight
    assert set(seen) == {(32, False)}
    assert (training.recipe, training.criterion.options) == (recipe, options)


def swept(losses) -> Sweep:
    rates = np.geomspace(1e-6, 10, 200)
    return Sweep(rates, losses(np.log10(rates)), diverged=True)


def test_the_proposal_is_where_the_loss_falls_fastest_or_a_tenth_of_the_minimum():
    early = propose(swept(lambda x: 5 - 4 / (1 + np.exp(-6 * (x + 4))) + np.exp(3 * (x + 0.5))))
    assert early.steepest == pytest.approx(1e-4, rel=0.1)
    assert early.rate == float(f"{early.steepest:.1e}")
    late = propose(swept(lambda x: 5 - 4 / (1 + np.exp(-6 * (x + 2))) + 5 * np.exp(8 * (x + 1.5))))
    assert late.rate == float(f"{late.minimum / 10:.1e}") < late.steepest < late.minimum


def test_the_noise_of_small_batches_does_not_decide_the_proposal():
    def fall(x):
        return 5 - 2 / (1 + np.exp(-3 * (x + 3.5))) + 5 * np.exp(8 * (x + 0.5))

    clean = propose(swept(fall))
    for seed in range(20):
        noise = np.convolve(np.random.default_rng(seed).normal(0, 0.4, 209), np.full(10, 0.1), mode="valid")
        noisy = propose(swept(lambda x, noise=noise: fall(x) + noise))
        assert clean.rate / 5 < noisy.rate < clean.rate * 5, seed


@pytest.mark.parametrize("losses", [lambda x: 5 + x, lambda x: 5 + 0 * x, lambda x: 5 + 0.01 * np.sin(x)])
def test_a_loss_that_falls_at_no_rate_has_no_proposal(losses):
    with pytest.raises(UserError, match="fell at no learning rate"):
        propose(swept(losses))


def test_the_command_draws_and_proposes_and_starts_no_run(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(lr_finder, "NUM_STEPS", 40)
    monkeypatch.setattr(lr_finder.sweep, "__kwdefaults__", {"num_steps": 40})
    flags = ["-n", "x", "-d", contest, *SMALL, "--find-lr"]
    status, out, err = call("hack_train.py", tmp_path, *flags)
    assert status == 0, err
    assert "--learning-rate" in out
    (folder,) = (tmp_path / "runs").iterdir()
    assert "x-find-lr" in folder.name
    assert (folder / "loss_over_rate.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "events").iterdir())
    assert not (folder / "recipe.yaml").exists()
    status, _, err = call("hack_train.py", tmp_path, *flags, "--folds", "2")
    assert status == 2
    assert "--find-lr" in err
