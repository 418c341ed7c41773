"""Pipeline efficiency: photos a second as trained, over those of the same network stepping on one fixed batch.

    python -m benchmarks.efficiency --data PATH --model resnet18 [--gpu] [--rounds 11]

Both are measured in one process, in turn, several times; the ratio is what the reading, drawing, warping, logging and
averaging leave of the hardware's speed. Validation and checkpoints are outside both.
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from augment import parse_augmenters
from benchmarks.results import write_result
from benchmarks.rounds import Ratio
from pipeline.command import Command, parse_command
from pipeline.data.dataset import load_training_data, mean_shape_score
from pipeline.data.loader import training_batches
from pipeline.networks import make_network
from pipeline.recipe import Recipe
from pipeline.runtime import Runtime
from pipeline.training.callbacks import Bar
from pipeline.training.losses import sample_losses
from pipeline.training.new_run import create_run
from pipeline.training.tensorboard import TensorBoard
from pipeline.training.trainer import Trainer

STEPS = 25
EPOCH = ("--steps-per-epoch", str(STEPS))  # whatever a recipe says


def parse(arguments: list[str]) -> tuple[Command, int]:
    """The command of a training, and how many rounds."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rounds", type=int, default=11)
    options, others = parser.parse_known_args(arguments)
    endless = ["--weights", "none", "--epochs", "1000", "--checkpoint-minutes", "1e9", *EPOCH]
    return parse_command([*others, *endless]), options.rounds


def print_efficiency(recipe: Recipe, rates: dict[str, list[float]], precision: str, num_points: int):
    """Prints and writes what came of the rounds."""
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    print(f"efficiency {statistics.median(ratios):.3f}   (rounds: {', '.join(f'{ratio:.3f}' for ratio in ratios)})")
    write_result(
        f"efficiency_{recipe.network.model}_{recipe.photos.size}px",
        {
            "model": recipe.network.model,
            "size": recipe.photos.size,
            "batch": recipe.optimiser.batch_size,
            "points": num_points,
            "precision": precision,
            "photos a second": {name: round(statistics.median(found), 1) for name, found in rates.items()},
            "ratio of each round": [round(ratio, 3) for ratio in ratios],
            "efficiency": round(statistics.median(ratios), 3),
        },
        ratios=[
            Ratio.of(f"rate of training, {recipe.network.model}, {recipe.photos.size} px", "one fixed batch", ratios)
        ],
        gpu=recipe.run.gpu,
    )


def main():
    command, rounds = parse(sys.argv[1:])
    recipe = command.recipe
    runtime = Runtime.choose(gpu=recipe.run.gpu, precision=recipe.network.precision)
    data = load_training_data(recipe)
    data = replace(data, train=data.train[: STEPS * recipe.optimiser.batch_size])
    network = make_network(recipe, None, mean_shape=data.mean_shape)
    trainer = Trainer(network, recipe, data, runtime)
    chain = parse_augmenters(recipe.augmentation.augment)
    order = trainer.order.of_pass(0)
    batches = training_batches(data.pack, trainer.source, order[:1], chain, data.flip_indices, seed=0, epoch=0)
    batch = next(iter(batches))

    def wait():
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def as_trained():
        trainer.state.epoch += 1
        trainer.state.batch = 0
        trainer.train_epoch(chain)

    def fixed():
        """The bare step: forward, loss, backward, clip, step, on one batch."""
        for _ in order:
            with runtime.autocast():
                predicted = trainer.network.predict(batch.images)
            loss = sample_losses(predicted, batch, recipe.loss, size=recipe.photos.size).mean()
            trainer.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), recipe.optimiser.clip)
            trainer.optimiser.step()

    rates: dict[str, list[float]] = {"as trained": [], "fixed batch": []}
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(
            replace(recipe, run=replace(recipe.run, runs=Path(folder))),
            data,
            floor=mean_shape_score(data),
        )
        trainer.callbacks = [TensorBoard(run), Bar()]
        for callback in trainer.callbacks:
            callback.begin(trainer)
        as_trained(), fixed()
        for _ in range(rounds):
            for name, work in (("as trained", as_trained), ("fixed batch", fixed)):
                begun = wait()
                work()
                rates[name].append(len(order) * recipe.optimiser.batch_size / (wait() - begun))
        for callback in trainer.callbacks:
            callback.end()
    print_efficiency(recipe, rates, runtime.precision, data.num_points)


if __name__ == "__main__":
    main()
