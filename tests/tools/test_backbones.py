"""The chooser of backbones: its figures are those of the networks that are trained, and failures stop nothing."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from pipeline.networks import make_network
from pipeline.runtime import Runtime
from pipeline.training.estimate import network_cost
from tools import backbones
from tools.backbones import Backbone, Options, StepCost, backbone_of, in_order, measured, recipe_of, table


@pytest.mark.parametrize(("head", "loss"), [("integral", "smooth_l1"), ("integral", "rle"), ("linear", "smooth_l1")])
def test_figures_are_those_that_a_training_says(tmp_path, head, loss):
    (tmp_path / "recipe.yaml").write_text(f"head: {head}\nloss: {loss}\nsize: 64\nbatch_size: 12\naccumulate: 3\n")
    recipe = recipe_of(Options(config=tmp_path / "recipe.yaml"))
    recipe = replace(recipe, network=replace(recipe.network, model="resnet18", weights="none"))
    found = backbone_of("resnet18", recipe, 68)
    network = make_network(recipe, None, mean_shape=64 * np.random.default_rng(0).random((68, 2), dtype=np.float32))
    cost = network_cost(network, size=64, runtime=Runtime(torch.device("cpu"), "fp32"))
    assert (found.parameters, found.gflops) == (cost.num_parameters / 1e6, cost.flops / 1e9)
    assert recipe.optimiser.batch_size == 4  # what is in the memory at once


def test_accuracy_is_that_of_the_weights_that_a_training_starts_from():
    weights = torchvision.models.ResNet50_Weights.DEFAULT
    found = backbones.on_imagenet("resnet50")
    assert found == (weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], 224)
    assert backbones.on_imagenet("timm/resnet10t") == (None, None)


def test_a_backbone_that_does_not_take_the_size_is_told_and_others_are_listed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["backbones", "resnet18", "vit_h_14", "--size", "64", "--sort", "name"])
    backbones.main()
    out = capsys.readouterr().out
    assert "\nresnet18 " in out
    assert "\nvit_h_14 is not for images of 64 px with this head: Input shape indivisible by patch size!" in out


def test_a_name_that_is_none_is_refused_and_so_is_measuring_all(monkeypatch):
    for flags, said in ((["resnet_18"], "did you mean resnet18"), (["--measure"], "--max-gflops")):
        monkeypatch.setattr("sys.argv", ["backbones", *flags])
        with pytest.raises(backbones.UserError, match=said):
            backbones.main()


ROWS = [
    Backbone("b", 70.0, 224, 11.0, 2.0, 100.0, 1.5),
    Backbone("long_name", None, None, 700.0, 1024.0),
    Backbone("a", 80.0, 384, 3.0, 0.1, 50.0, 0.5),
]


def test_what_is_good_comes_first_and_what_is_not_known_last():
    orders = {"name": ["a", "b", "long_name"], "accuracy": ["a", "b", "long_name"], "rate": ["b", "a", "long_name"]}
    orders |= {"gflops": ["a", "b", "long_name"], "memory": ["a", "b", "long_name"]}
    for column, names in orders.items():
        assert [row.name for row in in_order(ROWS, column)] == names, column


def test_the_table_lines_up():
    lines = list(table(ROWS))
    assert len({len(line) for line in lines}) == 1
    ends = [
        [end for end in range(1, len(line)) if line[end - 1] != " " and line[end : end + 1] in ("", " ")]
        for line in lines
    ]
    assert {tuple(np.array(row)[-4:]) for row in ends} == {tuple(np.array(ends[1])[-4:])}


@pytest.mark.slow
def test_a_step_is_measured_in_a_process_of_its_own(monkeypatch, capfd):
    """One that fails is told, and its row stays."""
    run = subprocess.run

    def begin_with(code):
        """Lets the process run this before what it is told to run."""

        def run_both(command, **named):
            return run([*command[:-1], f"{code}; {command[-1]}"], **named)

        monkeypatch.setattr(subprocess, "run", run_both)

    begin_with("import tools.backbones; tools.backbones.SECONDS = 0")
    options = Options(size=48, batch_size=2, points=7)
    row = backbone_of("mobilenet_v3_small", recipe_of(options), 7)
    found = measured(row, options)
    assert found.rate is not None
    assert found.memory is not None
    assert found.rate > 0
    assert 0.01 < found.memory < 4  # weights, gradients and moments take 20 MB of it
    begin_with("raise SystemExit('no memory')")
    assert measured(row, options) == row
    assert "mobilenet_v3_small could not be measured: no memory\n" in capfd.readouterr().out


def test_the_rate_is_the_median_of_the_steps_without_the_first(monkeypatch):
    monkeypatch.setattr(backbones, "SECONDS", 0.0)
    seconds = iter([9.0, 0.5, 0.25, 0.25])
    monkeypatch.setattr(backbones, "_steps", lambda *_: seconds)
    options = Options(size=48, batch_size=2, points=7)
    found = backbones.measure_step("mobilenet_v3_small", recipe_of(options), options)
    assert isinstance(found, StepCost)
    assert found.rate == 2 / 0.375
