"""Memory that runs out is one line that names what to try; other errors stay what they are."""

import weakref

import numpy as np
import pytest
import torch

from models import LandmarkNet
from pipeline import networks
from pipeline.errors import UserError
from pipeline.memory import out_of_memory_named, smaller_batch
from pipeline.ranks import _lost_named
from pipeline.recipe import NetworkOptions, OptimiserOptions, Recipe
from pipeline.training import command as training_command
from pipeline.training import one_run
from pipeline.training.command import find_learning_rate
from pipeline.training.one_run import train_run, what_fits

RAN_OUT = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has"),
    "a library of the gpu": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "cpu of windows": RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("where", RAN_OUT)
def test_memory_that_runs_out_is_a_line_that_names_a_batch_size(where):
    recipe = Recipe(optimiser=OptimiserOptions(batch_size=48))
    place = "the GPU" if "gpu" in where else "the computer"
    said = f"^{place} is out of memory: .*--batch-size 24"
    with pytest.raises(UserError, match=said) as caught, out_of_memory_named(what_fits(recipe)):
        raise RAN_OUT[where]
    assert "\n" not in str(caught.value)


def test_a_sweep_of_rates_names_a_batch_size_too(monkeypatch):
    def find_rate(*arguments):
        raise RAN_OUT["gpu"]

    monkeypatch.setattr(training_command, "prepare", lambda recipe, earlier: (None, None))
    monkeypatch.setattr(training_command, "find_rate", find_rate)
    with pytest.raises(UserError, match=r"the GPU is out of memory: .*--batch-size 24"):
        find_learning_rate(Recipe(optimiser=OptimiserOptions(batch_size=48)))


@pytest.mark.parametrize(
    ("module", "begin"),
    [(training_command, find_learning_rate), (one_run, lambda recipe: train_run(recipe, None, None))],
)
def test_memory_that_runs_out_before_the_first_step_is_that_line_too(module, begin, monkeypatch):
    def prepare(recipe, earlier):
        raise RAN_OUT["cpu"]

    monkeypatch.setattr(module, "prepare", prepare)
    with pytest.raises(UserError, match=r"the computer is out of memory: .*--batch-size 24"):
        begin(Recipe(optimiser=OptimiserOptions(batch_size=48)))


@pytest.mark.parametrize("where", ["build_for", "_check_size"])
def test_memory_that_runs_out_is_not_taken_for_a_size_that_a_backbone_does_not_take(where, monkeypatch):
    def run_out(*arguments, **named):
        raise RAN_OUT["cpu"]

    monkeypatch.setattr(*((networks, "build_for") if where == "build_for" else (LandmarkNet, "forward")), run_out)
    recipe = Recipe(network=NetworkOptions(model="mobilenet_v3_small"))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        networks.make_network(recipe, None, mean_shape=np.zeros((2, 2)))


@pytest.mark.parametrize("size", [1 << 50, 1 << 62])
def test_what_torch_itself_raises_on_a_cpu_is_known(size):
    with pytest.raises(UserError, match="the computer is out of memory"), out_of_memory_named("try less"):
        torch.empty(size, dtype=torch.uint8)


def test_nothing_of_a_training_that_ran_out_of_memory_is_kept_with_the_error():
    """A notebook keeps the last error, and with its frames what they hold."""
    held = []

    def train():
        network = torch.nn.Linear(2, 2)
        held.append(weakref.ref(network))
        raise RAN_OUT["gpu"]

    with pytest.raises(UserError) as caught, out_of_memory_named("try less"):
        train()
    assert caught.value.__cause__ is RAN_OUT["gpu"]
    assert held[0]() is None


def test_memory_that_runs_out_in_an_exchange_is_no_process_that_is_lost():
    with pytest.raises(UserError, match="the GPU is out of memory"), out_of_memory_named("try less"), _lost_named():
        raise RAN_OUT["gpu"]


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_named("try less"):
        raise RuntimeError("shapes do not fit")


def test_a_batch_of_one_photo_is_not_halved():
    assert smaller_batch(1, otherwise="a --size below 64") == "a --size below 64"
    assert smaller_batch(3, otherwise="") == "--batch-size 1"
