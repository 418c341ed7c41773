"""Real photos, where they lie beside the project: a short run is better than the mean shape."""

from dataclasses import replace

import numpy as np
import torch

from augment import parse_augmenters
from pipeline.command import parse_command
from pipeline.data.dataset import load_training_data, mean_shape_score
from pipeline.networks import make_network
from pipeline.runtime import Runtime
from pipeline.training.callbacks import default_callbacks
from pipeline.training.new_run import create_run
from pipeline.training.trainer import Trainer
from tests.scripts import quick_pictures


def test_a_short_run_on_real_photos_beats_the_mean_shape(faces68, tmp_path):
    flags = ["-d", str(faces68), "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    small = ["--model", "resnet18", "--weights", "none", "--deepest-stride", "16", "--size", "48", "-e", "2"]
    recipe = parse_command([*flags, *small]).recipe
    data = load_training_data(recipe)
    assert (len(data.pack), data.num_points) == (3545, 68)
    assert data.flip_indices is not None
    assert not set(data.groups[data.train]) & set(data.groups[data.validation])
    assert abs(len(data.validation) / 3545 - 0.05) < 0.005
    few = replace(data, train=np.sort(np.random.default_rng(0).permutation(data.train)[:1280]))
    floor = mean_shape_score(few)
    network = make_network(recipe, None, mean_shape=data.mean_shape)
    trainer = Trainer(network, recipe, few, Runtime(torch.device("cpu"), "fp32"))
    run = create_run(recipe, few, floor=floor)
    trainer.callbacks = default_callbacks(run)
    with quick_pictures():
        trainer.train(parse_augmenters(recipe.augmentation.augment))
    assert trainer.state.best_mse < 0.8 * floor.mse
