"""Each recipe in configs/ trains, as it stands there but for its length, its size and its network."""

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
import torch
import torchvision
import yaml
from torchvision.models import mobilenetv3

from augment import parse_augmenters
from pipeline.command import Command
from pipeline.console import Console
from pipeline.recipe import Recipe, build_recipe, changes, flatten
from pipeline.recipe_file import read_recipe
from pipeline.runs import find_runs
from pipeline.stages import check_begun_anew, stage_recipe
from pipeline.training.callbacks import WorstPhotos
from pipeline.training.command import train_command
from tests.scripts import quick_pictures

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
FOR_ITSELF = {"organisers.yaml": {"head", "learning_rate"}}  # what it must be, whatever the defaults become
WHOLE_NETWORK = mobilenetv3._mobilenet_v3
SHORT = {"epochs": 1, "steps_per_epoch": 1, "minutes": None, "session_minutes": None}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of mobilenet_v3_small with three of its eleven blocks, which it has in this module."""

    def build(blocks, _, *rest, **named):
        return WHOLE_NETWORK(blocks[:3], 128, *rest, **named)

    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    with (
        mock.patch.object(mobilenetv3, "_mobilenet_v3", build),
        mock.patch.object(WorstPhotos, "draw", return_value=None),
        quick_pictures(),
    ):
        torch.save(torchvision.models.mobilenet_v3_small().state_dict(), path)
        yield path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_in_configs_is_valid_and_repeats_nothing(path):
    own = yaml.safe_load(path.read_text())
    below = read_recipe(path.parent / own.pop("extends")) if "extends" in own else Recipe()
    recipe = read_recipe(path)
    check_begun_anew(recipe)
    parse_augmenters(recipe.augmentation.augment)
    repeated = own.keys() - changes(recipe, below).keys()
    assert repeated <= FOR_ITSELF.get(path.name, set()), "a line repeats what would be so without it"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_images_grow_in_steps_of_a_quarter_or_less(path):
    """What docs/experiments.md has decided: larger ones throw a training back."""
    recipe = read_recipe(path)
    for stage in [stage_recipe(recipe, number) for number in range(len(recipe.run.stages))] or [recipe]:
        sizes = [*(size for _, size in stage.photos.progressive), stage.photos.size]
        assert all(larger <= 1.25 * size for size, larger in pairwise(sizes)), sizes


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_in_configs_takes_a_step(path, contest, weights, tmp_path):
    recipe = shortened(read_recipe(path), contest, weights, tmp_path)
    train_command(Command(recipe=recipe), Console(io.StringIO()))
    (run,) = find_runs((), recipe.run.runs)
    assert run.best.exists()
    assert run.recipe().loss == recipe.loss


def shortened(recipe, contest, weights, folder):
    """The recipe with a small network, on small images, for one step of each stage."""
    options = replace(recipe.run, data=contest, runs=folder / "runs", cache=contest.parent / "cache", gpu=False)
    start = "none" if recipe.network.weights == "none" else str(weights)
    flat = flatten(replace(recipe, run=options)) | {"model": "mobilenet_v3_small", "weights": start, "batch_size": 8}
    stages = [small(stage) | SHORT for stage in recipe.run.stages]
    return build_recipe(small(flat) | SHORT | {"stages": stages}, name_of=str)


def small(fields):
    """The fields with images of 32 pixels, of which there is one pack for all."""
    fields = dict(fields)
    if "size" in fields:
        fields["size"] = 32
    if "progressive" in fields:
        fields["progressive"] = [[share, 32] for share, _ in fields["progressive"]]
    return fields
